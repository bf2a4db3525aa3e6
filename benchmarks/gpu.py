"""What is promised of one GPU: small experts are bound by launches, large ones by arithmetic.

    python -m benchmarks --only gpu             # some eight minutes, most of them compiling

All of it is by the wall clock, the device waited for at both ends.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import recipes
from benchmarks.comparison import BY_HAND, PLAIN, Effort, own_entries, their_entries, verdict
from benchmarks.report import Bound, Section, engines
from benchmarks.rounds import ROOT, Entry, Measured, ratio

CAPTURED = "fusionrun, cudagraph"


def gpu(effort: Effort) -> Iterator[Section]:
    """Everything, where there is a GPU."""
    if effort.gpu == "cuda" and not torch.cuda.is_available():
        yield Section("On a GPU", "Not measured: torch finds no CUDA device here.")
        return
    common = ("fusion.dropout=0.0", f"training.device={effort.gpu}", recipes.RATES)
    yield _small(effort, common)
    yield _stacked(effort, common)
    yield _large(effort)
    yield _stall(effort, common)


def _small(effort: Effort, common: tuple[str, ...]) -> Section:
    """Six MLP experts on the digits."""
    entries = [
        *their_entries([PLAIN, BY_HAND], recipes.DIGITS, common),
        *own_entries(recipes.DIGITS, common),
        _captured(CAPTURED, recipes.DIGITS, common),
    ]
    found = effort.measured(entries, 200)
    own, plain = found[CAPTURED], found[PLAIN]
    work = "on a GPU: six MLP experts on the digits, B = 128, cudagraph"
    bounds = [
        _at_most(f"{work}: µs a step", own, 1e6, 150, 80),
        _times_as_fast(f"{work}, against the plain loop", own, plain, 12),
    ]
    words = (
        "The shipped digits recipe without dropout; the plain loop copies each batch from pinned "
        "memory, the loop by hand has its rows on the device."
    )
    return engines("On a GPU: six MLP experts on the digits, B = 128", words, found, bounds)


def _stacked(effort: Effort, common: tuple[str, ...]) -> Section:
    """Equal MLP experts: one, and sixty-four of them."""
    names = {1: "one MLP expert", 64: "64 MLP experts"}
    entries = [
        _captured(name, recipes.equal_experts(effort.folder, number), common)
        for number, name in names.items()
    ]
    found = effort.measured(entries, 200)
    work, promised = "on a GPU: a step of 64 stacked experts over that of one", "≤ 2"
    one, many = (found[name] for name in names.values())
    if missing := one.missing or many.missing:
        bound = Bound(work, promised, missing, "not measured")
    else:
        own = ratio(many.wall, one.wall)
        bound = Bound(work, promised, str(own), verdict(own.median <= 2))
    rows = [(own.name, own.missing or f"{_median(own) * 1e6:,.0f}") for own in found.values()]
    words = "240 → 128 → 64 each, all on one view, B = 128, captured."
    return Section("On a GPU: stacked experts", words, ("experts", "µs a step"), rows, [bound])


def _large(effort: Effort) -> Section:
    """Four WRN-28-10 in bf16, by `fusionrun profile`."""
    recipe = recipes.wide_resnets(effort.folder)
    settings = [f"training.device={effort.gpu}", "training.precision=bf16"]
    if effort.share < 1:
        settings += [f"experts.e{n}.{size}" for n in range(4) for size in ("depth=10", "width=1")]
    rows, shares = [], dict[str, float]()
    for engine in ("eager", "compiled"):
        command = [sys.executable, "-m", "fusionrun", "profile", str(recipe), "--json"]
        command += ["--steps", str(max(2, round(20 * effort.share)))]
        for setting in (*settings, f"training.engine={engine}"):
            command += ["--set", setting]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
            rows.append((engine, f"failed: {' '.join(last)}", "", ""))
            continue
        told = json.loads(done.stdout)
        shares[engine] = told["share_of_peak"]
        rates = (told["flop_per_s"] / 1e12, told["peak_flop_per_s"] / 1e12)
        rows.append((engine, f"{told['step_ms']:.4g}", *(f"{rate:,.3g}" for rate in rates)))
    work, promised = "on a GPU: four WRN-28-10, bf16: share of its peak", "at least 45 % (aim 55 %)"
    if shares:
        best = max(shares, key=shares.__getitem__)
        found = f"{shares[best]:.1%}, {best}"
        bound = Bound(work, promised, found, verdict(shares[best] >= 0.45))
    else:
        bound = Bound(work, promised, "no engine took a step", "not measured")
    words = (
        "3 × 32 × 32, B = 128, channels last; the peak is that of a square product of bf16, "
        "measured beside it; one round."
    )
    heading = ("engine", "ms a step", "TFLOP/s", "peak TFLOP/s")
    return Section("On a GPU: four wide ResNets", words, heading, rows, [bound])


def _stall(effort: Effort, common: tuple[str, ...]) -> Section:
    """What a step waits for a checkpoint."""
    found = effort.stalls(common)
    stalls, size = found["stalls"], found["bytes"] / 1e6
    own = 1e3 * statistics.median(stalls)
    spread = f"{own:.3g} ({1e3 * min(stalls):.3g} to {1e3 * max(stalls):.3g})"
    work = f"on a GPU: ms that a step waits for a snapshot of {size:,.0f} MB"
    bound = Bound(work, "≤ 1", spread, verdict(own <= 1))
    words = "Weights, best weights and two moments."
    return Section("On a GPU: a checkpoint's stall", words, bounds=[bound])


def _captured(name: str, recipe: Path, common: tuple[str, ...]) -> Entry:
    return Entry(name, "fusionrun", recipe, (*common, "training.engine=cudagraph"))


def _median(own: Measured) -> float:
    return statistics.median(own.wall)


def _at_most(work: str, own: Measured, unit: float, most: float, aim: float) -> Bound:
    promised = f"≤ {most:g} (aim {aim:g})"
    if own.missing:
        return Bound(work, promised, own.missing, "not measured")
    found = _median(own) * unit
    return Bound(work, promised, f"{found:.0f}", verdict(found <= most))


def _times_as_fast(work: str, own: Measured, plain: Measured, least: float) -> Bound:
    promised = f"at least {least:g} ×"
    if missing := own.missing or plain.missing:
        return Bound(work, promised, missing, "not measured")
    if own.is_void(plain):
        return Bound(work, promised, "another loss after 100 steps", "void")
    found = ratio(plain.wall, own.wall)
    return Bound(work, promised, str(found), verdict(found.median >= least))
