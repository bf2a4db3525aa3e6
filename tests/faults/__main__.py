"""The whole harness: `python -m tests.faults`; `--soak 600` adds ten minutes of random faults.

Prints a table of what was done to runs and what came of it, and ends with 1 where any run did not
end bit-equal to the undisturbed one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.faults.campaign import Campaign, Count, listed
from tests.faults.soak import soak


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="only every n-th boundary")
    parser.add_argument("--random", type=int, default=100, help="kills at random instants")
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS", help="random faults")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        counts = _campaigns(Path(folder), given.every, given.random)
        if given.soak:
            counts.append(soak(Path(folder) / "soak", given.soak))
    for count in counts:
        for failure in count.failures:
            print(f"FAILED  {count.name}: {failure}")
    _table(counts)
    return int(any(count.failures for count in counts))


def _campaigns(folder: Path, every: int, instants: int) -> list[Count]:
    one, two = Campaign(folder / "one"), Campaign(folder / "two", ranks=2)
    kept = Campaign(
        folder / "kept",
        "training.checkpoints.keep_last=1",
        "training.checkpoints.every_steps=1",
    )
    counts = []
    for campaign, much in (
        (lambda: one.at_boundaries(every), "one rank"),
        (lambda: one.at_boundaries(every, torn=True), "one rank, torn"),
        (lambda: kept.at_boundaries(4 * every), "a checkpoint at every step, one kept"),
        (lambda: one.in_a_row(max(1, 20 // every)), "five in a row"),
        (lambda: one.at_random_instants(instants, within_s=0.6), "random instants"),
        (lambda: two.at_boundaries(8 * every), "two ranks, the first"),
        (lambda: two.at_random_instants(max(1, instants // 5), within_s=2.0), "two ranks"),
    ):
        print(f"{much} …", flush=True)
        counts.append(campaign())
    return counts


def _table(counts: list[Count]) -> None:
    rows = listed(counts)
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")


if __name__ == "__main__":
    sys.exit(main())
