"""What follows an attempt: the decision, case by case. It is carried out in tests/slurm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrun.store.atomic import make_folder, write_json
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import read_status, write_status
from fusionrun.submit.after import Action, Ended, decide, main
from fusionrun.submit.journal import add_event, now, read_events

Events = list[dict[str, Any]]


def event(what: str, **details: Any) -> dict[str, Any]:
    return {"event": what, **details}


FRESH = [event("submitted"), event("started", attempt=1, resumed_from=None)]


def stopped(step: int, reason: str = "time_limit") -> dict[str, Any]:
    return {"attempt": 1, "outcome": "stopped", "reason": reason, "step": step}


def ended(
    outcome: Mapping[str, Any] | None, events: Events | None = None, code: int = 0, **more: Any
) -> Ended:
    return Ended(code, outcome, FRESH if events is None else events, **more)


def chain(*steps: int) -> Events:
    """A run that went on by itself at each of these steps, and trains again."""
    events = list(FRESH)
    for step in steps:
        events += [event("requeued", step=step), event("started", resumed_from=step)]
    return events


# What goes on


def test_a_run_whose_time_was_up_goes_back_into_the_queue() -> None:
    action = decide(ended(stopped(7)))
    assert (action.kind, action.exit_code, action.step, action.count) == ("requeue", 0, 7, 1)


def test_without_requeue_a_new_job_is_chained() -> None:
    assert decide(ended(stopped(7), requeue=False)).kind == "chain"


def test_each_time_is_counted() -> None:
    assert decide(ended(stopped(9), chain(3, 6))).count == 3


def test_a_bystanders_exit_code_does_not_keep_a_saved_run_from_going_on() -> None:
    assert decide(ended(stopped(7), code=143)).kind == "requeue"


def test_a_resumed_run_may_go_on_as_often_as_a_new_one() -> None:
    events = [*chain(3, 6), event("not_requeued"), event("submitted")]
    events += [event("started", resumed_from=9)]
    assert decide(ended(stopped(12), events, max_requeues=1)).count == 1


# What does not


def test_a_run_that_was_not_gone_on_with_says_why_and_has_not_failed() -> None:
    refused = {"attempt": 2, "outcome": "refused", "reason": "torch: was 1, is 2", "step": 7}
    action = decide(ended(refused, code=2))
    assert (action.kind, action.why, action.exit_code) == ("none", "torch: was 1, is 2", 2)


def test_the_cap_ends_it_and_says_how_to_go_on() -> None:
    action = decide(ended(stopped(9), chain(3, 6), max_requeues=2))
    assert (action.kind, action.exit_code) == ("none", 0)
    assert "went on by itself 2 times, which is max_requeues" in action.why
    assert "resume" in action.why


@pytest.mark.parametrize("step", [6, 5, 0])
def test_without_progress_it_ends_as_failed(step: int) -> None:
    action = decide(ended(stopped(step), chain(3, 6)))
    assert (action.kind, action.exit_code) == ("none", 1)
    assert f"no progress: it stopped at step {step}, and was at step 6 before" in action.why


def test_coming_again_to_where_an_earlier_attempt_was_is_no_progress() -> None:
    events = [*chain(3), event("requeued", step=9), event("started", resumed_from=3)]
    assert decide(ended(stopped(8), events)).kind == "none"


def test_a_first_attempt_without_a_step_made_no_progress() -> None:
    assert "no progress" in decide(ended(stopped(0))).why


def test_a_resumed_run_must_pass_the_step_it_began_at() -> None:
    events = [event("submitted"), event("started", resumed_from=50)]
    assert decide(ended(stopped(50), events)).kind == "none"
    assert decide(ended(stopped(51), events)).kind == "requeue"


@pytest.mark.parametrize("reason", ["cancel", "signal", "interrupt", None])
def test_a_stop_for_any_other_reason_ends_it_well(reason: str | None) -> None:
    action = decide(ended({**stopped(7), "reason": reason}))
    assert (action.kind, action.exit_code) == ("none", 0)


def test_scancel_never_resurrects_even_when_the_time_was_up_too() -> None:
    action = decide(ended(stopped(7), cancelled=True))
    assert (action.kind, action.exit_code) == ("none", 0)
    assert "from outside" in action.why


def test_a_cancel_that_came_together_with_the_time_limit_counts() -> None:
    action = decide(ended(stopped(7), cancel_asked=True))
    assert (action.kind, action.exit_code) == ("none", 0)
    assert "cancelled" in action.why


def test_without_slurm_nothing_queues_it_again() -> None:
    assert decide(ended(stopped(7), executor="local")).kind == "none"


# How it ended


def test_a_completed_run_ends_with_zero_whatever_a_bystander_said() -> None:
    outcome = {"outcome": "completed", "step": 9}
    assert decide(ended(outcome, code=143)) == Action("none", "completed", 0, 9)


def test_a_failed_run_ends_with_its_code_and_its_reason() -> None:
    action = decide(ended({"outcome": "failed", "reason": "loss is nan", "step": 3}, code=2))
    assert (action.kind, action.exit_code) == ("none", 2)
    assert "loss is nan" in action.why


def test_a_failed_run_never_ends_with_zero() -> None:
    assert decide(ended({"outcome": "failed"})).exit_code == 1


def test_a_killed_trainer_is_named_by_its_signal() -> None:
    action = decide(ended(None, code=137))
    assert (action.exit_code, action.died) == (137, True)
    assert "without a word (exit code 137: SIGKILL)" in action.why


def test_what_a_trainer_printed_and_could_not_record_was_no_silence() -> None:
    action = decide(ended(None, code=1))
    assert (action.exit_code, action.died) == (1, True)
    assert action.why.endswith("could not record why; its own words are in the log")


def test_a_lost_rank_is_named_in_place_of_the_one_that_waited() -> None:
    failed = {"outcome": "failed", "reason": "rank 0 of 2: gradients failed"}
    action = decide(ended(failed, code=1, lost="rank 1 ended (SIGKILL); rank 0 waited in vain"))
    assert action.why.startswith("the training failed: rank 1 ended (SIGKILL)")


def test_a_trainer_that_left_no_word_never_ends_with_zero() -> None:
    assert decide(ended(None)).exit_code == 1


def test_the_outcome_of_the_attempt_before_is_not_taken_for_this_ones() -> None:
    events = [*FRESH, event("requeued", step=7)]
    action = decide(ended(stopped(7), events, code=73))
    assert (action.kind, action.exit_code, action.died) == ("none", 73, False)
    assert "did not begin (exit code 73)" in action.why


def test_an_old_outcome_does_not_speak_for_a_resumed_run_either() -> None:
    events = [*FRESH, event("not_requeued"), event("submitted"), event("queued")]
    assert "did not begin" in decide(ended(stopped(7), events, code=71)).why


EVENTS = st.lists(
    st.sampled_from(
        [
            event("submitted"),
            event("started", resumed_from=None),
            event("started", resumed_from=4),
            event("requeued", step=5),
            event("requeued"),
            event("not_requeued"),
            event("checkpoint", step=4),
        ]
    ),
    max_size=8,
)
OUTCOMES = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "outcome": st.sampled_from(["completed", "stopped", "failed", "", None]),
        "reason": st.sampled_from(["time_limit", "cancel", "signal", None]),
        "step": st.none() | st.integers(0, 9),
    },
)


@given(
    outcome=OUTCOMES,
    events=EVENTS,
    code=st.integers(0, 255),
    cancelled=st.booleans(),
    cancel_asked=st.booleans(),
    cap=st.integers(0, 3),
)
def test_whatever_happened_the_rules_hold(
    outcome: dict[str, Any] | None,
    events: Events,
    code: int,
    cancelled: bool,
    cancel_asked: bool,
    cap: int,
) -> None:
    action = decide(
        Ended(code, outcome, events, cancelled, cancel_asked, requeue=True, max_requeues=cap)
    )
    went_on = action.kind != "none"
    if went_on:
        assert outcome is not None
        assert outcome["reason"] == "time_limit"
        assert not cancelled
        assert not cancel_asked
        assert 1 <= action.count <= cap
    if action.exit_code == 0:
        assert outcome is not None
        assert outcome["outcome"] in ("completed", "stopped")
    assert action.why


# As the batch script calls it


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout(tmp_path)


def test_a_killed_trainers_run_no_longer_looks_as_if_it_ran(layout: RunLayout) -> None:
    add_event(layout, "started", attempt=1)
    write_status(layout, "running", epoch=1, step=5, attempts=1)
    assert main([str(layout.root), "--code", "137"]) == 137
    assert read_status(layout).state == "failed"
    assert [e["event"] for e in read_events(layout)] == ["started", "died", "not_requeued"]


def test_what_was_decided_is_in_the_events(layout: RunLayout) -> None:
    add_event(layout, "started", attempt=1)
    write_json(layout.outcome, stopped(5, "cancel"))
    assert main([str(layout.root), "--code", "0"]) == 0
    assert read_events(layout)[-1]["why"] == (
        f"it was cancelled; `fusionrun resume {layout.id}` goes on"
    )


def test_a_damaged_outcome_is_none(layout: RunLayout) -> None:
    add_event(layout, "started", attempt=1)
    layout.outcome.write_text('{"outcome": "comp')
    assert main([str(layout.root), "--code", "0"]) == 1


def test_a_directory_that_cannot_be_written_still_gives_the_trainings_code(tmp_path: Path) -> None:
    assert main([str(tmp_path / "gone"), "--code", "3"]) == 3


def test_the_logs_last_line_names_the_rank_that_was_lost(
    layout: RunLayout, capsys: pytest.CaptureFixture[str]
) -> None:
    add_event(layout, "started", attempt=1)
    write_json(layout.outcome, {"outcome": "failed", "reason": "rank 0 of 2: no answer", "step": 5})
    make_folder(layout.logs)
    waited = {"rank": 0, "ranks": 2, "absent": [1], "kind": "RankError", "error": "no answer"}
    write_json(layout.rank_error(0), {**waited, "time": now(), "step": 5})
    main([str(layout.root), "--code", "1"])
    assert "the training failed: rank 1 ended after step 5" in capsys.readouterr().out
