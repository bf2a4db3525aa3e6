"""When a run stops early, what counts as better, and how it is asked to stop."""

from __future__ import annotations

import os
import signal
import time

import pytest

from fusionrun.schema.training import EarlyStopping
from fusionrun.train.progress import EpochNews, progress
from fusionrun.train.stop import stop_on_signals
from fusionrun.train.where import Best, Patience

NEWS = {
    "loss": 4.2,
    "train_accuracy": 0.5,
    "val_accuracy": 0.25,
    "samples_per_s": 12345.6,
    "steps_s": 0.5,
}


def news(epoch: int, **changes: object) -> EpochNews:
    return EpochNews(**{"epoch": epoch, "best": True, "rates": (1e-3, 1e-3), **NEWS, **changes})  # type: ignore[arg-type]


def test_without_early_stopping_patience_is_never_spent() -> None:
    assert not any(Patience(None).spent(score) for score in [1.0] * 50)


def test_patience_is_spent_after_that_many_epochs_without_improvement() -> None:
    patience = Patience(EarlyStopping(patience=2))
    assert [patience.spent(score) for score in (0.5, 0.5, 0.6, 0.6, 0.5)] == [
        False,
        False,
        False,
        False,
        True,
    ]


def test_an_improvement_smaller_than_min_delta_does_not_count() -> None:
    patience = Patience(EarlyStopping(patience=2, min_delta=0.1))
    assert [patience.spent(score) for score in (0.5, 0.55, 0.59)] == [False, False, True]


def test_small_improvements_count_once_they_add_up_to_min_delta() -> None:
    patience = Patience(EarlyStopping(patience=2, min_delta=0.1))
    assert [patience.spent(score) for score in (0.5, 0.55, 0.61, 0.65)] == [False] * 4


def test_anything_is_better_than_no_epoch() -> None:
    assert Best().score < (0.0, -1e30)


def test_the_first_signal_asks_and_the_second_interrupts() -> None:
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_handlers_from_before_are_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_plain_progress_is_about_twenty_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(100) as display:
        for epoch in range(1, 101):
            display(news(epoch))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 21
    assert lines[0].startswith("epoch   1/100  loss   4.2000  train  50.00%  val  25.00% *")
    assert lines[-1].startswith("epoch 100/100")


def test_a_first_epoch_that_was_compiled_foretells_by_its_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 40.0, 42.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    with progress(10) as display:
        display(news(1))
        display(news(2))
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("  4 s left")
    assert second.endswith("  16 s left")


def test_progress_names_both_rates_where_they_differ() -> None:
    assert news(1, rates=(1e-4, 5e-4)).line().endswith("rates 1.00e-04, 5.00e-04")


def test_progress_without_validation_split_shows_no_validation() -> None:
    assert "val" not in news(1, val_accuracy=None).line()


def test_a_line_of_progress_fits_eighty_columns() -> None:
    widest = news(1, loss=1234.5, train_accuracy=1.0, val_accuracy=1.0, rates=(1e-4, 5e-4))
    assert len(widest.line()) <= 80
