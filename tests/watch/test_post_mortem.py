"""Why a run ended badly, from what is left when Slurm has forgotten it."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

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


def test_the_earliest_rank_is_the_culprit(made: Made) -> None:
    made.rank_error(0, "connection closed by peer", age_s=9).rank_error(3, "bad data", age_s=12)
    found = cause(made)
    assert (found.kind, found.culprit and found.culprit.rank) == ("error", 3)
    assert found.words == "rank 3 on n4 failed at step 1,200: RuntimeError: bad data"


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
