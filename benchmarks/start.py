"""How long the command line takes to start, as a ratio to `python -c pass`.

    python benchmarks/start.py                  # fifteen rounds

Every round runs each command once, warm, beside a `python -c pass` of its own; what is printed is
the median of the pairwise ratios with its range. Bounds: `--help` 8, the others 22.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = Path(__file__).parent.parent / "recipes" / "handwritten-digits.yaml"
PROGRAM = [sys.executable, "-m", "fusionrun"]


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def commands(directory: Path) -> dict[str, tuple[list[str], float]]:
    starter = str(directory / "recipe.yaml")
    return {
        "--help": ([*PROGRAM, "--help"], 8),
        "plan": ([*PROGRAM, "plan", str(RECIPE)], 22),
        "plan --json": ([*PROGRAM, "plan", str(RECIPE), "--json"], 22),
        "schema": ([*PROGRAM, "schema"], 22),
        "init": ([*PROGRAM, "init", starter, "--force"], 22),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    nothing = [sys.executable, "-c", "pass"]
    with tempfile.TemporaryDirectory() as directory:
        for name, (command, bound) in commands(Path(directory)).items():
            seconds(command)
            ratios = sorted(seconds(command) / seconds(nothing) for _ in range(rounds))
            middle = statistics.median(ratios)
            verdict = "within" if middle <= bound else "OVER"
            print(
                f"{name:12}  {middle:5.1f} × python -c pass "
                f"({ratios[0]:.1f} to {ratios[-1]:.1f})  {verdict} {bound}",
                flush=True,
            )


if __name__ == "__main__":
    main()
