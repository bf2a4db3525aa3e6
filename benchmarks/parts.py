"""What is compared with what, and what is promised of it."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Iterator

from benchmarks import folds, recipes, start
from benchmarks.comparison import (
    BY_HAND,
    COMPILED,
    EAGER,
    PLAIN,
    Effort,
    adds,
    faster,
    memory,
    more,
    own_entries,
    their_entries,
    verdict,
)
from benchmarks.gpu import gpu
from benchmarks.peers import PEERS
from benchmarks.recipes import COMMON, NO_CHECKPOINTS
from benchmarks.report import Bound, Section, engines
from benchmarks.rounds import Entry, Measured, ratio

RUNNER = "fusionrun, the whole runner"


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
            [
                *their_entries(peers, recipes.DIGITS, settings),
                *own_entries(recipes.DIGITS, settings),
            ],
            200 if batch_size == 128 else 380,
        )
        work = f"six MLP experts on the digits, B = {batch_size}"
        bounds = [faster(work, found, *names, least, aim) for *names, least, aim in own]
        if batch_size == 128:
            bounds += [memory(found, EAGER), memory(found, COMPILED)]
        words = (
            "The shipped digits recipe without dropout; a full epoch's order, short batch included."
        )
        yield engines(work[0].upper() + work[1:], words, found, bounds)


def one(effort: Effort) -> Iterator[Section]:
    """One MLP expert, for scikit-learn's sake."""
    recipe = recipes.equal_experts(effort.folder, 1)
    peers = [PLAIN, BY_HAND, "scikit-learn"]
    found = effort.measured([*their_entries(peers, recipe), *own_entries(recipe)], 200)
    words = (
        "MLPClassifier is as wide as the expert, and is another model: no fusion, no LayerNorm, no "
        "second head, no clip; its loss is not compared."
    )
    yield engines("One MLP expert, and scikit-learn", words, found, [])


def runner(effort: Effort) -> Iterator[Section]:
    """What a run adds to its steps, and what checkpoints add to a run."""
    recipe = recipes.long_digits(effort.folder)
    # Validation is work that a recipe asks for, and no bare step does it.
    alone = (*COMMON, "data.split={train: 0.8, val: 0.0, test: 0.2, seed: 0}")
    eager, compiled = ("training.engine=eager",), ("training.engine=compiled",)
    often = "training.checkpoints={every_steps: 50, every_s: 86400}"
    saved, validated = (f"{RUNNER}, {own}" for own in ("a checkpoint every 50 steps", "validating"))
    found = effort.measured(
        [
            *own_entries(recipe, alone),
            Entry(RUNNER, "runner", recipe, (*alone, *eager, NO_CHECKPOINTS)),
            Entry(saved, "runner", recipe, (*alone, *eager, often)),
            Entry(validated, "runner", recipe, (*COMMON, *eager, NO_CHECKPOINTS)),
            Entry(f"{RUNNER}, compiled", "runner", recipe, (*alone, *compiled, NO_CHECKPOINTS)),
        ],
        250,  # one epoch
        times_rounds=3,
    )
    bounds = [
        adds("runner over its own step function, eager", found, RUNNER, EAGER, 0.02, 0.01),
        adds("the same, compiled", found, f"{RUNNER}, compiled", COMPILED, 0.02, 0.01),
        more("checkpoint every 50 steps against none", found, saved, RUNNER, 0.03, 0.01),
    ]
    words = (
        "`fusionrun train` with everything between its steps (epochs' ends, records, the choice of "
        "the best weights), beside its bare step function, on the digits twenty times over, "
        "without a validation split; one row shows what validating a third as many rows at every "
        "epoch's end takes. Three times as many rounds, of one epoch each. What the runner and "
        "the bare loop add to their steps is counted within their own processes: the time of an "
        "epoch over that of fetching its batches and taking them. Loss is not asked for: the "
        "runner's rates follow their schedule."
    )
    yield engines("The runner, and its checkpoints", words, found, bounds)


def stacked(effort: Effort) -> Iterator[Section]:
    """Equal MLP experts, eight to sixty-four."""
    an_expert: dict[int, Measured] = {}
    for number in (8, 16, 32, 64):
        recipe = recipes.equal_experts(effort.folder, number)
        found = effort.measured(
            [*their_entries([PLAIN, BY_HAND], recipe), *own_entries(recipe)],
            40 if number < 32 else 20,
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
    return Bound(work, promised, str(found), verdict(found.median <= 1.3))


def conv(effort: Effort) -> Iterator[Section]:
    """Four small convolutional experts."""
    recipe = recipes.conv_experts(effort.folder)
    # A textbook leaves images as torch's default has them; the loop by hand knows of channels_last.
    textbook = (*COMMON, "training.memory_format=contiguous")
    peers = [*their_entries([PLAIN], recipe, textbook), *their_entries([BY_HAND], recipe)]
    found = effort.measured([*peers, *own_entries(recipe)], 20)
    work = "four small conv experts, 3 × 32 × 32, B = 32"
    bounds = [faster(work, found, name, PLAIN, 1.4, 1.6) for name in (EAGER, COMPILED)]
    words = (
        "Channels 16, 32. The plain loop has torch's default memory format, all else channels last."
    )
    yield engines(work[0].upper() + work[1:], words, found, bounds)


def stall(effort: Effort) -> Iterator[Section]:
    """What a step waits for a checkpoint of 200 MB."""
    found = effort.stalls(COMMON)
    own = ratio(found["stalls"], found["writes"])
    work, size = "step stall of a checkpoint against a raw write of its bytes", found["bytes"] / 1e6
    bound = Bound(work, "≤ 0.3 (aim 0.2)", str(own), verdict(own.median <= 0.3))
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
        str(own) if sound else f"losses differ by {apart:.1e}",
        verdict(own.median >= 3) if sound else "void",
    )
    words = (
        f"The shipped digits recipe, five folds of three splits, {epochs} epochs each, as whole "
        "commands: one `fusionrun train` of the sweep, against fifteen of one fold, each a process "
        f"of its own. Mean losses over the first epoch differ by {apart:.0e} (relative) at most."
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
    pairs = [(start.seconds(command), start.seconds(nothing)) for _ in range(3 * effort.rounds)]
    own = ratio(*zip(*pairs, strict=True))
    bound = Bound(
        "`plan` against `python -c pass`", "≤ 20 (aim 15)", str(own), verdict(own.median <= 20)
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
    "gpu": gpu,
}
