"""Looking at runs on a real cluster: that works, that has forgotten, that does not answer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fusionrun.store.layout import RunLayout
from tests.slurm.needs import skip_without_slurm
from tests.slurm_cluster import Cluster
from tests.submit.life import call, environment, write_recipe
from tests.watch.made import PROGRAM, Made, fusionrun

SLEEP = "#!/bin/bash\nsleep 100\n"

# A run of two attempts that speaks, and says how it stands as the trainer and `after` do.
TWICE = """\
#!/bin/bash
said() { printf '{"state": "%s", "heartbeat": %s, "attempts": 1}' "$1" "$(date +%s)" >status.json; }
echo "attempt ${SLURM_RESTART_COUNT:-0} began"
said running
sleep 1
if [ -z "${SLURM_RESTART_COUNT:-}" ]; then
    said queued
    echo '{"event": "requeued"}' >>events.jsonl
    scontrol requeue "$SLURM_JOB_ID"
    exec sleep 60  # else bash may outlive its sleep by a moment, and say so
fi
echo "the end"
said completed
"""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def queued(cluster: Cluster, made: Made, *arguments: str, script: str = SLEEP) -> str:
    """Queue a script as a run's job, as the submitter does; returns its id."""
    layout = made.layout
    layout.logs.mkdir(exist_ok=True)
    layout.job_script.write_text(script)
    job_id = cluster.sbatch(
        f"--comment=fusionrun:{layout.id}",
        f"--chdir={layout.root}",
        f"--output={layout.log}",
        "--open-mode=append",
        *arguments,
        str(layout.job_script),
    )
    made.journal(job_id=job_id)
    return job_id


def status(runs: Path, env: dict[str, str], *run: str) -> tuple[int, dict[str, Any]]:
    done = fusionrun("status", *run, "--json", "--runs", runs, env=env)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def seen(runs: Path, env: dict[str, str], run: str) -> dict[str, Any]:
    code, content = status(runs, env, run)
    assert code == 0
    found: dict[str, Any] = content["run"]
    return found


def until(done: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def counting(folder: Path, env: dict[str, str], *programs: str) -> dict[str, str]:
    """An environment in which each call of these programs leaves a line in `calls`."""
    folder.mkdir()
    for name in programs:
        real = shutil.which(name, path=env["PATH"])
        wrapper = folder / name
        wrapper.write_text(f'#!/bin/bash\necho {name} >>{folder}/calls\nexec {real} "$@"\n')
        wrapper.chmod(0o755)
    return {**env, "PATH": f"{folder}:{env['PATH']}"}


# What the queue says


def test_fifty_runs_take_one_squeue(
    cluster: Cluster, slurm_env: dict[str, str], runs: Path, tmp_path: Path
) -> None:
    for number in range(50):
        made = Made(runs / f"digits-{number:02}")
        if number < 5:
            queued(cluster, made.status("queued", attempts=0, step=0), "--hold")
        elif number < 7:
            cluster.wait(queued(cluster, made.status("queued")), "RUNNING")
            made.status("running")
        else:
            made.journal(job_id=str(9000 + number)).status("failed" if number % 2 else "completed")
    programs = ("squeue", "scontrol", "sinfo", "sacct", "sbatch")
    env = counting(tmp_path / "bin", slurm_env, *programs)
    code, content = status(runs, env)
    words = {run["id"]: run["state"] for run in content["runs"]}
    assert (code, len(words)) == (0, 50)
    assert {words[f"digits-{number:02}"] for number in range(5)} == {"queued"}
    assert {words[f"digits-{number:02}"] for number in (5, 6)} == {"running"}
    calls = (tmp_path / "bin" / "calls").read_text().split()
    assert (calls.count("squeue"), calls) == (1, ["scontrol", "squeue"])  # the first is a ping


def test_runs_that_have_ended_need_no_slurm(
    slurm_env: dict[str, str], runs: Path, tmp_path: Path
) -> None:
    Made(runs / "a").journal(job_id="1").status("completed")
    Made(runs / "b").status("failed")
    env = counting(tmp_path / "bin", slurm_env, "squeue", "scontrol")
    assert status(runs, env)[0] == 0
    assert not (tmp_path / "bin" / "calls").exists()


@pytest.mark.parametrize(
    ("asked", "reason", "meaning"),
    [
        (["--cpus-per-task=64"], "PartitionConfig", "does not offer what it asks for"),
        (["--nodes=3"], "PartitionNodeLimit", "more nodes than its partition has"),
        (["--partition=short", "--time=60"], "PartitionTimeLimit", "more time than its partition"),
    ],
)
def test_a_job_that_asks_for_too_much_is_told_so(
    cluster: Cluster,
    slurm_env: dict[str, str],
    runs: Path,
    asked: list[str],
    reason: str,
    meaning: str,
) -> None:
    job_id = queued(cluster, Made(runs / "big").status("queued"), *asked)
    until(lambda: cluster.job(job_id)["Reason"] == reason)
    run = seen(runs, slurm_env, "big")
    assert (run["state"], run["job"]["reason"]) == ("queued", reason)
    assert meaning in run["why"]
    assert "will never start like this" in run["advice"]


def test_a_job_that_waits_for_room_is_told_to_wait(
    cluster: Cluster, slurm_env: dict[str, str], runs: Path
) -> None:
    for name in ("first", "second"):
        job_id = queued(cluster, Made(runs / name).status("queued"), "--nodes=2", "--exclusive")
    until(lambda: cluster.job(job_id)["Reason"] in ("Resources", "Priority"))
    run = seen(runs, slurm_env, "second")
    assert run["state"] == "queued"
    assert "may let it slip in earlier" in run["advice"]


def test_a_held_job_names_the_command_that_lets_it_go(
    cluster: Cluster, slurm_env: dict[str, str], runs: Path
) -> None:
    job_id = queued(cluster, Made(runs / "held").status("queued"), "--hold")
    done = fusionrun("status", "held", "--runs", runs, env=slurm_env)
    assert f"scontrol release {job_id}" in done.stdout
    assert f"{job_id} PENDING" in done.stdout


def test_the_time_left_is_the_jobs(cluster: Cluster, slurm_env: dict[str, str], runs: Path) -> None:
    made = Made(runs / "one").status("queued")
    cluster.wait(queued(cluster, made, "--time=10"), "RUNNING")
    assert seen(runs, slurm_env, "one")["state"] == "starting"
    made.status("running")
    run = seen(runs, slurm_env, "one")
    assert (run["state"], 500 < run["time_left_s"] <= 600) == ("running", True)


def test_a_job_of_a_run_of_the_same_id_elsewhere_is_not_ours(
    cluster: Cluster, slurm_env: dict[str, str], runs: Path, tmp_path: Path
) -> None:
    queued(cluster, Made(tmp_path / "others" / "one").status("queued"), "--hold")
    Made(runs / "one").status("queued").journal(job_id="99999")
    assert seen(runs, slurm_env, "one")["state"] == "lost"


def test_a_job_that_the_journal_does_not_know_yet_is_ours_by_its_script(
    cluster: Cluster, slurm_env: dict[str, str], runs: Path
) -> None:
    made = Made(runs / "one").status("queued")
    job_id = queued(cluster, made, "--hold")
    made.journal("preparing")
    run = seen(runs, slurm_env, "one")
    assert (run["state"], run["job"]["id"]) == ("queued", job_id)


def test_a_failed_set_up_is_told_by_its_exit_code(
    cluster: Cluster, slurm_env: dict[str, str], runs: Path
) -> None:
    script = "#!/bin/bash\necho something else\nexit 72\n"
    job_id = queued(cluster, Made(runs / "one").status("queued"), script=script)
    cluster.wait(job_id, "FAILED")
    run = seen(runs, slurm_env, "one")
    assert (run["state"], run["post_mortem"]["cause"]) == ("failed", "setup")
    assert "a set-up line failed (exit code 72)" in run["why"]


def test_a_node_that_fails_under_a_run_is_named(
    cluster: Cluster, slurm_env: dict[str, str], runs: Path
) -> None:
    made = Made(runs / "one").status("queued")
    job_id = queued(cluster, made, "--nodelist=n2", "--no-requeue")
    cluster.wait(job_id, "RUNNING")
    made.status("running", job_id=job_id).event("started", age_s=0)
    cluster.run("scontrol", "update", "nodename=n2", "state=down", "reason=test")
    cluster.wait(job_id, "NODE_FAIL")
    run = seen(runs, slurm_env, "one")
    assert (run["state"], run["post_mortem"]["cause"]) == ("failed", "node")
    assert "slurm.exclude: n2" in run["advice"]


# Runs that were submitted


def submitted(cluster: Cluster, folder: Path, more: str) -> list[RunLayout]:
    """A recipe's run or runs, in Slurm's queue."""
    recipe = write_recipe(folder / "r.yaml", "one", more=more)
    done = call("submit", recipe, "--json", cwd=folder, env=environment(**cluster.env))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    return [RunLayout(Path(run["directory"])) for run in told.get("points", [told])]


@pytest.mark.slow
def test_a_trainer_that_is_stopped_hangs_and_one_that_is_killed_has_failed(
    cluster: Cluster, slurm_env: dict[str, str], tmp_path: Path
) -> None:
    (layout,) = submitted(cluster, tmp_path, "slurm: {nodes: 1}")
    env = {**slurm_env, "FUSIONRUN_HUNG_S": "8"}  # a heartbeat comes every 5 s

    def stands() -> str:
        return str(seen(layout.root.parent, env, layout.id)["state"])

    until(lambda: stands() == "running")
    until(lambda: seen(layout.root.parent, env, layout.id)["step_s"])
    pid = seen(layout.root.parent, env, layout.id)["pid"]
    os.kill(pid, signal.SIGSTOP)
    until(lambda: stands() == "hung?")
    os.kill(pid, signal.SIGCONT)
    until(lambda: stands() == "running")
    os.kill(pid, signal.SIGKILL)
    until(lambda: stands() == "failed")
    run = seen(layout.root.parent, env, layout.id)
    assert run["post_mortem"]["cause"] == "killed"
    assert "SIGKILL" in run["why"]
    assert f"fusionrun resume {layout.id}" in run["advice"]


def test_a_scancelled_run_is_stopped(
    cluster: Cluster, slurm_env: dict[str, str], tmp_path: Path
) -> None:
    (layout,) = submitted(cluster, tmp_path, "slurm: {nodes: 1}")
    until(lambda: seen(layout.root.parent, slurm_env, layout.id)["state"] == "running")
    cluster.run("scancel", seen(layout.root.parent, slurm_env, layout.id)["job"]["id"])
    until(lambda: seen(layout.root.parent, slurm_env, layout.id)["state"] == "stopped")


def test_each_run_of_an_array_has_its_own_task(
    cluster: Cluster, slurm_env: dict[str, str], tmp_path: Path
) -> None:
    more = "sweep: {seeds: [0, 1, 2]}\nslurm: {nodes: 1, extra: {begin: now+1hour}}"
    layouts = submitted(cluster, tmp_path, more)
    runs = status(layouts[0].root.parent, slurm_env)[1]["runs"]
    (array,) = {run["job"]["id"].partition("_")[0] for run in runs}
    assert {run["job"]["id"] for run in runs} == {f"{array}_{number}" for number in range(3)}
    assert {(run["state"], run["job"]["state"]) for run in runs} == {("queued", "PENDING")}


# When it has forgotten, or does not answer


@pytest.fixture(scope="module")
def forgetful() -> Iterator[Cluster]:
    """A cluster that forgets a job five seconds after its end, at the next of its purges."""
    skip_without_slurm()
    with Cluster(min_job_age_s=5, nodes=1) as cluster:
        yield cluster


@pytest.mark.slow
def test_what_slurm_has_forgotten_the_runs_directory_tells(forgetful: Cluster, runs: Path) -> None:
    env = forgetful.environment()
    cancelled = Made(runs / "cancelled").status("queued")
    job_id = queued(forgetful, cancelled)
    forgetful.wait(job_id, "RUNNING")
    cancelled.status("running", job_id=job_id, age_s=0, step_s=0.01).event("started", age_s=0)
    forgetful.run("scancel", job_id)
    failed = Made(runs / "failed").status("queued")
    ended = [job_id, queued(forgetful, failed, script="#!/bin/bash\nexit 1\n")]
    failed.status("failed").event("started").rank_error(0, "boom").outcome("failed", "boom")

    def none_known() -> bool:
        known = forgetful.squeue("--noheader", "--states=all", "--format=%A").split()
        return not set(ended) & set(known)

    until(none_known, 180)
    words = {run["id"]: run["state"] for run in status(runs, env)[1]["runs"]}
    assert words == {"cancelled": "stopped", "failed": "failed"}
    assert "boom" in seen(runs, env, "failed")["why"]


def test_without_the_controller_the_last_known_states_are_shown(
    cluster: Cluster, slurm_env: dict[str, str], runs: Path
) -> None:
    made = Made(runs / "running").status("queued")
    cluster.wait(queued(cluster, made), "RUNNING")
    made.status("running")
    queued(cluster, Made(runs / "queued").status("queued"), "--hold")
    Made(runs / "done").journal(job_id="1").status("completed")
    Made(runs / "here").status("interrupted")
    cluster.stop_controller()
    code, content = status(runs, slurm_env)
    found = {run["id"]: (run["state"], run["certain"]) for run in content["runs"]}
    assert code == 4
    assert found == {
        "running": ("running", False),
        "queued": ("queued", False),
        "done": ("completed", True),
        "here": ("stopped", True),
    }
    assert "out of reach" in content["scheduler"]["unreachable"]


def test_without_the_controller_people_see_which_states_are_old(
    cluster: Cluster, slurm_env: dict[str, str], runs: Path
) -> None:
    queued(cluster, Made(runs / "one").status("queued"), "--hold")
    cluster.stop_controller()
    everything = fusionrun("status", "--runs", runs, env=slurm_env)
    one = fusionrun("status", "one", "--runs", runs, env=slurm_env)
    assert (everything.returncode, one.returncode) == (4, 4)
    assert "queued*" in everything.stdout
    assert "queued (last known): it waited in the queue when last heard of" in one.stdout
    assert "States with a *" in everything.stderr
    assert "The state is the last known one." in one.stderr
    for done in (everything, one):
        assert "the Slurm controller is out of reach" in done.stderr
        assert "Traceback" not in done.stderr
    listed = fusionrun("runs", "--runs", runs, env=slurm_env)
    assert (listed.returncode, "out of reach" in listed.stderr) == (0, True)


def test_without_the_controller_one_that_has_ended_needs_none(
    cluster: Cluster, slurm_env: dict[str, str], runs: Path
) -> None:
    made = Made(runs / "one").status("failed").journal(job_id="1").rank_error(0, "boom")
    made.event("started").event("not_requeued", why="the training failed", code=1)
    cluster.stop_controller()
    assert seen(runs, slurm_env, "one")["state"] == "failed"


# The log


@pytest.mark.slow
def test_a_log_is_followed_across_a_requeue(
    cluster: Cluster, slurm_env: dict[str, str], runs: Path
) -> None:
    made = Made(runs / "twice").status("queued")
    job_id = queued(cluster, made, "--requeue", script=TWICE)
    argv = [sys.executable, "-c", PROGRAM, "logs", "twice", "-f", "--runs", runs]
    with subprocess.Popen(
        argv, env=slurm_env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as listener:
        try:
            out, err = listener.communicate(timeout=90)
        finally:
            listener.kill()
    lines = [line for line in out.splitlines() if not line.startswith("slurmstepd")]
    assert lines == ["attempt 0 began", "attempt 1 began", "the end"], err
    assert listener.returncode == 0
    assert err.splitlines()[-1] == "[twice: completed]"
    assert RunLayout(runs / "twice").log.read_text() == out
    assert cluster.job(job_id)["Restarts"] == "1"
