"""fusionrun against real peers, on this machine.

    python -m benchmarks                        # everything, some 45 minutes, on a quiet machine
    python -m benchmarks --only steps runner    # parts of it
    python -m benchmarks --quick                # that everything runs: two rounds of few steps

The first call makes `.venv-benchmarks` with the peers. A run of everything that is not quick
writes docs/benchmarks.md. `--here` takes the python that it was called with, and leaves out what
that has not. Part `gpu` is left out where torch finds no CUDA device.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.environment import ROOT, go_there, is_here

PAGE = ROOT / "docs" / "benchmarks.md"
QUICK_SHARE = 0.1
# Of `benchmarks.parts`, which is imported where torch is: a slip must not install that first.
PART_NAMES = ("steps", "one", "runner", "stacked", "conv", "stall", "folds", "plan", "gpu")


def arguments_of(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, help="of each comparison; 7 unless quick")
    parser.add_argument("--quick", action="store_true", help="two rounds of few steps")
    parts = f"parts to run, of {', '.join(PART_NAMES)}"
    parser.add_argument("--only", nargs="+", metavar="PART", choices=PART_NAMES, help=parts)
    gpu = "device of part gpu; cpu: to see it run where there is none"
    parser.add_argument("--gpu", default="cuda", choices=("cuda", "cpu"), help=gpu)
    parser.add_argument("--here", action="store_true", help="in this python, as it is")
    return parser.parse_args(given)


def main() -> None:
    arguments = arguments_of()
    # An installed program has its bytecode; without, a third of a command's start is compiling.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if not (arguments.here or is_here()):
        go_there(sys.argv[1:])
    from benchmarks.comparison import Effort
    from benchmarks.parts import PARTS
    from benchmarks.report import bounds_table, document

    rounds = arguments.rounds or (2 if arguments.quick else 7)
    sections = []
    with tempfile.TemporaryDirectory() as folder:
        share = QUICK_SHARE if arguments.quick else 1.0
        effort = Effort(rounds, share, Path(folder), arguments.gpu)
        for name in arguments.only or PART_NAMES:
            for section in PARTS[name](effort):
                sections.append(section)
                print(section.text(), flush=True)
                if section.bounds:
                    print(bounds_table(section.bounds), end="\n\n", flush=True)
    if not (arguments.quick or arguments.only):
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(document(sections, "python -m benchmarks", rounds))
        print(f"{PAGE}  written")


if __name__ == "__main__":
    main()
