"""The journal of a submitted run, and how it stands by that and by its other files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fusionrun.errors import SchedulerError, UserError
from fusionrun.slurm.client import Slurm
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import State, mark_status, read_status, write_status
from fusionrun.submit.cancel import cancel
from fusionrun.submit.handing import alone, rejected_on_error
from fusionrun.submit.journal import (
    Job,
    Submission,
    add_event,
    now,
    read_events,
    read_submission,
    record_job,
    write_submission,
)
from fusionrun.submit.process import born, is_living
from fusionrun.submit.standing import standing
from fusionrun.submit.waiting import After, wait_for

HERE = socket.gethostname()
WHOLE = Submission(
    executor="slurm",
    state="submitted",
    time=now(),
    job_id="12",
    jobs=(Job("12", now(), 1),),
    snapshot={"id": "0" * 16, "commit": None, "left_out": [["a", "b"]]},
    slurm={"nodes": 2},
    python="/bin/python",
    pythonpath=("/a", "/b"),
    after={"run": "r", "kind": "ok"},
    host=HERE,
)


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    (tmp_path / "run-00000000-s0").mkdir()
    return RunLayout(tmp_path / "run-00000000-s0")


@pytest.fixture
def no_slurm() -> Slurm:
    return Slurm({"PATH": "/nowhere"})


def test_it_reads_what_it_wrote(layout: RunLayout) -> None:
    write_submission(layout, WHOLE)
    assert read_submission(layout) == WHOLE


def test_it_may_wait_for_several_runs(layout: RunLayout) -> None:
    write_submission(layout, replace(WHOLE, after={"runs": ["a", "b"], "kind": "ok"}))
    submission = read_submission(layout)
    assert submission is not None
    assert (submission.awaited, WHOLE.awaited) == (("a", "b"), ("r",))


@pytest.mark.parametrize("after", [{"kind": "ok"}, {"runs": [1], "kind": "ok"}, {"run": "a"}])
def test_a_journal_that_waits_for_nobody_knows_whom_is_damaged(
    layout: RunLayout, after: dict[str, Any]
) -> None:
    write_submission(layout, replace(WHOLE, after=after))
    with pytest.raises(UserError, match=r"submission\.json: damaged"):
        read_submission(layout)


def test_a_run_that_was_never_submitted_has_none(layout: RunLayout) -> None:
    assert read_submission(layout) is None


def test_what_a_later_version_adds_is_no_error(layout: RunLayout) -> None:
    layout.submission.write_text('{"executor": "slurm", "state": "submitted", "time": "", "x": 1}')
    assert read_submission(layout) == Submission("slurm", "submitted", "")


@pytest.mark.parametrize("text", ["{", "[]", '{"state": 1}'])
def test_a_damaged_one_is_named(layout: RunLayout, text: str) -> None:
    layout.submission.write_text(text)
    with pytest.raises(UserError, match=r"submission.json: damaged"):
        read_submission(layout)


def test_a_job_is_added_to_what_others_wrote_meanwhile(layout: RunLayout) -> None:
    write_submission(layout, replace(WHOLE, jobs=(Job("14", "2026-01-02", 2),), job_id="14"))
    submission = record_job(layout, Job("12", "2026-01-03", 1))
    assert [job.id for job in submission.jobs] == ["12", "14"]
    assert submission.job_id == "14"


def test_a_run_cancelled_while_it_was_submitted_stays_cancelled(layout: RunLayout) -> None:
    write_submission(layout, replace(WHOLE, state="cancelled", words="why"))
    submission = record_job(layout, Job("13", now(), 2))
    assert (submission.state, submission.words, submission.job_id) == ("cancelled", "why", "13")


def test_torn_lines_of_events_are_passed_over(layout: RunLayout) -> None:
    add_event(layout, "one")
    with layout.events.open("a") as file:
        file.write('{"event": "tor')
    add_event(layout, "two")
    assert [event["event"] for event in read_events(layout)] == ["one", "two"]


# Processes


def test_this_process_lives() -> None:
    assert is_living(os.getpid(), born(os.getpid()))


def test_another_process_with_its_id_is_not_taken_for_it() -> None:
    assert not is_living(os.getpid(), born(os.getpid()) + 1)


def test_a_process_that_only_waits_to_be_buried_does_not_live() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        deadline = time.monotonic() + 20
        while is_living(process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)


# How a run stands


def local(**more: object) -> Submission:
    job = Job(str(os.getpid()), now(), 1, HERE, born(os.getpid()))
    own = {"executor": "local", "time": now(), "jobs": (job,), "job_id": job.id, "after": None}
    return replace(WHOLE, **{**own, **more})


def test_a_run_with_a_supervisor_lives(layout: RunLayout) -> None:
    write_submission(layout, local())
    found = standing(layout)
    assert (found.is_living, found.pid) == (True, os.getpid())


def test_a_run_that_trains_on_another_machine_lives_by_its_heartbeat(layout: RunLayout) -> None:
    write_status(layout, "running", epoch=0, step=1, attempts=1)
    text = layout.status.read_text().replace(f'"{HERE}"', '"elsewhere"')
    layout.status.write_text(text)
    assert "on elsewhere trains it" in standing(layout).words
    layout.status.write_text(text.replace('"heartbeat": 1', '"heartbeat": 0'))
    assert not standing(layout).is_living


def test_a_submit_that_was_killed_does_not_hold_its_run_for_ever(layout: RunLayout) -> None:
    write_submission(layout, replace(local(), state="preparing", jobs=(), job_id=None))
    assert standing(layout).is_living
    long_ago = "2020-01-01T00:00:00.000+00:00"
    write_submission(
        layout, replace(local(), state="preparing", jobs=(), job_id=None, time=long_ago)
    )
    assert not standing(layout).is_living


def test_a_job_that_is_gone_before_it_went_on_leaves_the_steps_that_were_taken(
    layout: RunLayout,
) -> None:
    write_submission(layout, replace(local(), jobs=(), job_id=None))
    write_status(layout, "stopped", epoch=1, step=53, attempts=1)
    mark_status(layout, "queued")
    assert standing(layout).words == "not begun again after step 53: its job is gone"


def test_without_slurm_in_reach_a_run_is_taken_to_live(layout: RunLayout, no_slurm: Slurm) -> None:
    write_submission(layout, WHOLE)
    mark_status(layout, "queued")
    found = standing(layout, no_slurm)
    assert (found.is_living, found.is_certain) == (True, False)
    assert "job 12 was queued when last heard of" in found.words


@pytest.mark.parametrize("state", ["completed", "failed", "stopped"])
def test_without_slurm_in_reach_the_files_say_that_it_has_ended(
    layout: RunLayout, no_slurm: Slurm, state: State
) -> None:
    write_submission(layout, WHOLE)
    mark_status(layout, state)
    assert standing(layout, no_slurm).words == state


def test_a_rejected_run_does_not_live(layout: RunLayout, no_slurm: Slurm) -> None:
    write_submission(layout, replace(WHOLE, state="rejected", job_id=None, jobs=()))
    assert standing(layout, no_slurm).words == "rejected"


# What is done about it


def test_without_slurm_in_reach_cancel_reaches_the_run_by_its_file(
    layout: RunLayout, no_slurm: Slurm
) -> None:
    write_submission(layout, WHOLE)
    mark_status(layout, "queued")
    assert cancel(layout, at_once=False, slurm=no_slurm).done == "asked"
    assert layout.stop_request.exists()
    with pytest.raises(SchedulerError, match=r"without --now reaches it by a file"):
        cancel(layout, at_once=True, slurm=no_slurm)


def test_a_run_in_slurm_cannot_wait_for_a_process(layout: RunLayout) -> None:
    write_submission(layout, local())
    with pytest.raises(UserError, match=r"no job of Slurm's(.|\n)*--executor local"):
        wait_for(After([layout], "ok"), "slurm", layout.root.parent, None)


def test_a_run_after_one_that_failed_is_refused_unless_any_end_will_do(layout: RunLayout) -> None:
    write_status(layout, "failed", epoch=0, step=1, attempts=1)
    with pytest.raises(UserError, match=r"this one has ended: failed(.|\n)*--after-any"):
        wait_for(After([layout], "ok"), "slurm", layout.root.parent, None)
    wait = wait_for(After([layout], "any"), "slurm", layout.root.parent, None)
    assert (wait.after, wait.arguments) == (None, ())


def test_only_one_at_a_time_hands_a_run_over(layout: RunLayout) -> None:
    with (
        alone(layout),
        pytest.raises(UserError, match="somebody is handing it over"),
        alone(layout),
    ):
        pass
    with alone(layout):
        pass


def test_a_refused_resume_leaves_a_run_as_it_ended(layout: RunLayout) -> None:
    write_status(layout, "stopped", epoch=1, step=9, attempts=1)
    write_submission(layout, local(state="preparing"))
    with pytest.raises(UserError, match="no"), rejected_on_error(layout):
        raise UserError("no")
    assert standing(layout, None).words != "rejected"
    assert read_status(layout).state == "stopped"


def test_an_interrupted_submit_leaves_the_run_rejected(layout: RunLayout) -> None:
    write_submission(layout, local(state="preparing", jobs=(), job_id=None))
    with pytest.raises(KeyboardInterrupt), rejected_on_error(layout):
        raise KeyboardInterrupt
    assert not standing(layout).is_living


def test_a_completed_run_whose_status_is_damaged_stays_completed(layout: RunLayout) -> None:
    layout.outcome.write_text('{"outcome": "completed", "epoch": 3, "step": 9, "attempt": 1}')
    layout.status.write_text("")
    assert read_status(layout).state == "completed"
    layout.outcome.write_text("[")
    assert read_status(layout).state == "prepared"
