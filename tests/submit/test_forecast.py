"""How many jobs a run will take, by what another run of its plan has measured."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fusionrun.store.atomic import write_json
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import write_status
from fusionrun.submit.forecast import Measured, forecast, in_words, measured

SETTINGS = {"grace": 120, "max_requeues": 20}
SEEN = Measured("r-1-s0", 0.5, 3.0)


def test_it_says_how_many_slices_of_the_limit_it_needs() -> None:
    found = forecast(88_000, SEEN, SETTINGS, 4 * 3600)
    assert found.words.startswith(
        "needs 3.1 slices of 4 h: 12.2 h at 0.5 s a step, measured in r-1"
    )
    assert found.slices == pytest.approx(44_000 / (4 * 3600 - 120))
    assert found.warnings == ()


def test_what_one_job_can_do_fits_into_one() -> None:
    found = forecast(10, Measured("r", 0.5, 2.0), {"grace": 120}, 4 * 3600)
    assert found.words.startswith("fits into one slice of 4 h")


def test_without_a_limit_there_are_no_slices() -> None:
    found = forecast(60, SEEN, SETTINGS, None)
    assert (found.slices, found.words) == (None, "30 s at 0.5 s a step, measured in r-1-s0")


def test_more_slices_than_may_be_had_are_warned_of() -> None:
    (warning,) = forecast(88_000, SEEN, {**SETTINGS, "max_requeues": 1}, 4 * 3600).warnings
    assert "max_requeues allows 2 slices" in warning


def test_a_grace_shorter_than_a_stop_took_is_warned_of() -> None:
    (warning,) = forecast(100, SEEN, {**SETTINGS, "grace": 3}, 3600).warnings
    assert "slurm.grace is 3 s, and stopping took 4.0 s" in warning


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(45, "45 s"), (5400, "90 min"), (14400, "4 h"), (302400, "3.5 d")],
)
def test_durations_read_well(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def run(folder: Path, name: str, step_s: float | None) -> None:
    layout = RunLayout(folder / name)
    layout.root.mkdir()
    write_json(layout.plan, {})
    write_status(layout, "stopped", epoch=1, step=9, attempts=1, step_s=step_s, save_s=1.0)


def test_only_runs_of_the_same_plan_count_whatever_their_seed(tmp_path: Path) -> None:
    plan: Any = SimpleNamespace(hash="0123456789abcdef")
    run(tmp_path, "other-ffffffff-s0", 9.0)
    assert measured(plan, tmp_path) is None
    run(tmp_path, "mine-01234567-s3-2", 0.25)
    run(tmp_path, "mine-01234567-s4", None)
    assert measured(plan, tmp_path) == Measured("mine-01234567-s3-2", 0.25, 1.0)
