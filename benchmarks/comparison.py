"""What comparisons are made of: how much is done, who takes part, and what is promised of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.recipes import COMMON, NO_CHECKPOINTS, large_expert
from benchmarks.report import Bound
from benchmarks.rounds import ROOT, Entry, Measured, Ratio, measure, ratio

PLAIN, BY_HAND = "plain loop", "best loop by hand"
EAGER, COMPILED = "fusionrun, eager", "fusionrun, compiled"


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        rounds: of each comparison.
        share: of the steps of a full round.
        folder: for recipes and data.
        gpu: the device of what is for a GPU.
    """

    rounds: int
    share: float
    folder: Path
    gpu: str = "cuda"

    def measured(
        self, entries: Sequence[Entry], steps: int, times_rounds: int = 1
    ) -> dict[str, Measured]:
        """The engines by name.

        Args:
            entries: the engines.
            steps: of a round.
            times_rounds: more rounds than of other comparisons, for small differences.
        """
        number = max(2, round(steps * self.share))
        return {own.name: own for own in measure(entries, times_rounds * self.rounds, number)}

    def stalls(self, settings: tuple[str, ...]) -> dict[str, Any]:
        """What `benchmarks.stall` measures: of 200 MB, less where little is to be done."""
        recipe = large_expert(self.folder, round(3400 * self.share**0.5))
        command = [sys.executable, "-m", "benchmarks.stall", str(recipe), str(self.rounds)]
        done = subprocess.run(
            [*command, *settings, NO_CHECKPOINTS],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def their_entries(
    names: Iterable[str], recipe: Path, settings: tuple[str, ...] = COMMON
) -> Iterator[Entry]:
    return (Entry(name, name, recipe, settings) for name in names)


def own_entries(recipe: Path, settings: tuple[str, ...] = COMMON) -> Iterator[Entry]:
    yield Entry(EAGER, "fusionrun", recipe, (*settings, "training.engine=eager"))
    yield from compiled_entry(recipe, settings)


def compiled_entry(recipe: Path, settings: tuple[str, ...]) -> Iterator[Entry]:
    yield Entry(COMPILED, "fusionrun", recipe, (*settings, "training.engine=compiled"))


def faster(
    work: str, found: dict[str, Measured], ours: str, theirs: str, least: float, aim: float
) -> Bound:
    """How many times as fast, by CPU time."""
    name = f"{work}: {ours} against {theirs}"
    promised = f"at least {least:g} × (aim {aim:g} ×)"
    return _bound(
        name, promised, found, ours, theirs, lambda one, two: ratio(two.cpu, one.cpu), least
    )


def more(
    work: str, found: dict[str, Measured], ours: str, theirs: str, most: float, aim: float
) -> Bound:
    """How much longer, by the wall clock: threads of ours work beside a step."""
    promised = f"≤ {1 + most:g} (aim {1 + aim:g})"

    def longer(one: Measured, two: Measured) -> Ratio:
        return ratio(one.wall, two.wall)

    return _bound(work, promised, found, ours, theirs, longer, 1 + most, better="less")


def adds(
    work: str, found: dict[str, Measured], ours: str, theirs: str, most: float, aim: float
) -> Bound:
    """How much more one adds to its steps than another: each is counted in its own process, in the
    same seconds, as the same steps of two processes differ by more than is promised.
    """
    promised = f"≤ {1 + most:g} (aim {1 + aim:g})"

    def longer(one: Measured, two: Measured) -> Ratio:
        return ratio(one.over_its_steps, two.over_its_steps)

    return _bound(work, promised, found, ours, theirs, longer, 1 + most, better="less")


def memory(found: dict[str, Measured], ours: str) -> Bound:
    def held(one: Measured, two: Measured) -> Ratio:
        return ratio([one.peak_bytes], [two.peak_bytes])

    work = f"peak memory of the process, {ours} against {PLAIN}"
    return _bound(work, "≤ 1.1 (aim 1.0)", found, ours, PLAIN, held, 1.1, better="less")


def _bound(
    work: str,
    promised: str,
    found: dict[str, Measured],
    ours: str,
    theirs: str,
    measured: Callable[[Measured, Measured], Ratio],
    limit: float,
    better: Literal["more", "less"] = "more",
) -> Bound:
    one, two, reference = found[ours], found[theirs], next(iter(found.values()))
    if missing := one.missing or two.missing:
        return Bound(work, promised, missing, "not measured")
    if one.is_void(reference) or two.is_void(reference):
        return Bound(work, promised, "another loss after 100 steps", "void")
    own = measured(one, two)
    return Bound(
        work,
        promised,
        str(own),
        verdict(own.median >= limit if better == "more" else own.median <= limit),
    )


def verdict(is_met: bool) -> str:
    return "met" if is_met else "MISSED"
