"""What a person sees while a run trains: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
        samples_per_s: training throughput.
    """

    epoch: int
    loss: float
    train_accuracy: float
    val_accuracy: float | None
    best: bool
    rates: tuple[float, float]
    samples_per_s: float

    def line(self) -> str:
        """One line of text."""
        val = "" if self.val_accuracy is None else f"  val {self.val_accuracy:7.2%}"
        expert, fusion = self.rates
        rates = f"{expert:.2e}" if expert == fusion else f"{expert:.2e} / {fusion:.2e}"
        mark = " *" if self.best else "  "
        return (
            f"loss {self.loss:8.4f}  train {self.train_accuracy:7.2%}{val}{mark}"
            f"  rate {rates}  {self.samples_per_s:,.0f} samples/s"
        )


class Display(Protocol):
    """Takes news of each epoch."""

    def __call__(self, news: EpochNews) -> None:
        """Show one epoch."""


@contextmanager
def progress(epochs: int) -> Iterator[Display]:
    """A display for a run of `epochs`; closed when the block ends, however it ends."""
    console = Console(file=sys.stdout)
    if console.is_terminal:
        with _live(console, epochs) as display:
            yield display
    else:
        yield _Plain(epochs)


@contextmanager
def _live(console: Console, epochs: int) -> Iterator[Display]:
    bar = Progress(
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.description}"),
        TimeRemainingColumn(compact=True),
        console=console,
    )
    with bar:
        task = bar.add_task("starting", total=epochs)
        yield lambda news: bar.update(task, completed=news.epoch, description=news.line())


class _Plain:
    """Lines for a file or a pipe, spread evenly over the run, with the time left."""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._every = max(1, epochs // PLAIN_LINES)
        self._began = time.monotonic()

    def __call__(self, news: EpochNews) -> None:
        if news.epoch % self._every and news.epoch not in {1, self._epochs}:
            return
        left = (time.monotonic() - self._began) / news.epoch * (self._epochs - news.epoch)
        width = len(str(self._epochs))
        print(
            f"epoch {news.epoch:{width}}/{self._epochs}  {news.line()}  {left:.0f} s left",
            flush=True,
        )
