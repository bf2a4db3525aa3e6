"""What a person sees while a run trains: two live lines on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

# Plain lines: the first and last epoch, and about twenty between.
PLAIN_LINES = 20


@dataclass(frozen=True)
class EpochNews:
    """What is worth seeing of one epoch.

    Attributes:
        epoch: counted from 1.
        loss: mean training loss.
        train_accuracy: of the global path.
        val_accuracy: of the global path; None without a validation split.
        best: whether this epoch's weights are the best so far.
        rates: of the first expert, and of the fusion.
        samples_per_s: training throughput, by the steps that were not compiled first.
        steps_s: seconds that the steps of an epoch take at that pace.
    """

    epoch: int
    loss: float
    train_accuracy: float
    val_accuracy: float | None
    best: bool
    rates: tuple[float, float]
    samples_per_s: float
    steps_s: float

    def line(self) -> str:
        """One line of text, at most 80 characters; a star marks the best epoch so far."""
        val = "" if self.val_accuracy is None else f"  val {self.val_accuracy:7.2%}"
        expert, fusion = self.rates
        rates = f"rate {expert:.2e}" if expert == fusion else f"rates {expert:.2e}, {fusion:.2e}"
        mark = " *" if self.best else "  "
        return f"loss {self.loss:8.4f}  train {self.train_accuracy:7.2%}{val}{mark}  {rates}"

    def speed(self) -> str:
        """How fast it went."""
        return f"{self.samples_per_s:,.0f} samples/s"


class Display(Protocol):
    """Takes news of each epoch."""

    def __call__(self, news: EpochNews) -> None:
        """Show one epoch."""


@contextmanager
def progress(epochs: int, done: int = 0, *, shows: bool = True) -> Iterator[Display]:
    """A display for a run of `epochs`; closed when the block ends, however it ends.

    Args:
        epochs: of the whole run.
        done: epochs that an earlier attempt has done.
        shows: False: of another rank than the first; the news goes nowhere.
    """
    console = Console(file=sys.stdout)
    if not shows:
        yield _silent
    elif console.is_terminal:
        with _live(console, epochs, done) as display:
            yield display
    else:
        yield _Plain(epochs, done)


def _silent(news: EpochNews) -> None:
    """Show nothing."""


@contextmanager
def _live(console: Console, epochs: int, done: int) -> Iterator[Display]:
    bar = Progress(
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TimeRemainingColumn(compact=True),
        TextColumn("left  {task.description}"),
    )
    task = bar.add_task("", total=epochs, completed=done)
    numbers = Text("starting", no_wrap=True, overflow="ellipsis")

    def show(news: EpochNews) -> None:
        numbers.plain = news.line()
        bar.update(task, completed=news.epoch, description=news.speed())

    with Live(Group(bar, numbers), console=console):
        yield show


class _Plain:
    """Lines for a file or a pipe, spread evenly over the run, with the time left."""

    def __init__(self, epochs: int, done: int = 0) -> None:
        self._epochs, self._done = epochs, done
        self._every = max(1, epochs // PLAIN_LINES)
        self._began = time.monotonic()
        self._is_first = True

    def __call__(self, news: EpochNews) -> None:
        if self._is_first:  # It may have compiled a step: those that follow go by themselves.
            self._is_first, self._done, self._began = False, news.epoch, time.monotonic()
            epoch_s = news.steps_s
        else:
            epoch_s = (time.monotonic() - self._began) / max(1, news.epoch - self._done)
        if news.epoch % self._every and news.epoch not in {1, self._epochs}:
            return
        left = epoch_s * (self._epochs - news.epoch)
        width = len(str(self._epochs))
        line = f"epoch {news.epoch:{width}}/{self._epochs}  {news.line()}  {news.speed()}"
        # A reader that went away (`| head`) is no reason to stop training.
        with suppress(BrokenPipeError):
            print(f"{line}  {left:.0f} s left", flush=True)
