"""Accuracy of shipped recipes over seeds and folds, with its spread.

    python benchmarks/accuracy.py                               # the tuned digits: seeds 0 to 4
    python benchmarks/accuracy.py --folds 5 --seeds 3           # the same over 5 folds × 3 seeds
    python benchmarks/accuracy.py --recipes 'origin-*' --seeds 3

Each run is `fusionrun train` in a process of its own; the test split is touched once, at its end.
With `--folds` every row is tested once for each seed, which also moves the split. Printed: mean
and standard deviation over runs, in per cent; fusion gain is against the better of best expert
and mean of experts, run by run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

RECIPES = Path(__file__).parent.parent / "recipes"


def settings(seeds: int, folds: int) -> Iterator[list[str]]:
    for seed in range(seeds):
        for fold in range(folds or 1):
            split = f"data.split={{folds: {folds}, fold: {fold}, val: 0.2, seed: {seed}}}"
            yield [f"seed={seed}", split] if folds else [f"seed={seed}"]


def trained(recipe: Path, changes: list[str], runs: str) -> dict[str, dict[str, float]]:
    """The test split's metrics by path."""
    command = [sys.executable, "-m", "fusionrun", "train", str(recipe), "--runs", runs, "--json"]
    for change in changes:
        command += ["--set", change]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["results"]["test"]


def gain(paths: dict[str, dict[str, float]]) -> float:
    rivals = [metrics["accuracy"] for path, metrics in paths.items() if path != "global"]
    return paths["global"]["accuracy"] - max(rivals)


def spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):6.2f} ± {100 * deviation:5.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", default="handwritten-digits", help="name or pattern")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folds", type=int, default=0)
    arguments = parser.parse_args()
    print(f"{'recipe':32} runs  accuracy         ECE              fusion gain")
    for recipe in sorted(RECIPES.glob(f"{arguments.recipes}.yaml")):
        with tempfile.TemporaryDirectory() as runs:
            changes = settings(arguments.seeds, arguments.folds)
            found = [trained(recipe, change, runs) for change in changes]
        accuracy = spread([paths["global"]["accuracy"] for paths in found])
        ece = spread([paths["global"]["ece"] for paths in found])
        gains = spread([gain(paths) for paths in found])
        print(f"{recipe.stem:32} {len(found):4}  {accuracy}  {ece}  {gains}", flush=True)


if __name__ == "__main__":
    main()
