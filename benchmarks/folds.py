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
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.recipes import DIGITS
from benchmarks.rounds import ROOT, Measured

FOLDS, SPLIT_SEEDS = 5, (0, 1, 2)
TOGETHER, ONE_BY_ONE = "fifteen folds together", "fifteen folds one by one"
MOST_DIFFERENCE = 1e-4
"""Of any NLL in the runs' results: accuracy and calibration jump where a sample is on an edge."""

Results = list[dict[str, dict[str, dict[str, float]]]]


def measured(folder: Path, rounds: int, epochs: int) -> tuple[dict[str, Measured], float]:
    """Seconds of both ways, by round, and by how much their NLLs differ at most."""
    found = {name: Measured(name) for name in (ONE_BY_ONE, TOGETHER)}
    ways = {ONE_BY_ONE: _one_by_one, TOGETHER: _together}
    results: dict[str, Results] = {}
    fresh = count()
    for number in range(rounds):
        for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
            cpu, wall = _cpu_s(), time.perf_counter()
            results[name] = ways[name](folder / f"folds-{next(fresh)}", epochs)
            found[name].wall.append(time.perf_counter() - wall)
            found[name].cpu.append(_cpu_s() - cpu)
    return found, _most_apart(*results.values())


def _together(runs: Path, epochs: int) -> Results:
    sweep = f"sweep={{folds: {FOLDS}, grid: {{data.split.seed: {list(SPLIT_SEEDS)}}}}}"
    told = _trained(runs, epochs, sweep)
    return [point["results"] for point in told["points"]]


def _one_by_one(runs: Path, epochs: int) -> Results:
    # (the shares that the sweep makes of the recipe's 0.6, 0.2 and 0.2)
    splits = [
        f"data.split={{folds: {FOLDS}, fold: {fold}, val: 0.25, seed: {seed}}}"
        for seed in SPLIT_SEEDS
        for fold in range(FOLDS)
    ]
    return [_trained(runs, epochs, split)["results"] for split in splits]


def _trained(runs: Path, epochs: int, setting: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "fusionrun", "train", str(DIGITS), "--json"]
    for own in (setting, f"training.epochs={epochs}", "training.threads=1"):
        command += ["--set", own]
    command += ["--set", "training.device=cpu", "--runs", str(runs)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _most_apart(one: Results, other: Results) -> float:
    """The largest difference between the NLLs of two lists of results."""
    return max(abs(a - b) for a, b in zip(_nlls(one), _nlls(other), strict=True))


def _nlls(results: Results) -> Iterator[float]:
    for run in results:
        for paths in run.values():
            yield from (metrics["nll"] for metrics in paths.values())
