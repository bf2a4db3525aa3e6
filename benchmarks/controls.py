"""A recipe of several experts beside what its budget buys otherwise: does the fusion gain?

    python benchmarks/controls.py                        # Fashion-MNIST, four experts, seed 0
    python benchmarks/controls.py --recipe NAME --expert deep --seeds 3

Three runs a seed, each `fusionrun train` in a process of its own, the test split touched once at
its end: the recipe; one of its experts alone on all data for as many epochs; and the same for as
much time of the processor as the recipe took, hence more epochs. Best expert and mean of the
experts are the recipe's own. Time is that of the processor (user and system) and, in brackets,
what passed: only on a quiet machine do they belong together.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import yaml

RECIPES = Path(__file__).parent.parent / "recipes"


class Run(NamedTuple):
    """One training: the test split's metrics by path, seconds of the processor and of the wall."""

    paths: dict[str, dict[str, float]]
    processor_s: float
    wall_s: float

    def line(self, what: str, path: str) -> str:
        metrics = self.paths[path]
        seconds = f"{self.processor_s:6.0f} s ({self.wall_s:.0f})"
        return f"{what:44} {100 * metrics['accuracy']:6.2f} %  {metrics['nll']:.4f}  {seconds}"


def trained(recipe: Path, *changes: str) -> Run:
    start, before = time.perf_counter(), children_s()
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "fusionrun", "train", str(recipe), "--runs", runs]
        command += ["--json", *(word for change in changes for word in ("--set", change))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    results = json.loads(done.stdout)["results"]["test"]
    return Run(results, children_s() - before, time.perf_counter() - start)


def children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def one_seed(recipe: Path, expert: str, seed: int) -> None:
    written = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    epochs = written["training"]["epochs"]
    alone = f"experts={json.dumps({expert: written['experts'][expert]})}"
    whole = trained(recipe, f"seed={seed}")
    names = sorted(whole.paths, key=lambda path: whole.paths[path]["accuracy"])
    for path in reversed(names):
        print(whole.line(f"seed {seed}  {path}", path), flush=True)
    single = trained(recipe, f"seed={seed}", alone)
    longer = round(epochs * whole.processor_s / single.processor_s)
    more = trained(recipe, f"seed={seed}", alone, f"training.epochs={longer}")
    for run, number in ((single, epochs), (more, longer)):
        for path in ("global", expert):
            print(run.line(f"seed {seed}  {expert} alone, {number} epochs: {path}", path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="fashion-mnist-4-experts")
    parser.add_argument("--expert", default="deep", help="the one that is trained alone")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    print(f"{'':44} accuracy    NLL  processor time (wall)")
    for seed in range(arguments.seeds):
        one_seed(RECIPES / f"{arguments.recipe}.yaml", arguments.expert, seed)


if __name__ == "__main__":
    main()
