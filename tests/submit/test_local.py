"""A run without Slurm: it outlives its terminal, is cancelled, and goes on with the old code.

The life of one run is lived once, and each test looks at a part of it.
"""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

import fusionrun
from fusionrun.errors import SchedulerError
from fusionrun.launch import prepare
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.slurm.client import Slurm
from fusionrun.store.atomic import make_folder
from fusionrun.store.checkpoints import list_checkpoints
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import Status, read_status
from fusionrun.submit.handing import hand_over
from fusionrun.submit.journal import (
    Submission,
    now,
    read_events,
    read_submission,
    write_submission,
)
from fusionrun.submit.process import is_living
from fusionrun.submit.standing import standing
from tests.submit.life import argv, call, environment, events, only_run, until, write_recipe

Done = CompletedProcess[str]
# Said by the trainer when it has been imported, which takes long after a submit has returned.
SAYS = '\nprint("this is code {}", flush=True)\n'


@dataclass
class Life:
    """What was seen of one run.

    Attributes:
        layout: the run.
        seen: what a command said, by its name here.
        facts: what was found at some moment, by its name here.
    """

    layout: RunLayout
    seen: dict[str, Done] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def in_a_terminal_that_closes(folder: Path, env: dict[str, str], *arguments: object) -> str:
    """Call a command in a terminal of its own and hang up; returns what it showed."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        argv(*arguments),
        cwd=folder,
        env=env,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:
            pass  # the other end has closed
        assert process.wait() == 0, shown.decode()
    os.close(ours)
    return shown.decode()


def say(package: Path, word: str) -> None:
    trainer = package / "train" / "job.py"
    own = (Path(fusionrun.__file__).parent / "train" / "job.py").read_text()
    trainer.write_text(own + SAYS.format(word))


def trains(layout: RunLayout, attempts: int) -> Callable[[], bool]:
    def does() -> bool:
        status = read_status(layout)
        began = events(layout).count("started") == attempts
        return began and status.state == "running" and status.step > 0

    return does


@pytest.fixture(scope="module")
def life(folder: Path) -> Life:
    package = folder / "code" / "fusionrun"
    shutil.copytree(
        Path(fusionrun.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    say(package, "one")
    (folder / "templates").symlink_to(Path(fusionrun.__file__).parents[1] / "templates")
    shutil.copytree(folder / "templates", folder / "code" / "templates")
    env = environment(PYTHONPATH=str(package.parent), RANK="3", WORLD_SIZE="9", MINE="kept")
    recipe = write_recipe(folder / "r.yaml", "Ein Lauf; $(touch x)")
    shown = in_a_terminal_that_closes(folder, env, "submit", recipe, "--executor", "local")
    say(package, "two")
    layout = only_run(folder)
    lived = Life(layout, facts={"shown": shown})
    until("it trains", trains(layout, 1))
    pid = standing(layout).pid
    assert pid is not None
    lived.facts |= {
        "session": os.getsid(pid),
        "pid": pid,
        "environment": Path(f"/proc/{read_status(layout).pid}/environ").read_bytes().split(b"\0"),
    }
    lived.seen["again"] = call("submit", recipe, "--executor", "local", cwd=folder)
    lived.seen["train"] = call("train", recipe, cwd=folder)
    lived.seen["cancel"] = call("cancel", layout.id, cwd=folder)
    until("it has stopped", lambda: not standing(layout).is_living)
    lived.facts |= {
        "stopped": read_status(layout),
        "outcome": json.loads(layout.outcome.read_text()),
    }
    lived.facts |= {"events": events(layout), "checkpoints": list_checkpoints(layout.checkpoints)}
    lived.seen["cancel again"] = call("cancel", layout.id, cwd=folder)
    lived.seen["resume"] = call("resume", layout.id, cwd=folder, env=env)
    lived.seen["resume again"] = call("resume", layout.id, cwd=folder)
    until("it trains again", trains(layout, 2))
    lived.facts["trainer"] = read_status(layout).pid
    lived.seen["now"] = call("cancel", layout.id, "--now", cwd=folder)
    until("all processes are gone", lambda: not is_living(lived.facts["trainer"]))
    return lived


def test_the_screen_names_process_run_log_and_what_to_do_next(life: Life) -> None:
    shown = life.facts["shown"].replace("\r", "")
    assert f"process     {life.facts['pid']}\n" in shown
    assert f"run         {life.layout.id}\n" in shown
    assert f"log         {life.layout.log}\n" in shown
    for command in (f"status {life.layout.id}", f"logs {life.layout.id} -f"):
        assert f"fusionrun {command}\n" in shown


def test_it_outlives_its_terminal_in_a_session_of_its_own(life: Life) -> None:
    assert life.facts["session"] == life.facts["pid"]


def test_it_keeps_the_environment_but_for_another_launchers_ranks(life: Life) -> None:
    assert b"MINE=kept" in life.facts["environment"]
    assert not [entry for entry in life.facts["environment"] if entry.startswith(b"RANK=")]


def test_a_second_submit_is_refused_with_the_process(life: Life) -> None:
    again = life.seen["again"]
    assert again.returncode == 2
    assert f"this run is going on right now: process {life.facts['pid']} on" in again.stderr
    assert "--new" in again.stderr


def test_train_is_refused_likewise(life: Life) -> None:
    assert life.seen["train"].returncode == 2
    assert "this run is going on right now" in life.seen["train"].stderr


def test_cancel_lets_it_save_and_stop(life: Life) -> None:
    assert life.seen["cancel"].returncode == 0
    assert "saves and stops at its next step" in life.seen["cancel"].stdout
    stopped: Status = life.facts["stopped"]
    assert stopped.state == "stopped"
    assert life.facts["outcome"]["reason"] == "cancel"
    assert life.facts["checkpoints"][0].step == stopped.step
    assert not life.layout.stop_request.exists()


def test_what_was_cancelled_does_not_go_on_by_itself(life: Life) -> None:
    assert life.facts["events"][-1] == "not_requeued"
    assert "requeued" not in life.facts["events"]


def test_cancelling_what_has_ended_does_nothing(life: Life) -> None:
    assert life.seen["cancel again"].returncode == 0
    assert "nothing to cancel: stopped" in life.seen["cancel again"].stdout


def test_resume_goes_on_at_the_step_where_it_stopped(life: Life) -> None:
    assert life.seen["resume"].returncode == 0, life.seen["resume"].stderr
    assert "was stopped" in life.seen["resume"].stdout
    started = [event for event in read_events(life.layout) if event["event"] == "started"]
    assert started[1]["resumed_from"] == life.facts["stopped"].step


def test_a_run_that_goes_on_is_not_resumed_twice(life: Life) -> None:
    assert life.seen["resume again"].returncode == 2
    assert "goes on already: process" in life.seen["resume again"].stderr


def test_the_code_of_the_submit_runs_also_after_a_resume(life: Life) -> None:
    log = life.layout.log.read_text()
    assert log.count("this is code one") == 2
    assert "this is code two" not in log


def test_cancel_now_leaves_no_process(life: Life) -> None:
    assert "killed" in life.seen["now"].stdout
    assert not standing(life.layout).is_living
    assert read_status(life.layout).state == "stopped"


def test_the_journal_has_both_jobs(life: Life) -> None:
    submission = read_submission(life.layout)
    assert submission is not None
    assert submission.state == "cancelled"
    assert [job.attempt for job in submission.jobs] == [1, 2]
    assert submission.job_id == submission.jobs[1].id


def test_a_hostile_name_had_no_side_effect(life: Life, folder: Path) -> None:
    assert not [path for path in folder.rglob("x") if path.is_file()]


# Other ends


@pytest.fixture(scope="module")
def short(folder: Path) -> tuple[Path, RunLayout, Done]:
    """A run that completes, submitted with --json."""
    recipe = write_recipe(folder / "short.yaml", "short", epochs=1)
    done = call("submit", recipe, "--executor", "local", "--json", cwd=folder)
    layout = RunLayout(Path(json.loads(done.stdout)["directory"]))
    until("it has ended", lambda: not standing(layout).is_living)
    return recipe, layout, done


def test_json_has_all_that_the_screen_has(short: tuple[Path, RunLayout, Done]) -> None:
    _, layout, done = short
    told = json.loads(done.stdout)
    submission: Submission | None = read_submission(layout)
    assert submission is not None
    assert told["job_id"] == submission.job_id
    assert told["snapshot"]["id"] == submission.snapshot["id"]
    assert (told["executor"], told["state"]) == ("local", "submitted")


def test_a_completed_run_is_not_submitted_again(
    short: tuple[Path, RunLayout, Done], folder: Path
) -> None:
    recipe, layout, _ = short
    done = call("submit", recipe, "--executor", "local", cwd=folder)
    assert done.returncode == 0
    assert f"{layout.id} has finished already" in done.stdout
    # Of a job for it a dry run shows all there is, whoever carried it out.
    dry = call("submit", recipe, "--executor", "slurm", "--dry-run", cwd=folder)
    assert "#SBATCH --comment=" in dry.stdout
    assert f"{layout.id} has finished already" in dry.stdout


def test_a_run_that_has_lost_its_journal_goes_on_with_the_code_as_it_is_and_says_so(
    folder: Path,
) -> None:
    recipe = write_recipe(folder / "lost.yaml", "lost", epochs=1)
    source = read_recipe(recipe)
    layout = prepare(
        make_plan(source, folder / "runs"), source.text, folder / "runs", new=True
    ).layout
    make_folder(layout.logs)
    layout.log.touch()  # (as a job leaves it)
    shown = call("status", layout.id, cwd=folder).stdout
    assert "submission.json: missing" in shown
    done = call("resume", layout.id, "--executor", "local", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "submission.json is gone, which names the code it began with" in done.stdout
    until("it has completed", lambda: standing(layout).is_complete)


def test_a_completed_run_is_not_resumed(short: tuple[Path, RunLayout, Done], folder: Path) -> None:
    done = call("resume", short[1].id, cwd=folder)
    assert done.returncode == 2
    assert "has completed; there is nothing left to do" in done.stderr


def test_a_dry_run_writes_nothing(short: tuple[Path, RunLayout, Done], folder: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    recipe = short[0]
    done = call("submit", recipe, "--executor", "local", "--new", "--dry-run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "snapshot" in done.stdout
    assert {path: path.lstat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_run_after_one_that_completed_waits_for_nothing(
    short: tuple[Path, RunLayout, Done], folder: Path
) -> None:
    options = ("--new", "--executor", "local", "--after", short[1].id, "--dry-run", "--json")
    done = call("submit", short[0], *options, cwd=folder)
    assert json.loads(done.stdout)["waits_for"] is None


def test_a_killed_trainer_leaves_a_failed_run_and_ends_the_run_that_waits_for_it(
    folder: Path,
) -> None:
    recipe = write_recipe(folder / "killed.yaml", "killed")
    told = json.loads(call("submit", recipe, "--executor", "local", "--json", cwd=folder).stdout)
    first = RunLayout(Path(told["directory"]))
    later = write_recipe(folder / "later.yaml", "later")
    options = ("--executor", "local", "--after", first.id, "--json")
    told = json.loads(call("submit", later, *options, cwd=folder).stdout)
    second = RunLayout(Path(told["directory"]))
    assert told["waits_for"] == {"run": first.id, "kind": "ok"}
    until("it trains", trains(first, 1))
    os.kill(read_status(first).pid, signal.SIGKILL)
    until("both have ended", lambda: not (standing(first).is_living or standing(second).is_living))
    assert read_status(first).state == "failed"
    assert "died" in events(first)
    assert "(exit code 137: SIGKILL)" in read_events(first)[-1]["why"]
    ended = read_submission(second)
    assert ended is not None
    assert ended.state == "cancelled"
    assert "did not complete (failed), and this run waited for it" in ended.words
    assert "started" not in events(second)
    refused = call("submit", later, *options, "--new", cwd=folder)
    assert refused.returncode == 2
    assert "this one has ended: failed" in refused.stderr


def test_a_python_that_is_gone_is_told_and_the_run_marked_rejected(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    write_submission(layout, Submission("local", "preparing", now(), python="/gone/python"))
    with pytest.raises(SchedulerError, match=r"the run did not start: .*/gone/python"):
        hand_over(layout, Slurm())
    submission = read_submission(layout)
    assert submission is not None
    assert submission.state == "rejected"
    assert "/gone/python" in submission.words
    assert read_status(layout).state == "prepared"
