"""How long a step takes, as `status` tells it, where the first of a kind are compiled."""

from __future__ import annotations

import time

import pytest

from fusionrun.train.recorder import Pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds it is; the last of them are now."""
    seconds = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: seconds[-1])
    return seconds


def test_a_first_step_that_was_compiled_is_no_pace(clock: list[float]) -> None:
    pace = Pace()
    pace.begin(0)
    clock.append(40.0)
    pace.take(1)
    assert pace.step_s is None
    clock.append(40.5)
    pace.take(51)
    assert pace.step_s == pytest.approx(0.01)


def test_another_kind_that_is_compiled_later_is_none_either(clock: list[float]) -> None:
    pace = Pace()
    pace.begin(0)
    for seconds, step in ((40.0, 1), (70.0, 10), (70.5, 60)):
        clock.append(seconds)
        pace.take(step)
    assert pace.step_s == pytest.approx(0.01)


def test_steps_that_take_long_have_a_pace_from_the_second_on(clock: list[float]) -> None:
    pace = Pace()
    pace.begin(0)
    for seconds, step in ((3.0, 1), (5.0, 2), (7.0, 3)):
        clock.append(seconds)
        pace.take(step)
    assert pace.step_s == pytest.approx(2.0)
