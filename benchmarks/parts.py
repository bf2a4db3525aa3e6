"""What is compared with what, and what is promised of it."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks import folds, recipes, start
from benchmarks.peers import PEERS
from benchmarks.recipes import COMMON, NO_CHECKPOINTS
from benchmarks.report import Bound, Section, engines
from benchmarks.rounds import ROOT, Entry, Measured, Ratio, measure, ratio

PLAIN, BY_HAND = "plain loop", "best loop by hand"
EAGER, COMPILED = "fusionrun, eager", "fusionrun, compiled"
RUNNER = "fusionrun, the whole runner"


@dataclass(frozen=True)
class Effort:
    """How much is done.

    Attributes:
        rounds: of each comparison.
        share: of the steps of a full round.
        folder: for recipes and data.
    """

    rounds: int
    share: float
    folder: Path

    def measured(self, entries: Sequence[Entry], steps: int) -> dict[str, Measured]:
        """The engines by name."""
        number = max(2, round(steps * self.share))
        return {own.name: own for own in measure(entries, self.rounds, number)}


def steps(effort: Effort) -> Iterator[Section]:
    """Six MLP experts on the digits, against every peer."""
    promised = {
        128: [(COMPILED, PLAIN, 2.3, 2.8), (EAGER, PLAIN, 1.55, 1.7)],
        32: [(COMPILED, PLAIN, 2.8, 3.5)],
    }
    promised[128].append((COMPILED, "Lightning Trainer", 2.5, 3.0))
    promised[32].append((COMPILED, "Lightning Trainer", 3.0, 3.8))
    for batch_size, own in promised.items():
        settings = (*COMMON, f"training.batch_size={batch_size}")
        peers = [name for name in PEERS if name != "scikit-learn"]
        # (whole epochs: 10 steps of at most 128 rows, 38 of at most 32)
        found = effort.measured(
            [*_peers(peers, recipes.DIGITS, settings), *_ours(recipes.DIGITS, settings)],
            200 if batch_size == 128 else 380,
        )
        work = f"six MLP experts on the digits, B = {batch_size}"
        bounds = [faster(work, found, *names, least, aim) for *names, least, aim in own]
        if batch_size == 128:
            bounds += [_memory(found, EAGER), _memory(found, COMPILED)]
        words = (
            "The shipped digits recipe without dropout; a full epoch's order, short batch included."
        )
        yield engines(work[0].upper() + work[1:], words, found, bounds)


def one(effort: Effort) -> Iterator[Section]:
    """One MLP expert, for scikit-learn's sake."""
    recipe = recipes.equal_experts(effort.folder, 1)
    peers = [PLAIN, BY_HAND, "scikit-learn"]
    found = effort.measured([*_peers(peers, recipe), *_ours(recipe)], 200)
    words = (
        "MLPClassifier is as wide as the expert, and is another model: no fusion, no LayerNorm, no "
        "second head, no clip; its loss is not compared."
    )
    yield engines("One MLP expert, and scikit-learn", words, found, [])


def runner(effort: Effort) -> Iterator[Section]:
    """What a run adds to its steps, and what checkpoints add to a run."""
    recipe = recipes.long_digits(effort.folder)
    often = "training.checkpoints={every_steps: 50, every_s: 86400}"
    saved = f"{RUNNER}, a checkpoint every 50 steps"
    found = effort.measured(
        [
            Entry(EAGER, "fusionrun", recipe, COMMON),
            Entry(RUNNER, "runner", recipe, (*COMMON, NO_CHECKPOINTS)),
            Entry(saved, "runner", recipe, (*COMMON, often)),
            *_compiled(recipe, COMMON),
            Entry(
                f"{RUNNER}, compiled",
                "runner",
                recipe,
                (*COMMON, NO_CHECKPOINTS, "training.engine=compiled"),
            ),
        ],
        374,  # two epochs
    )
    bounds = [
        more("runner over its own step function, eager", found, RUNNER, EAGER, 0.02, 0.01),
        more("the same, compiled", found, f"{RUNNER}, compiled", COMPILED, 0.02, 0.01),
        more("checkpoint every 50 steps against none", found, saved, RUNNER, 0.03, 0.01),
    ]
    words = (
        "`fusionrun train` with everything between its steps (epochs' ends, validation, records, "
        "the choice of the best weights), against its bare step function, on the digits twenty "
        "times over. Loss is not asked for: the runner's rates follow their schedule."
    )
    yield engines("The runner, and its checkpoints", words, found, bounds)


def stacked(effort: Effort) -> Iterator[Section]:
    """Equal MLP experts, eight to sixty-four."""
    an_expert: dict[int, Measured] = {}
    for number in (8, 16, 32, 64):
        recipe = recipes.equal_experts(effort.folder, number)
        found = effort.measured(
            [*_peers([PLAIN, BY_HAND], recipe), *_ours(recipe)], 40 if number < 32 else 20
        )
        an_expert[number] = found[COMPILED]
        work = f"{number} equal MLP experts, B = 128"
        bounds = [faster(work, found, COMPILED, PLAIN, 2.2, 3.0)] if number == 32 else []
        if number == 64:
            bounds.append(_an_expert(an_expert[64], an_expert[8]))
        words = "240 → 128 → 64 each, all on one view. The peers go from expert to expert."
        yield engines(work, words, found, bounds)


def _an_expert(many: Measured, few: Measured) -> Bound:
    """The time of one expert among 64, over that of one among 8."""
    work, promised = "time an expert at 64 experts over that at 8, compiled", "≤ 1.3 (aim 1.1)"
    if many.missing or few.missing:
        return Bound(work, promised, many.missing or few.missing, "not measured")
    found = ratio(many.cpu, [8 * seconds for seconds in few.cpu])
    return Bound(work, promised, str(found), _verdict(found.median <= 1.3))


def conv(effort: Effort) -> Iterator[Section]:
    """Four small convolutional experts."""
    recipe = recipes.conv_experts(effort.folder)
    # A textbook leaves images as torch's default has them; the loop by hand knows of channels_last.
    textbook = (*COMMON, "training.memory_format=contiguous")
    peers = [*_peers([PLAIN], recipe, textbook), *_peers([BY_HAND], recipe)]
    found = effort.measured([*peers, *_ours(recipe)], 20)
    work = "four small conv experts, 3 × 32 × 32, B = 32"
    bounds = [faster(work, found, name, PLAIN, 1.4, 1.6) for name in (EAGER, COMPILED)]
    words = (
        "Channels 16, 32. The plain loop has torch's default memory format, all else channels last."
    )
    yield engines(work[0].upper() + work[1:], words, found, bounds)


def stall(effort: Effort) -> Iterator[Section]:
    """What a step waits for a checkpoint of 200 MB."""
    command = [sys.executable, "-m", "benchmarks.stall", str(recipes.large_expert(effort.folder))]
    done = subprocess.run(
        [*command, str(effort.rounds), *COMMON, NO_CHECKPOINTS],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    own = ratio(found["stalls"], found["writes"])
    work, size = "step stall of a checkpoint against a raw write of its bytes", found["bytes"] / 1e6
    bound = Bound(work, "≤ 0.3 (aim 0.2)", str(own), _verdict(own.median <= 0.3))
    words = f"{size:,.0f} MB: weights, best weights, two moments; the write ends with an fsync."
    yield Section("A checkpoint's stall", words, bounds=[bound])


def folded(effort: Effort) -> Iterator[Section]:
    """Many runs on one machine."""
    epochs = max(2, round(60 * effort.share))
    found, apart = folds.measured(effort.folder, effort.rounds, epochs)
    one_by_one, together = found[folds.ONE_BY_ONE], found[folds.TOGETHER]
    own = ratio(one_by_one.cpu, together.cpu)
    sound = apart <= folds.MOST_DIFFERENCE
    bound = Bound(
        "fifteen folds of the digits recipe, batched, against one by one",
        "at least 3 × (aim 5 ×)",
        str(own) if sound else f"NLLs differ by {apart:.1e}",
        _verdict(own.median >= 3) if sound else "void",
    )
    words = (
        f"The shipped digits recipe, five folds of three splits, {epochs} epochs each, as whole "
        "commands: one `fusionrun train` of the sweep, against fifteen of one fold, each a process "
        f"of its own. NLLs of all paths and splits differ by {apart:.0e} at most."
    )
    rows = [
        (way.name, *(f"{statistics.median(seconds):.1f}" for seconds in (way.cpu, way.wall)))
        for way in (one_by_one, together)
    ]
    heading = ("fifteen folds", "s of CPU", "s")
    yield Section("Many runs on one machine", words, heading, rows, [bound])


def plan(effort: Effort) -> Iterator[Section]:
    """Starting `plan`."""
    command, _ = start.commands(effort.folder)["plan"]
    nothing = [sys.executable, "-c", "pass"]
    start.seconds(command)
    pairs = [(start.seconds(command), start.seconds(nothing)) for _ in range(effort.rounds)]
    own = ratio(*zip(*pairs, strict=True))
    bound = Bound(
        "`plan` against `python -c pass`", "≤ 20 (aim 15)", str(own), _verdict(own.median <= 20)
    )
    words = "`python benchmarks/start.py` shows the other commands."
    yield Section("Starting", words, bounds=[bound])


PARTS: dict[str, Callable[[Effort], Iterable[Section]]] = {
    "steps": steps,
    "one": one,
    "runner": runner,
    "stacked": stacked,
    "conv": conv,
    "stall": stall,
    "folds": folded,
    "plan": plan,
}


def _peers(
    names: Iterable[str], recipe: Path, settings: tuple[str, ...] = COMMON
) -> Iterator[Entry]:
    return (Entry(name, name, recipe, settings) for name in names)


def _ours(recipe: Path, settings: tuple[str, ...] = COMMON) -> Iterator[Entry]:
    yield Entry(EAGER, "fusionrun", recipe, (*settings, "training.engine=eager"))
    yield from _compiled(recipe, settings)


def _compiled(recipe: Path, settings: tuple[str, ...]) -> Iterator[Entry]:
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


def _memory(found: dict[str, Measured], ours: str) -> Bound:
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
        _verdict(own.median >= limit if better == "more" else own.median <= limit),
    )


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "MISSED"
