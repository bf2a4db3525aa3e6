"""Engines in processes of their own, side by side, one working at a time: A B C, C B A, …"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""For libraries that torch does not speak for: numpy has a BLAS of its own."""
MOST_LOSS_DIFFERENCE = 1e-4
"""Relative, after 100 steps; a number of an engine that is further off is void."""


class Entry(NamedTuple):
    """One engine of a comparison.

    Attributes:
        name: in the table.
        kind: of `benchmarks.worker`.
        recipe: what it trains.
        settings: as for `--set`.
    """

    name: str
    kind: str
    recipe: Path
    settings: tuple[str, ...] = ()


@dataclass
class Measured:
    """What was measured of one engine.

    Attributes:
        name: its own.
        loss: after 100 steps; None: of another model, or not asked for.
        wall: seconds a step, by round.
        cpu: likewise, of all threads.
        in_steps: of `wall`, what `Meter.of_the_step` has counted.
        peak_bytes: that its process held.
        missing: why there is nothing of all that; empty where there is.
    """

    name: str
    loss: float | None = None
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    in_steps: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    missing: str = ""

    @property
    def over_its_steps(self) -> list[float]:
        """All of its time over that of its steps, by round."""
        return [all_of_it / own for all_of_it, own in zip(self.wall, self.in_steps, strict=True)]

    def off(self, reference: Measured) -> float | None:
        """By how much its loss differs from another one's, relatively."""
        if self.loss is None or reference.loss is None:
            return None
        return abs(self.loss - reference.loss) / abs(reference.loss)

    def is_void(self, reference: Measured) -> bool:
        """Whether it computes something else."""
        difference = self.off(reference)
        return difference is not None and not difference <= MOST_LOSS_DIFFERENCE


class Ratio(NamedTuple):
    """The median of the rounds' ratios, and the range they lie in."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Round by round, so that a slow minute of the machine is in both."""
    values = sorted(a / b for a, b in zip(above, below, strict=True))
    return Ratio(statistics.median(values), values[0], values[-1])


def measure(entries: Sequence[Entry], rounds: int, steps: int) -> list[Measured]:
    """All engines of one comparison.

    Args:
        entries: the engines.
        rounds: how many, after the steps that warm up.
        steps: of every engine in every round.
    """
    found = [Measured(entry.name) for entry in entries]
    with ExitStack() as stack:
        working = []
        for entry, own in zip(entries, found, strict=True):
            worker = stack.enter_context(_worker(entry))
            if _take_in(own, worker.answer()):
                working.append((worker, own))
        for number in range(rounds):
            for worker, own in working if number % 2 == 0 else reversed(working):
                if not own.missing:
                    worker.ask(steps)
                    _take_in(own, worker.answer())
        for worker, own in working:
            if not own.missing:
                worker.process.stdin.close()
                _take_in(own, worker.answer())
    return found


def _take_in(own: Measured, answer: dict[str, Any]) -> bool:
    """Whether the engine is there and goes on."""
    own.missing = answer.get("missing", "")
    own.loss = answer.get("loss", own.loss)
    own.peak_bytes = answer.get("peak_bytes", 0)
    if "wall_s" in answer:
        own.wall.append(answer["wall_s"])
        own.cpu.append(answer["cpu_s"])
        own.in_steps.append(answer["in_steps_s"])
    return not own.missing


@dataclass(frozen=True)
class _Worker:
    process: subprocess.Popen[str]
    errors: Path

    def ask(self, steps: int) -> None:
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next of its own lines; what else it prints is nobody's."""
        for line in self.process.stdout:
            if line.startswith("\x1e"):
                answer: dict[str, Any] = json.loads(line[1:])
                return answer
        self.process.wait()
        last = [line for line in self.errors.read_text().splitlines() if line.strip()][-1:]
        return {"missing": f"failed: {' '.join(last)}"}


@contextmanager
def _worker(entry: Entry) -> Iterator[_Worker]:
    command = [sys.executable, "-m", "benchmarks.worker", entry.kind, str(entry.recipe)]
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "errors"
        with errors.open("w") as file:
            process = subprocess.Popen(
                [*command, *entry.settings],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=os.environ | ONE_THREAD,
            )
        try:
            yield _Worker(process, errors)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stdin.close()
