"""How a run stands, by its files and its job: no cluster, no clock."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from fusionrun.slurm.parse import QueuedJob
from fusionrun.submit.standing import standing
from fusionrun.submit.trainer import announce
from fusionrun.watch.facts import facts_of
from fusionrun.watch.state import RunState, Unreachable, state_of
from tests.watch.made import Made, job

Stands = Callable[..., RunState]
SILENT = Unreachable("the Slurm controller is out of reach")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "run")


def stands(made: Made, seen: QueuedJob | Unreachable | None = None) -> RunState:
    return state_of(facts_of(made.layout), seen, time.time())


def local(seconds_ago: float) -> str:
    return datetime.fromtimestamp(time.time() - seconds_ago).isoformat(timespec="seconds")


# Handed to Slurm, and living


def test_a_job_that_waits_is_queued_with_its_reason_in_words(made: Made) -> None:
    made.journal(job_id="12").status("queued", attempts=0, step=0)
    seen = stands(made, job("PENDING", reason="Priority"))
    assert seen.word == "queued"
    assert seen.why == "job 12: jobs of higher priority stand before it (Priority)"


def test_a_job_that_waits_for_another_run_names_it(made: Made) -> None:
    made.journal(job_id="12", after={"run": "first-1-s0", "kind": "ok"}).status("queued")
    assert "first-1-s0" in stands(made, job("PENDING", reason="Dependency")).why


def test_the_advice_names_the_job(made: Made) -> None:
    made.journal(job_id="12").status("queued")
    assert "scontrol release 12" in stands(made, job("PENDING", reason="JobHeldUser")).advice


@pytest.mark.parametrize("remembered", [job("CANCELLED"), None])
def test_a_run_whose_predecessor_has_failed_is_told_to_resume_that_one_first(
    remembered: QueuedJob | None, made: Made
) -> None:
    Made(made.layout.root.parent / "first").status("failed")
    made.journal(job_id="12", after={"run": "first", "kind": "ok"}).status("queued", attempts=0)
    seen = stands(made, remembered)
    assert seen.word == "stopped"
    assert seen.why == "its job left the queue, where it waited for first to complete"
    assert "first has completed: `fusionrun resume first" in seen.advice
    assert ", then `fusionrun resume run" in seen.advice


def test_a_fused_run_names_the_experts_that_are_missing_and_no_other(made: Made) -> None:
    for name, state in (("a", "completed"), ("b", "stopped"), ("c", "running")):
        Made(made.layout.root.parent / name).status(state)
    after = {"runs": ["a", "b", "c"], "kind": "ok"}
    made.journal("cancelled", job_id="12", after=after).status("stopped", attempts=0)
    advice = stands(made).advice
    assert advice.startswith("It begins when b, c have completed. Submit the recipe again")


def test_a_run_of_which_all_have_completed_that_it_waits_for_just_goes_on(made: Made) -> None:
    Made(made.layout.root.parent / "first").status("completed")
    made.journal("cancelled", job_id="12", after={"run": "first", "kind": "ok"})
    assert "starts it again" in stands(made.status("stopped", attempts=0)).advice


@pytest.mark.parametrize("how", ["by Slurm's count", "by the run's events"])
def test_a_job_that_waits_again_is_requeued(made: Made, how: str) -> None:
    made.journal(job_id="12").status("queued").event("started", job_id="12")
    if how == "by the run's events":
        made.event("requeued", how="chain", job_id="12")
    waits = job("PENDING", reason="BeginTime", restarts=int(how == "by Slurm's count"))
    assert stands(made, waits).word == "requeued"


def test_a_resumed_run_is_queued_and_not_requeued(made: Made) -> None:
    made.journal(job_id="12").status("queued").event("requeued").event("submitted")
    assert stands(made, job("PENDING")).word == "queued"


def test_a_cancelled_job_that_still_waits_is_stopping(made: Made) -> None:
    made.journal("cancelled", job_id="12").status("queued")
    assert stands(made, job("PENDING")).word == "stopping"


def test_a_job_that_runs_before_training_began_is_starting(made: Made) -> None:
    made.journal(job_id="12").status("queued")
    assert stands(made, job("RUNNING")).word == "starting"


def test_a_job_that_trains_is_running(made: Made) -> None:
    made.journal(job_id="12").status("running")
    assert stands(made, job("RUNNING", start=local(300))).word == "running"


def test_a_job_that_slurm_started_anew_is_starting_whatever_the_old_status_says(
    made: Made,
) -> None:
    made.journal(job_id="12").status("running", age_s=500)
    assert stands(made, job("RUNNING", start=local(20))).word == "starting"


def test_a_silent_job_that_runs_is_hung(made: Made) -> None:
    made.journal(job_id="12").status("running", age_s=61).checkpoint(1000)
    seen = stands(made, job("RUNNING", start=local(700)))
    assert seen.word == "hung?"
    assert "no sign of life for 61 s from process 4194305 on elsewhere" in seen.why
    assert "goes on from step 1,000" in seen.advice


def test_slow_steps_are_given_time(made: Made) -> None:
    made.journal(job_id="12").status("running", age_s=100, step_s=6.0)
    assert stands(made, job("RUNNING", start=local(700))).word == "running"


def test_the_first_step_is_given_time(made: Made) -> None:
    made.journal(job_id="12").status("running", age_s=500, step_s=None)
    assert stands(made, job("RUNNING", start=local(700))).word == "running"


def test_a_run_that_was_asked_to_stop_is_stopping(made: Made) -> None:
    made.journal(job_id="12").status("running").stop("time_limit")
    assert stands(made, job("RUNNING")).word == "stopping"


def test_a_run_that_has_stopped_is_stopping_as_long_as_its_job_runs(made: Made) -> None:
    made.journal(job_id="12").status("stopped").outcome("stopped", "time_limit")
    assert stands(made, job("RUNNING", start=local(300))).word == "stopping"


def test_a_job_that_slurm_has_suspended_may_hang(made: Made) -> None:
    made.journal(job_id="12").status("running")
    seen = stands(made, job("SUSPENDED"))
    assert (seen.word, seen.advice) == ("hung?", "`scontrol resume 12` lets it go on.")


def test_a_held_requeue_says_how_to_let_it_go(made: Made) -> None:
    made.journal(job_id="12").status("queued")
    seen = stands(made, job("REQUEUE_HOLD"))
    assert (seen.word, seen.advice) == ("requeued", "`scontrol release 12` lets it go.")


# Over


def test_a_completed_run_is_completed_whatever_slurm_says(made: Made) -> None:
    made.journal(job_id="12").status("completed").outcome("completed")
    for seen in (None, SILENT, job("FAILED"), job("RUNNING")):
        assert stands(made, seen) == RunState("completed")


def test_a_rejected_run_shows_the_schedulers_words(made: Made) -> None:
    made.journal("rejected", words="Slurm refuses it\n  Invalid account").status("queued")
    seen = stands(made)
    assert (seen.word, seen.why) == ("rejected", "Slurm refuses it: Invalid account")


def test_a_stop_by_cancel_says_by_whom(made: Made) -> None:
    made.journal("cancelled", job_id="12").status("stopped").outcome("stopped", "cancel")
    seen = stands(made)
    assert (seen.word, seen.why) == ("stopped", "by `fusionrun cancel`")


def test_a_stop_that_did_not_go_on_says_why(made: Made) -> None:
    made.journal(job_id="12").status("stopped").outcome("stopped", "time_limit").event("started")
    made.event("not_requeued", why="it went on by itself 20 times, which is max_requeues")
    seen = stands(made)
    assert (seen.word, "max_requeues" in seen.why) == ("stopped", True)


@pytest.mark.parametrize(
    ("state", "word", "kind"),
    [
        ("TIMEOUT", "failed", "time_limit"),
        ("OUT_OF_MEMORY", "failed", "out_of_memory"),
        ("NODE_FAIL", "failed", "node"),
        ("PREEMPTED", "failed", "preempted"),
        ("CANCELLED", "stopped", "user"),
    ],
)
def test_a_job_that_died_in_training_tells_why(
    made: Made, state: str, word: str, kind: str
) -> None:
    made.journal(job_id="12").status("running")
    seen = stands(made, job(state))
    assert (seen.word, seen.cause and seen.cause.kind) == (word, kind)


def test_a_run_without_job_or_sign_of_life_is_lost(made: Made) -> None:
    made.journal(job_id="12").status("running", age_s=300)
    seen = stands(made)
    assert seen.word == "lost"
    assert "Slurm does not know its job any more" in seen.why
    assert "starts it again from the beginning" in seen.advice


def test_a_fresh_heartbeat_beats_a_queue_that_knows_no_job(made: Made) -> None:
    made.journal(job_id="12").status("running", age_s=3)
    assert stands(made).word == "running"


def test_a_job_that_ended_well_without_training_is_lost(made: Made) -> None:
    made.journal(job_id="12").status("queued", attempts=0)
    seen = stands(made, job("COMPLETED", exit_code=0))
    assert (seen.word, "job 12 has ended (COMPLETED)" in seen.why) == ("lost", True)


@pytest.mark.parametrize(("code", "said"), [(71, "directory"), (72, "set-up"), (73, "python")])
def test_an_exit_code_of_the_script_is_put_in_words(made: Made, code: int, said: str) -> None:
    made.journal(job_id="12").status("queued")
    seen = stands(made, job("FAILED", exit_code=code))
    assert (seen.word, said in seen.why) == ("failed", True)


@pytest.mark.parametrize(
    "said",
    [
        "no line 3 in /runs/.arrays/a/points.txt",
        "the run directory is missing: /runs/one",
        "this set-up line failed: module load cuda",
        "/opt/python has no torch, or cannot import fusionrun from /snapshot",
        "the ranks have nowhere to meet",
    ],
)
def test_what_the_script_said_last_counts_when_slurm_has_forgotten_it(
    made: Made, said: str
) -> None:
    made.journal(job_id="12").status("queued").log(f"loading\nfusionrun: {said}\n")
    seen = stands(made)
    assert (seen.word, seen.why) == ("failed", said)
    assert seen.cause is not None
    assert seen.cause.kind == "setup"


# Being prepared


@pytest.mark.parametrize(("age_s", "word"), [(5, "preparing"), (500, "lost")])
def test_a_submit_that_takes_too_long_has_died(made: Made, age_s: float, word: str) -> None:
    made.journal("preparing", age_s=age_s)
    assert stands(made).word == word


@pytest.mark.parametrize(("age_s", "word"), [(5, "preparing"), (500, "unknown")])
def test_a_run_that_nobody_began(made: Made, age_s: float, word: str) -> None:
    assert stands(made.of_plan_aged(age_s)).word == word


# Without Slurm


def test_a_foreground_run_is_starting_until_its_process_has_begun(made: Made) -> None:
    announce(made.layout)
    seen = stands(made)
    assert (seen.word, seen.why) == (
        "starting",
        f"process {os.getpid()} on {socket.gethostname()} has not begun to train",
    )
    assert standing(made.layout).pid == os.getpid()


def test_one_that_is_killed_before_it_has_begun_is_lost_at_once(made: Made) -> None:
    announce(made.layout)
    content = json.loads(made.layout.training_lock.read_text())
    made.layout.training_lock.write_text(json.dumps({**content, "born": content["born"] + 1}))
    seen = stands(made)
    assert (seen.word, "is gone" in seen.why) == ("lost", True)
    assert "starts it again from the beginning" in seen.advice
    assert not standing(made.layout).is_living


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": -1, "host": "x"}', '{"pid": 1e9}'])
def test_whoever_left_no_legible_word_is_nobody(made: Made, content: str) -> None:
    made.layout.training_lock.write_text(content)
    assert (stands(made).word, standing(made.layout).is_living) == ("preparing", False)


def test_a_foreground_run_is_running_while_its_process_is_there(made: Made) -> None:
    made.status("running", pid=os.getpid(), host=socket.gethostname())
    assert stands(made).word == "running"


def test_a_foreground_run_whose_process_is_gone_is_lost(made: Made) -> None:
    made.status("running", host=socket.gethostname())
    assert (stands(made).word, "is gone" in stands(made).why) == ("lost", True)


def test_a_run_on_another_machine_is_known_by_its_heartbeat(made: Made) -> None:
    assert stands(made.status("running", age_s=5)).word == "running"
    silent = stands(made.status("running", age_s=500))
    assert (silent.word, "cannot be seen from here" in silent.why) == ("hung?", True)


def test_a_run_that_was_not_gone_on_with_stands_as_before_and_says_why(made: Made) -> None:
    made.checkpoint(1000).status("stopped").outcome("refused", "torch: was 1, is 2")
    seen = stands(made)
    assert (seen.word, seen.why) == ("stopped", "torch: was 1, is 2")
    assert "goes on from step 1,000. `fusionrun resume run" in seen.advice
    assert " --allow-inexact` does so as it is now, to other bits." in seen.advice


def test_an_interrupted_run_is_stopped(made: Made) -> None:
    made.status("interrupted").outcome("stopped", "interrupt")
    assert stands(made).word == "stopped"


def supervised_here(made: Made, **more: object) -> Made:
    mine = {"id": str(os.getpid()), "host": socket.gethostname(), "born": 0}
    return made.journal(executor="local", job_id=str(os.getpid()), jobs=[mine], **more)


def test_a_supervisor_that_has_not_begun_is_starting(made: Made) -> None:
    assert stands(supervised_here(made)).word == "starting"


def test_a_supervisor_that_waits_is_queued(made: Made) -> None:
    supervised_here(made, after={"run": "first", "kind": "ok"})
    assert (stands(made).word, stands(made).why) == ("queued", "waits for first to end")


def test_a_resumed_local_run_is_starting_although_an_old_outcome_is_there(made: Made) -> None:
    supervised_here(made).status("queued").outcome("stopped", "cancel")
    assert stands(made).word == "starting"


def test_a_supervisor_whose_trainer_has_ended_is_stopping(made: Made) -> None:
    supervised_here(made).status("running", host=socket.gethostname())
    assert stands(made).word == "stopping"


# Without the controller


@pytest.mark.parametrize(
    ("state", "word"), [("running", "running"), ("queued", "queued"), ("prepared", "queued")]
)
def test_without_the_controller_the_last_known_state_is_marked(
    made: Made, state: str, word: str
) -> None:
    made.journal(job_id="12").status(state, age_s=5000)
    seen = stands(made, SILENT)
    assert (seen.word, seen.certain) == (word, False)


def test_without_the_controller_a_requeued_run_is_requeued(made: Made) -> None:
    made.journal(job_id="12").status("queued").event("started").event("requeued")
    assert (stands(made, SILENT).word, stands(made, SILENT).certain) == ("requeued", False)


def test_without_the_controller_what_has_ended_for_good_is_certain(made: Made) -> None:
    made.journal(job_id="12").status("failed").outcome("failed", "boom").event("started")
    made.event("not_requeued", why="the training failed: boom", code=1)
    assert (stands(made, SILENT).word, stands(made, SILENT).certain) == ("failed", True)


def test_a_preempted_run_is_not_taken_to_have_ended_for_good(made: Made) -> None:
    made.journal(job_id="12").status("stopped").outcome("stopped", "signal").event("started")
    made.event("not_requeued", why="the job was ended from outside")
    assert not stands(made, SILENT).certain
