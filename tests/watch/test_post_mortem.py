"""Why a run ended badly, from what is left when Slurm has forgotten it."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fusionrun.slurm.parse import QueuedJob
from fusionrun.watch.facts import facts_of
from fusionrun.watch.post_mortem import Cause, cause_of
from tests.watch.made import Made, job


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = Made(tmp_path / "run").journal(job_id="12").event("started", age_s=300, job_id="12")
    return made.status("failed", job_id="12")


def cause(made: Made, seen: QueuedJob | None = None) -> Cause:
    found = cause_of(facts_of(made.layout), seen)
    assert found is not None
    return found


def daemon(why: str, *, age_s: float = 20, number: int = 12, what: str = "JOB") -> str:
    when = datetime.fromtimestamp(time.time() - age_s).isoformat(timespec="seconds")
    due = f" DUE TO {why}" if why else ""
    return f"slurmstepd: error: *** {what} {number} ON n1 CANCELLED AT {when}{due} ***\n"


def test_memory_of_a_run_without_slurm_is_not_asked_of_slurm(tmp_path: Path) -> None:
    made = Made(tmp_path / "run").journal(executor="local").status("failed")
    for found in (
        cause(made.event("died", code=137)),
        cause(made.rank_error(0, "CUDA out of memory", kind="OutOfMemoryError")),
    ):
        assert "slurm." not in found.advice


def test_the_earliest_rank_is_the_culprit(made: Made) -> None:
    made.rank_error(0, "connection closed by peer", age_s=9).rank_error(3, "bad data", age_s=12)
    found = cause(made)
    assert (found.kind, found.culprit and found.culprit.rank) == ("error", 3)
    assert found.words == "rank 3 on n4 failed at step 1,200: RuntimeError: bad data"


def test_a_ranks_own_error_comes_before_those_that_tell_of_others(made: Made) -> None:
    missing(made, 0, [3], age_s=12).rank_error(3, "bad data", age_s=9)
    found = cause(made)
    assert (found.kind, found.culprit and found.culprit.rank, found.lost) == ("error", 3, ())


CLOSED = "summing failed: Connection closed by peer. Fix: raise FUSIONRUN_RANK_TIMEOUT_S"
TIMED_OUT = "summing 8 numbers failed: Timed out waiting 3000ms for recv operation"


def missing(
    made: Made, rank: int, absent: list[int] | None, error: str = CLOSED, **more: Any
) -> Made:
    """A rank that tells of others, as `train.ranks` writes it; there were four."""
    return made.rank_error(rank, error, kind="RankError", **{"ranks": 4, "absent": absent, **more})


@pytest.mark.parametrize(
    ("line", "kind", "how"),
    [
        ("srun: error: n3: task 2: Killed", "killed", "srun: Killed on n3"),
        ("srun: error: n3: tasks 2-3: Out Of Memory", "out_of_memory", "Out Of Memory on n3"),
        ("srun: error: n3: task 0,2: Segmentation fault", "killed", "Segmentation fault on n3"),
        ("srun: error: n3: task 1: Terminated", "killed", "as what is killed does"),
        (
            "  rank      : 2 (local_rank: 0)\n  exitcode  : -9 (pid: 19903)  (SIGKILL)",
            "killed",
            "torchrun: SIGKILL",
        ),
    ],
)
def test_a_rank_that_left_no_word_is_named_with_its_launchers(
    made: Made, line: str, kind: str, how: str
) -> None:
    made.log(f"srun: error: n9: task 2: of before\nfusionrun: it goes on\nepoch 3\n{line}\n")
    missing(made, 0, [2])
    missing(made, 1, [2])
    missing(made, 3, [1, 2])
    found = cause(made)
    assert (found.kind, found.lost, found.culprit) == (kind, (2,), None)
    assert "rank 2 " in found.words
    assert how in found.words


def test_a_task_of_srun_is_no_rank_where_torchrun_starts_them(made: Made) -> None:
    made.journal(job_id="12", slurm={"launcher": "torchrun"})
    made.log("srun: error: n2: task 2: Killed\n")
    for rank in (0, 1, 3):
        missing(made, rank, [2])
    assert "without a word of its own, as what is killed does" in cause(made).words


def test_a_rank_that_hung_is_named_although_it_was_woken_to_be_ended(made: Made) -> None:
    made.log("srun: error: n1: task 0: Exited with exit code 1\nsrun: error: n2: task 1: Killed\n")
    missing(made, 0, [1], TIMED_OUT, age_s=9, ranks=2)
    missing(made, 1, [0], age_s=8, ranks=2)
    found = cause(made)
    assert (found.kind, found.lost) == ("hung", (1,))
    assert found.words == (
        "rank 1 hung after step 1,200, or came too late: rank 0 waited in vain until the timeout"
    )
    assert "FUSIONRUN_RANK_TIMEOUT_S" in found.advice


def test_without_a_roll_call_those_without_an_error_are_named(made: Made) -> None:
    missing(made, 0, None)
    missing(made, 2, None)
    found = cause(made)
    assert found.lost == (1, 3)
    assert found.words.startswith("ranks 1, 3 ended after step 1,200 without a word")


def test_where_all_ranks_answer_the_earliest_error_is_all_there_is(made: Made) -> None:
    for rank in range(4):
        missing(made, rank, [], age_s=9 - rank)
    found = cause(made)
    assert (found.kind, found.lost, found.culprit and found.culprit.rank) == ("error", (), 0)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2 GiB"),
        ("MemoryError", ""),
        ("RuntimeError", "DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_a_rank_without_memory_is_told_apart(made: Made, kind: str, error: str) -> None:
    found = cause(made.rank_error(0, error, kind=kind))
    assert (found.kind, "slurm.mem" in found.advice) == ("out_of_memory", True)


def known(made: Made, error: str, **more: Any) -> Made:
    """An error that the trainer raised on purpose, as it writes it."""
    return made.rank_error(0, error, kind="TrainingError", **{"known": True, "ranks": 1, **more})


def test_an_error_raised_on_purpose_is_told_in_its_own_words(made: Made) -> None:
    known(made.checkpoint(1190), "the disk: full\n  got  nothing", fix="make room")
    found = cause(made)
    assert found.words == "the disk: full; got  nothing"
    assert found.advice.startswith("Make room; then `fusionrun resume run")
    assert found.advice.endswith(" goes on from step 1,190.")


def test_nobody_is_sent_to_the_same_end_again(made: Made) -> None:
    known(made, "step 7: not finite", fix="try a lower learning rate", repeats=True)
    assert cause(made).advice == "Try a lower learning rate."


def test_an_error_of_one_rank_among_several_says_whose_it_is(made: Made) -> None:
    known(made, "a.npz: damaged", ranks=4)
    found = cause(made)
    assert found.words == "rank 0 on n1: a.npz: damaged"
    assert found.advice.startswith("When that is mended, `fusionrun resume run")


def test_slurms_word_comes_before_a_ranks_and_keeps_it(made: Made) -> None:
    found = cause(made.rank_error(1, "peer gone"), job("NODE_FAIL", nodes="n[1-2]"))
    assert (found.kind, found.words) == ("node", "its node failed (n[1-2])")
    assert found.culprit is not None
    assert found.culprit.rank == 1
    assert "slurm.exclude: n[1-2]" in found.advice


@pytest.mark.parametrize(
    ("why", "kind"),
    [
        ("TIME LIMIT", "time_limit"),
        ("NODE FAILURE", "node"),
        ("PREEMPTION", "preempted"),
        ("", "user"),
    ],
)
def test_the_daemons_words_in_the_log_count(made: Made, why: str, kind: str) -> None:
    assert cause(made.log("epoch 3\n" + daemon(why))).kind == kind


def test_an_oom_kill_in_the_log_counts(made: Made) -> None:
    line = "slurmstepd: error: Detected 1 oom_kill event in StepId=12.batch. Some of the step"
    assert cause(made.log(f"epoch 3\n{line}\n")).kind == "out_of_memory"


@pytest.mark.parametrize(
    "line",
    [
        daemon("TIME LIMIT", number=11),
        daemon("TIME LIMIT", age_s=4000),
        daemon("JOB REQUEUE"),
        daemon("", what="STEP"),
    ],
    ids=["of another job", "of an attempt before", "of a requeue", "of a step whose rank failed"],
)
def test_other_words_of_the_daemons_do_not(made: Made, line: str) -> None:
    assert cause(made.log(line).rank_error(0, "boom")).kind == "error"


def test_a_silent_death_by_signal_is_told(made: Made) -> None:
    found = cause(made.event("died", age_s=5, code=137))
    assert (found.kind, "SIGKILL" in found.words) == ("killed", True)
    assert "dmesg" in found.advice


def test_an_old_error_is_not_blamed_for_an_attempt_that_did_not_begin(made: Made) -> None:
    made.rank_error(0, "boom", age_s=250).event("submitted", age_s=100)
    made.status("queued", job_id="12").outcome("failed", "boom")
    found = cause(made, job("FAILED", exit_code=72))
    assert (found.kind, found.culprit) == ("setup", None)


def test_the_trainers_own_reason_is_the_last_resort(made: Made) -> None:
    assert cause(made.outcome("failed", "loss is not finite\nat step 4")).words == (
        "loss is not finite"
    )


def test_nothing_is_made_up(made: Made) -> None:
    assert cause_of(facts_of(made.layout), None) is None
