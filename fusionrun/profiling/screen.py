"""A profile on the screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fusionrun.profiling.profile import Profile

__all__ = ["screen"]


def screen(found: Profile) -> str:
    """What a person reads of a profile."""
    blocks = [_heading(found), _pace(found), _phases(found), _components(found)]
    return "\n\n".join("\n".join(block) for block in blocks)


def _heading(found: Profile) -> Iterator[str]:
    stage = f"  ·  stage {found.stage}" if found.stage else ""
    threads = f"{found.threads} thread{'s' * (found.threads > 1)}"
    yield (
        f"{found.name}  ·  {found.device}, {threads}  ·  engine {found.engine}  ·  "
        f"{found.precision}  ·  batches of {found.batch_rows}{stage}"
    )


def _pace(found: Profile) -> Iterator[str]:
    included = ", each with an epoch's end" if found.epoch_ends_included else ""
    yield (
        f"pace     {found.step_ms:.3g} ms a step{included}: {found.steps_per_s:,.0f} steps/s, "
        f"{found.samples_per_s:,.0f} samples/s  (over {found.steps} steps)"
    )
    yield (
        f"work     {found.step_flop / 1e6:,.1f} MFLOP a step: {found.flop_per_s / 1e9:,.1f} "
        f"GFLOP/s, {found.share_of_peak:.1%} of the {found.peak_flop_per_s / 1e9:,.1f} GFLOP/s "
        "of a matrix product here"
    )
    yield f"memory   {found.peak_memory_growth / 1e6:,.0f} MB at most, over what was held before"
    if found.trace is None:
        yield "trace    none: -o FILE.json writes one for ui.perfetto.dev"
    else:
        yield f"trace    {found.trace}  written; ui.perfetto.dev shows it"


def _phases(found: Profile) -> Iterator[str]:
    on_gpu = any(phase.device_ms is not None for phase in found.phases)
    rows = [["phase", "ms a step", "share", *(["of the GPU, ms"] if on_gpu else [])]]
    for phase in found.phases:
        row = [phase.phase, f"{phase.ms:.3f}", f"{phase.share:.1%}"]
        rows.append([*row, *([f"{phase.device_ms:.3f}"] if on_gpu else [])])
    slower = found.profiled_step_ms / found.step_ms
    rows.append(["in all", f"{found.profiled_step_ms:.3f}", "100.0%"])
    yield from _aligned(rows)
    yield f"under the profiler, which makes a step {slower:.1f} times as long: go by the shares"


def _components(found: Profile) -> Iterator[str]:
    if not found.components:
        yield "the step is one graph: --set training.engine=eager shows its components"
        return
    rows = [["component", "forward, ms", "backward, ms", "share of both"]]
    for part in found.components:
        times = (f"{part.forward_ms:.3f}", f"{part.backward_ms:.3f}")
        rows.append([part.component, *times, f"{part.share:.1%}"])
    yield from _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Names to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
    for name, *numbers in rows:
        aligned = (number.rjust(w) for number, w in zip(numbers, widths[1:], strict=False))
        yield "  ".join([name.ljust(widths[0]), *aligned]).rstrip()
