"""Finding a run by what a person types, and making room for a new one.

A run is a directory with a plan; one that has lost it is told of. Nothing here reads more of a
run than when it started.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from difflib import get_close_matches
from operator import itemgetter
from pathlib import Path
from shlex import quote

from fusionrun.errors import RunNotFoundError, UserError
from fusionrun.regular import read_regular
from fusionrun.store.layout import RunLayout, slug

__all__ = [
    "create_run",
    "elsewhere",
    "find_run",
    "find_runs",
    "list_runs",
    "newest_with",
    "next_free",
    "no_runs",
    "planless",
    "planless_notes",
    "runs_dir",
    "runs_named",
    "typed",
]

_ELSEWHERE = "Look elsewhere with --runs DIR or the environment variable FUSIONRUN_RUNS."
_SHOWN = 10


def runs_dir(option: str | None) -> Path:
    """Where runs live: the option, else FUSIONRUN_RUNS, else `./runs`. It need not exist."""
    return Path(os.path.expanduser(option or os.environ.get("FUSIONRUN_RUNS") or "runs"))


def list_runs(runs_dir: Path) -> list[RunLayout]:
    """Every run in the directory, the newest first; none when there is no such directory.

    Raises:
        RunNotFoundError: the directory may not be read.
    """
    try:
        names = os.listdir(runs_dir)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunNotFoundError(f"{runs_dir}: {error.strerror}\n  {_ELSEWHERE}") from error
    runs = [RunLayout(runs_dir / name) for name in names if not name.startswith(".")]
    runs = [run for run in runs if _is_run(run)]
    return sorted(runs, key=lambda run: (-_started(run), run.id))


def planless(runs_dir: Path) -> list[RunLayout]:
    """Directories that hold records of a run and no plan, by name; none where nobody may look."""
    try:
        names = sorted(name for name in os.listdir(runs_dir) if not name.startswith("."))
    except OSError:
        return []
    return [run for run in (RunLayout(runs_dir / name) for name in names) if _lost_plan(run)]


def planless_notes(runs_dir: Path) -> list[str]:
    """What to say of each of them."""
    return [_without_plan(run) for run in planless(runs_dir)]


def find_run(runs_dir: Path, wanted: str | None) -> RunLayout:
    """The one run that is meant.

    Args:
        runs_dir: where runs live.
        wanted: a run's id, the path of its directory, the beginning of its id, or any part of it;
            tried in this order. None is the newest run.

    Raises:
        RunNotFoundError: none fits, or more than one.
    """
    if wanted is None:
        return _newest(runs_dir)
    found = find_runs(runs_dir, wanted)
    if len(found) > 1:
        raise _ambiguous(wanted, found, list_runs(runs_dir))
    return found[0]


def find_runs(runs_dir: Path, wanted: str) -> Sequence[RunLayout]:
    """All runs that may be meant, as `find_run` looks for one: those of a sweep by its name.

    Raises:
        RunNotFoundError: none fits.
    """
    is_id = wanted not in ("", ".", "..") and os.path.basename(wanted) == wanted
    by_id = RunLayout(runs_dir / wanted)
    if is_id and _is_run(by_id):
        return [by_id]
    by_path = RunLayout(Path(os.path.expanduser(wanted)))
    if wanted and _is_run(by_path):
        return [by_path]
    _refuse_planless(by_id if is_id else by_path)
    return _by_part(runs_dir, wanted)


def runs_named(runs_dir: Path, name: str) -> list[RunLayout]:
    """The newest run of each plan and seed of the recipes of exactly that name, by their ids."""
    is_of = re.compile(rf"({re.escape(slug(name))}-[0-9a-f]{{8}}-s\d+)(?:-(\d+))?")
    newest: dict[str, tuple[int, RunLayout]] = {}
    for run in list_runs(runs_dir):
        if found := is_of.fullmatch(run.id):
            number = int(found[2] or 1)
            newest[found[1]] = max(newest.get(found[1], (0, run)), (number, run), key=itemgetter(0))
    return [newest[identity][1] for identity in sorted(newest)]


def newest_with(runs_dir: Path, file: Callable[[RunLayout], Path], what: str) -> RunLayout:
    """The newest run that has a file, such as the manifest of its best weights.

    Args:
        runs_dir: where runs live.
        file: of a run, the file it must have.
        what: what the file stands for, in the words of an error.

    Raises:
        RunNotFoundError: there is no run, or none has the file.
    """
    newest = _newest(runs_dir)
    found = next((run for run in list_runs(runs_dir) if file(run).is_file()), None)
    if found is None:
        raise RunNotFoundError(f"no run in {runs_dir.absolute()} has {what}, {newest.id} neither")
    return found


def create_run(runs_dir: Path, run_id: str) -> RunLayout:
    """Makes a new, empty run directory, and the directory of runs when it is not there.

    Raises:
        UserError: the run exists already, or the directory cannot be made.
    """
    layout = RunLayout(runs_dir / run_id)
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        layout.root.mkdir()
    except OSError as error:
        if isinstance(error, FileExistsError) and runs_dir.is_dir():
            fix = f"{next_free(runs_dir, run_id)} is free; `fusionrun resume` continues a run."
            raise UserError(f"{layout.root}: there is such a run already\n  {fix}") from error
        why = error.strerror or str(error)
        raise UserError(f"{runs_dir}: no run can be made there: {why}\n  {_ELSEWHERE}") from error
    return layout


def next_free(runs_dir: Path, run_id: str) -> str:
    """`run_id` when no run bears it, else the first free of `<run_id>-2`, `<run_id>-3`, …"""
    free, number = run_id, 1
    while (runs_dir / free).exists():
        number += 1
        free = f"{run_id}-{number}"
    return free


def typed(layout: RunLayout, command: str) -> str:
    """A command about a run as it is typed here: where a bare one would look elsewhere, with
    `--runs`."""
    return f"fusionrun {command} {layout.id}{elsewhere(layout.root.parent)}"


def elsewhere(runs: Path) -> str:
    """What a command needs that is to look in this directory of runs: ` --runs DIR`, or nothing."""
    return "" if runs_dir(None).absolute() == runs.absolute() else f" --runs {quote(str(runs))}"


def _is_run(run: RunLayout) -> bool:
    # os.path: a directory of somebody else's, which we may not enter, is no run and no error.
    return os.path.isfile(run.plan)


def _lost_plan(run: RunLayout) -> bool:
    """A run that is just being made has none of these before its plan."""
    records = (run.status, run.events, run.metrics, run.checkpoints, run.all_components)
    return not os.path.lexists(run.plan) and any(map(os.path.exists, records))


def _without_plan(run: RunLayout) -> str:
    return (
        f"{run.root.absolute()}: its {run.plan.name} is gone, without which it is no run\n"
        "  Put it back, and the run is there again; or begin a new one of the recipe."
    )


def _refuse_planless(run: RunLayout) -> None:
    if _lost_plan(run):
        raise RunNotFoundError(_without_plan(run))


def _newest(runs_dir: Path) -> RunLayout:
    runs = list_runs(runs_dir)
    if not runs:
        raise _no_runs(runs_dir, "the newest run")
    return runs[0]


def _by_part(runs_dir: Path, wanted: str) -> Sequence[RunLayout]:
    runs = list_runs(runs_dir)
    # Empty is a shell variable that was not set: every run would fit, and none was meant.
    beginning = [run for run in runs if wanted and run.id.startswith(wanted)]
    found = beginning or [run for run in runs if wanted and wanted in run.id]
    for run in [] if found else planless(runs_dir):
        if wanted and wanted in run.id:
            _refuse_planless(run)
    if not runs:
        raise _no_runs(runs_dir, f"run {wanted!r}")
    if not found:
        raise _unknown(runs_dir, wanted, runs)
    return found


def no_runs(runs_dir: Path) -> str:
    """What to say of a directory without a run, or of one that is not there."""
    what = "no runs there" if runs_dir.is_dir() else "no such directory of runs"
    if lost := len(planless(runs_dir)):
        what = f"no runs there but {lost} without a {RunLayout(runs_dir).plan.name}"
    return f"{runs_dir.absolute()}: {what}\n  {_ELSEWHERE}"


def _no_runs(runs_dir: Path, wanted: str) -> RunNotFoundError:
    return RunNotFoundError(f"{wanted}: not found; {no_runs(runs_dir)}")


def _ambiguous(
    wanted: str, found: Sequence[RunLayout], runs: Sequence[RunLayout]
) -> RunNotFoundError:
    lines = "".join(f"\n  {run.id}" for run in found)
    hint = _how_to_name(found[0].id, [run.id for run in runs])
    return RunNotFoundError(f"{wanted!r} fits {len(found)} runs; say which:{lines}{hint}")


def _how_to_name(wanted: str, ids: Sequence[str]) -> str:
    """The shortest ending of an id that no other has, as an example; empty where none is."""
    parts = wanted.split("-")
    endings = ("-".join(parts[-n:]) for n in range(1, len(parts)))
    own = (end for end in endings if not any(end in other for other in ids if other != wanted))
    part = next(own, None)
    return f"\n  A part of the id that no other has is enough, such as {part}" if part else ""


def _unknown(runs_dir: Path, wanted: str, runs: Sequence[RunLayout]) -> RunNotFoundError:
    ids = [run.id for run in runs]
    near = get_close_matches(wanted, ids, n=3, cutoff=0.5)
    label = "did you mean:" if near else "the newest runs:"
    lines = "".join(f"\n  {name}" for name in near or ids[:_SHOWN])
    head = f"{wanted!r}: no such run in {runs_dir.absolute()}"
    return RunNotFoundError(f"{head}; {label}{lines}\n  {_ELSEWHERE}")


def _started(run: RunLayout) -> float:
    """Seconds since 1970: `started` of the status (a number or ISO 8601), else the plan's age."""
    try:
        started = json.loads(read_regular(run.status))["started"]
        if isinstance(started, str):
            return datetime.fromisoformat(started).timestamp()
        return float(started)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        pass  # queued and not yet started, or written by hand
    try:
        return run.plan.stat().st_mtime
    except OSError:
        return 0.0  # removed while we looked
