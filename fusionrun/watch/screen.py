"""Runs on the screen: a table of all, or all of one. What it prints is plain where it is piped."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from fusionrun.durations import slices_in_words
from fusionrun.slurm.checks import time_s
from fusionrun.slurm.words import expected_start
from fusionrun.watch.columns import NOTHING, Justify, fitted
from fusionrun.watch.files import number, text
from fusionrun.watch.look import LOST, Look, SeenRun
from fusionrun.watch.progress import slices_left
from fusionrun.watch.reasons import refusal
from fusionrun.watch.state import ENDED

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = [
    "LOG_LINES",
    "damage_notes",
    "print_run",
    "printable",
    "run_lines",
    "span",
    "summary",
    "table",
    "unreachable_note",
]

LOG_LINES: Final = 15
"""Of the log, under a run that has ended badly."""

STYLES: Final = {
    "running": "green",
    "starting": "green",
    "completed": "bold green",
    "queued": "cyan",
    "requeued": "cyan",
    "stopping": "yellow",
    "stopped": "yellow",
    "hung?": "bold red",
    "failed": "bold red",
    "rejected": "bold red",
    "lost": "bold red",
}
LABEL_WIDTH: Final = 12
LEAST_WIDTH: Final = 20

BAD: Final = frozenset({"failed", "lost", "hung?"})
"""States under which the end of the log is shown."""


def span(seconds: float | None) -> str:
    """A duration in five characters or fewer: `45s`, `12m`, `3h05m`, `2d04h`."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    left = round(seconds)
    if left < 100:
        return f"{left}s"
    minutes = round(left / 60)
    if minutes < 100:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h{minutes:02}m"
    days, hours = divmod(hours, 24)
    return f"{days}d{hours:02}h" if days < 100 else f"{days}d"


def printable(line: str) -> str:
    """A line of somebody else's without what would steer a terminal."""
    shown = line.rstrip("\r").rpartition("\r")[2]
    return "".join(
        c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in shown
    )


def unreachable_note(seen: Look, *, of_one: bool = False) -> str:
    """What to say where the scheduler could not be asked; empty where it could.

    Args:
        seen: the look.
        of_one: it is shown as one run, not as a table.
    """
    if seen.unreachable is None or seen.is_certain:
        return ""
    known = "The state is the last known one." if of_one else _MARKED
    return f"{seen.unreachable}\n{known}"


_MARKED: Final = "States with a * are the last known ones."


_COLUMNS: Final[dict[str, Justify]] = {
    "run": "left",
    "state": "left",
    "epoch": "right",
    "step": "right",
    "%": "right",
    "ETA": "right",
    "left": "right",
    "beat": "right",
    "tries": "right",
}


def table(seen: Look, width: int) -> Table:
    """All runs, a line each, for a screen of so many columns."""
    # Where it is too narrow the steps go, whose percentage stays.
    return fitted([_cells(run) for run in seen.runs], _COLUMNS, width, least=("step",))


def summary(seen: Look) -> str:
    """How many runs there are of each state: `50 runs: 3 running, 47 completed`."""
    counts = Counter(run.state.word for run in seen.runs)
    runs = f"{len(seen.runs)} run{'' if len(seen.runs) == 1 else 's'}"
    return f"{runs}: " + ", ".join(f"{count} {word}" for word, count in counts.most_common())


def _cells(run: SeenRun) -> dict[str, Text]:
    from rich.text import Text

    facts, word = run.facts, run.state.word
    marked = word if run.state.certain else f"{word}*"
    percent = run.progress.percent
    over = word in ENDED
    texts = {
        "epoch": _of(facts.epoch, facts.epochs),
        "step": _of(facts.step, facts.steps),
        # Down, so that 100 means that nothing is left.
        "%": NOTHING if percent is None else str(math.floor(percent)),
        "ETA": NOTHING if over else span(run.progress.eta_s),
        "left": span(run.time_left_s),
        "beat": NOTHING if over else span(run.heartbeat_age_s),
        "tries": str(facts.attempts),
    }
    cells = {name: Text(text) for name, text in texts.items()}
    return cells | {"run": Text(facts.id), "state": Text(marked, style=STYLES.get(word, ""))}


def _of(done: int, total: int) -> str:
    if not total:
        return str(done) if done else NOTHING
    return f"{done}/{total}"


def run_lines(seen: Look) -> Iterator[tuple[str, str]]:
    """All of one run, as pairs of a label and a line."""
    (run,) = seen.runs
    facts, state = run.facts, run.state
    yield "run", facts.id
    known = "" if state.certain else " (last known)"
    yield "state", f"{state.word}{known}" + (f": {state.why}" if state.why else "")
    if state.advice:
        yield "what to do", state.advice
    refused = text(facts.last_event("rejected"), "words")
    if refused and state.word != "rejected":
        yield "refused", f"when it was last to go on: {refusal(refused, facts.id)}"
    yield from _progress_lines(run)
    if run.heartbeat_age_s is not None:
        where = f", process {facts.pid} on {facts.host}" if facts.host else ""
        yield "heartbeat", f"{span(run.heartbeat_age_s)} ago{where}"
    yield from _job_lines(run)
    yield from _record_lines(run)
    yield "directory", str(facts.layout.root)


def _record_lines(run: SeenRun) -> Iterator[tuple[str, str]]:
    facts = run.facts
    if facts.checkpoint is not None:
        yield "checkpoint", f"of step {facts.checkpoint:,}"
    for name, why in facts.damaged:
        yield "damaged", f"{name}: {why}"
    for obstacle in facts.obstacles:
        yield "damaged", f"{obstacle.record}: {obstacle.wrong}"
    if facts.lost:
        yield "damaged", f"{facts.layout.submission.name}: {LOST}"
    if facts.status_damage:
        yield "damaged", damaged_status(run)


def damaged_status(run: SeenRun) -> str:
    """What to say of a run whose status tells nothing."""
    name, why = run.facts.layout.status.name, run.facts.status_damage
    return f"{name}: {why}; how it stands is told from its other records"


def damage_notes(seen: Look) -> list[str]:
    """What to say under a table of the runs whose status tells nothing."""
    damaged = [run for run in seen.runs if run.facts.status_damage]
    return [f"{run.facts.id}: {damaged_status(run)}" for run in damaged]


def _progress_lines(run: SeenRun) -> Iterator[tuple[str, str]]:
    facts = run.facts
    if facts.steps:
        pace = f", {facts.step_s:.3g} s a step" if facts.step_s else ""
        yield (
            "progress",
            f"epoch {_of(facts.epoch, facts.epochs)}, step {facts.step:,}/{facts.steps:,} "
            f"({run.progress.percent or 0.0:.1f} %){pace}",
        )
    if facts.attempts:
        yield "attempts", str(facts.attempts)
    if run.state.word in ENDED or not run.progress.eta_s:
        return
    words = f"about {span(run.progress.eta_s)} of training"
    if run.time_left_s is not None:
        words += f"; the job's time limit comes in {span(run.time_left_s)}"
    limit_s = time_s(text(facts.slurm, "time")) if facts.executor == "slurm" else None
    slices = slices_left(run.progress.eta_s, limit_s, number(facts.slurm, "grace") or 0.0)
    if slices is not None:
        words += f"; {slices_in_words(slices, span(limit_s))}"
    yield "left", words


def _job_lines(run: SeenRun) -> Iterator[tuple[str, str]]:
    facts, job = run.facts, run.job
    if job is None:
        if facts.jobs:
            what = "process" if facts.executor == "local" else "job"
            yield "job", f"{what} {facts.jobs[-1].id}"
        return
    parts = [f"{job.handle} {job.state}"]
    parts += [f"on {job.nodes}"] if job.nodes else []
    if job.start and (job.state == "PENDING" or job.nodes):  # (else it was never begun)
        waits, started = job.state == "PENDING", job.start.replace("T", " ")
        parts.append(f"start {expected_start(job.start)}" if waits else f"started {started}")
    yield "job", ", ".join(parts)


def print_run(seen: Look, console: Console) -> None:
    """All of one run, and where it ended badly what its first failing rank and its log said."""
    from rich.text import Text

    (run,) = seen.runs
    for label, line in run_lines(seen):
        style = STYLES.get(run.state.word, "") if label == "state" else ""
        first, *rest = wrap(printable(line), max(LEAST_WIDTH, console.width - LABEL_WIDTH)) or [""]
        console.print(Text.assemble((f"{label:<{LABEL_WIDTH}}", "dim"), (first, style)))
        for part in rest:
            console.print(Text(" " * LABEL_WIDTH + part, style=style))
    for heading, lines in _said(run):
        console.print(Text(f"\n{heading}", style="bold"))
        for line in lines:
            console.print(Text(f"  {printable(line)}"), soft_wrap=True)


def _said(run: SeenRun) -> Iterator[tuple[str, Sequence[str]]]:
    if run.state.word not in BAD:
        return
    culprit = run.state.cause.culprit if run.state.cause else None
    if culprit and not culprit.known:
        others = len(run.facts.errors) - 1
        more = f"; {others} more failed after it" if others else ""
        who = f"rank {culprit.rank} on {culprit.host}"
        yield f"the first to fail: {who}{more}", culprit.traceback.rstrip().splitlines()
    if lines := _not_said_above(run):
        yield f"the end of {run.facts.layout.log}", lines


def _not_said_above(run: SeenRun) -> Sequence[str]:
    """The end of the log, but for the lines that say once more why the run stands so."""
    why = run.state.why
    return [line for line in run.facts.log if not why or why not in line][-LOG_LINES:]
