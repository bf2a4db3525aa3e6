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


@pytest.mark.parametrize(
    ("looks", "step_s"),
    [
        pytest.param([(40.0, 1), (70.0, 10), (70.5, 60)], 0.01, id="another kind compiled later"),
        pytest.param([(3.0, 1), (5.0, 2), (7.0, 3)], 2.0, id="steps that take long"),
    ],
)
def test_the_pace_is_that_of_steps_after_the_first(
    looks: list[tuple[float, int]], step_s: float, clock: list[float]
) -> None:
    pace = Pace()
    pace.begin(0)
    for seconds, step in looks:
        clock.append(seconds)
        pace.take(step)
    assert pace.step_s == pytest.approx(step_s)
