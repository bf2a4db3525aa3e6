"""What was measured, as Markdown: for the terminal, and for docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from benchmarks.rounds import Measured

PACKAGES = ("torch", "lightning", "accelerate", "scikit-learn", "numpy")


@dataclass(frozen=True)
class Bound:
    """One number that is promised, beside what was measured.

    Attributes:
        work: what it is about.
        promised: in words.
        measured: likewise.
        verdict: `met`, `MISSED` or `void`, or why there is none.
    """

    work: str
    promised: str
    measured: str
    verdict: str


@dataclass(frozen=True)
class Section:
    """One comparison.

    Attributes:
        title: of the section.
        protocol: what was done.
        heading: of the table.
        rows: of it.
        bounds: that it decides.
    """

    title: str
    protocol: str
    heading: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = field(default_factory=list)
    bounds: list[Bound] = field(default_factory=list)

    def text(self) -> str:
        """As Markdown, without the bounds."""
        table = f"\n\n{_table(self.heading, self.rows)}" if self.rows else ""
        return f"## {self.title}\n\n{self.protocol}{table}\n"


def engines(
    title: str, protocol: str, found: Mapping[str, Measured], bounds: list[Bound]
) -> Section:
    """A table of engines; the first one is what the others are held against."""
    reference = next(iter(found.values()))
    rows = [_row(own, reference) for own in found.values()]
    times = "times as fast"
    heading = ("engine", "ms a step", "of CPU", f"{times}, by CPU time", times, "loss, relative")
    return Section(title, protocol, heading, rows, bounds)


def _row(own: Measured, reference: Measured) -> tuple[str, ...]:
    from benchmarks.rounds import ratio

    if own.missing:
        return (own.name, own.missing, "", "", "", "")
    difference = own.off(reference)
    off = "not compared" if difference is None else f"{difference:.1e}"
    if own.is_void(reference):
        return (own.name, "void", "", "", "", f"{off}, over the 1e-4 that may be")
    return (
        own.name,
        _milliseconds(own.wall),
        _milliseconds(own.cpu),
        str(ratio(reference.cpu, own.cpu)),
        str(ratio(reference.wall, own.wall)),
        off,
    )


def _milliseconds(seconds: Sequence[float]) -> str:
    low, high = 1e3 * min(seconds), 1e3 * max(seconds)
    return f"{1e3 * statistics.median(seconds):.3g} ({low:.3g} to {high:.3g})"


def document(sections: Sequence[Section], command: str, rounds: int) -> str:
    """The whole page."""
    bounds = [bound for section in sections for bound in section.bounds]
    rows = [(b.work, b.promised, b.measured, b.verdict) for b in bounds]
    heading = ("work", "promised", "measured", "verdict")
    parts = [
        "# Benchmarks",
        f"Written by `{command}` on {datetime.now(UTC).date()}; not to be edited by hand.",
        "\n".join(_machine(rounds)),
        f"## What is promised\n\n{_table(heading, rows)}",
        *(section.text().rstrip() for section in sections),
    ]
    return "\n\n".join(parts) + "\n"


def _machine(rounds: int) -> Iterator[str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if torch.cuda.is_available():
        yield f"- GPU: {torch.cuda.get_device_name()}, for what is told to be on one"
    versions = ", ".join(f"{name} {version}" for name, version in _versions())
    yield f"- machine: {_cpu()}, {os.cpu_count()} cores, {memory:.0f} GiB; one thread is used"
    yield f"- versions: Python {platform.python_version()}, {versions}"
    yield (
        f"- protocol: every engine in a process of its own, all with the same first weights, order "
        f"of rows and rates, float32, denormals flushed; 100 steps to warm up, then {rounds} "
        "rounds in turn (A B C, C B A, …); medians, in brackets the range over the rounds; ratios "
        "are taken round by round; a number is void where the loss after 100 steps, over all "
        "training rows, is more than 1e-4 off (relative) from that of the plain loop"
    )


def _cpu() -> str:
    """The processor's model, as the kernel names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "not installed"


def bounds_table(bounds: Sequence[Bound]) -> str:
    """Of one section."""
    rows = [(b.work, b.promised, b.measured, b.verdict) for b in bounds]
    return _table(("work", "promised", "measured", "verdict"), rows)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
