"""Fifteen folds of the digits recipe, trained together and one by one, as whole commands.

One by one each is `fusionrun train` in a process of its own, which is also how `submit --executor
local` has the points of a sweep trained.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from benchmarks.recipes import DIGITS
from benchmarks.rounds import ROOT, Measured

FOLDS, SPLIT_SEEDS = 5, (0, 1, 2)
TOGETHER, ONE_BY_ONE = "fifteen folds together", "fifteen folds one by one"
MOST_DIFFERENCE = 1e-5
"""Relative, of any run's mean loss over its first epoch. Later rounding grows, at this recipe's
rates to some 1e-3 of the loss, as it does between any two engines."""


def measured(folder: Path, rounds: int, epochs: int) -> tuple[dict[str, Measured], float]:
    """Seconds of both ways, by round, and by how much their first epochs' losses differ at most."""
    found = {name: Measured(name) for name in (ONE_BY_ONE, TOGETHER)}
    ways = {ONE_BY_ONE: _one_by_one, TOGETHER: _together}
    losses: dict[str, dict[str, float]] = {}
    fresh = count()
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
            runs = folder / f"folds-{next(fresh)}"
            cpu, wall = _cpu_s(), time.perf_counter()
            ways[name](runs, epochs)
            found[name].wall.append(time.perf_counter() - wall)
            found[name].cpu.append(_cpu_s() - cpu)
            losses[name] = _first_losses(runs)
    return found, _most_apart(*losses.values())


def _together(runs: Path, epochs: int) -> None:
    _train(
        runs, epochs, f"sweep={{folds: {FOLDS}, grid: {{data.split.seed: {list(SPLIT_SEEDS)}}}}}"
    )


def _one_by_one(runs: Path, epochs: int) -> None:
    for seed in SPLIT_SEEDS:
        for fold in range(FOLDS):
            # (the shares that the sweep makes of the recipe's 0.6, 0.2 and 0.2)
            split = f"data.split={{folds: {FOLDS}, fold: {fold}, val: 0.25, seed: {seed}}}"
            _train(runs, epochs, split)


def _train(runs: Path, epochs: int, setting: str) -> None:
    command = [sys.executable, "-m", "fusionrun", "train", str(DIGITS)]
    for own in (setting, f"training.epochs={epochs}", "training.threads=1"):
        command += ["--set", own]
    command += ["--set", "training.device=cpu", "--runs", str(runs)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _first_losses(runs: Path) -> dict[str, float]:
    """The mean loss over the first epoch, by the run's id: the same plans have the same ids."""
    files = runs.glob("*/metrics.jsonl")
    lines = {file.parent.name: file.read_text().partition("\n")[0] for file in files}
    return {name: json.loads(line)["loss"]["total"] for name, line in lines.items()}


def _most_apart(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """The largest relative difference between the losses of the same run."""
    assert one.keys() == other.keys()
    return max(abs(loss - other[name]) / loss for name, loss in one.items())
