"""The batch script of a run: a pure function from what is asked to text, the same each time.

The text comes from `templates/job.sbatch.j2` or a user's own template, in a sandbox: a name that
is misspelt there is an error, and every value is quoted for bash where it stands. What a template
may use is what `_context` returns. A user's own must ask Slurm for what fusionrun relies on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fusionrun.errors import UserError
from fusionrun.regular import read_regular
from fusionrun.resources import shipped
from fusionrun.slurm.quoting import (
    Verbatim,
    file_pattern,
    quoted,
    refuse_control_characters,
    sbatch_quoted,
    sbatch_word,
)
from fusionrun.slurm.request import num_gpus, options, processes_per_node, world_size
from fusionrun.store.layout import RunLayout, slug

__all__ = ["COMMENT", "Job", "header", "render"]

COMMENT: Final = "fusionrun:"
"""What the comment of every job begins with; the run's id follows."""

TEMPLATE: Final = "job.sbatch.j2"

_NEEDED: Final = frozenset(
    {"comment", "chdir", "output", "open-mode", "signal", "requeue", "no-requeue"}
    | {"array", "dependency"}
)
"""Options without which a run is not found again, loses its log, or never stops in time."""

_CALLED: Final = ("fusionrun.job", "fusionrun.submit.after")
"""Modules that a script has to start: the training, and what decides how the job ends."""

_OF_A_TEMPLATE: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template's own expressions raise."""

_MOST_COMMENT: Final = 1024
"""Characters of a comment; assumed to be taken everywhere."""


@dataclass(frozen=True)
class Job:
    """Everything that the script says.

    Attributes:
        run_id: of the run; of an array, what its runs have in common.
        name: the recipe's, any printable text.
        run_dir: absolute; of an array, the directory of its records.
        python: absolute path of the interpreter that submits.
        pythonpath: what stands before everything else there: the snapshot's folders, its
            package first, then what the user has on it.
        settings: the resolved `slurm` section, plain.
        after: text of `--dependency`, or None.
        array: number of tasks and how many run at once (None: all); None for a single run. Task
            i trains the run whose directory stands in line i (from 0) of `points.txt` in run_dir.
        template: a user's own template, as text; None: the file that the settings name, or the
            one that ships.
    """

    run_id: str
    name: str
    run_dir: str
    python: str
    pythonpath: tuple[str, ...]
    settings: Mapping[str, Any]
    after: str | None = None
    array: tuple[int, int | None] | None = None
    template: str | None = None


def render(job: Job) -> str:
    """The script.

    Raises:
        UserError: the user's template is wrong, something holds a control character, or an image
            cannot see a directory of that name.
    """
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        undefined=StrictUndefined,
        finalize=quoted,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    own = _own_template(job)
    try:
        made = environment.from_string(_shipped() if own is None else own).render(_context(job))
    except (TemplateError, *_OF_A_TEMPLATE) as error:
        number = getattr(error, "lineno", None)
        line = f" line {number}" if number else ""
        raise UserError(f"the batch script's template{line}: {error}") from error
    if own is not None:
        _refuse_incomplete(made, job)
    return made


def _own_template(job: Job) -> str | None:
    named = job.settings.get("template")
    if job.template is not None or named is None:
        return job.template
    try:
        return read_regular(Path(named).expanduser()).decode("utf-8")
    except (OSError, RuntimeError, UnicodeDecodeError) as error:
        raise UserError(f"slurm.template: {named} cannot be read: {error}") from error


def _shipped() -> str:
    return (shipped("templates") / TEMPLATE).read_text(encoding="utf-8")


def _refuse_incomplete(text: str, job: Job) -> None:
    """What a user's template has left out, or put where Slurm does not look."""
    found = header(text)
    for name, value in _header(job, RunLayout(Path(job.run_dir))):
        if name in _NEEDED and found.get(name) != (value or ""):
            line = f"#SBATCH {_option(name, value)}"
            raise UserError(
                f"the batch script's template: expected the line {line!r} at its top. Fix: begin "
                "it as fusionrun's own does, with '{% for option in options %}', "
                "'#SBATCH {{ option }}', '{% endfor %}'"
            )
    top = len(_header_lines(text))
    if late := [line for line in text.splitlines() if line.startswith("#SBATCH")][top:]:
        raise UserError(
            f"the batch script's template: {late[0]!r} comes after the first command, where Slurm "
            "ignores it. Fix: move it to the top"
        )
    if missing := [name for name in _CALLED if name not in text]:
        raise UserError(
            f"the batch script's template: expected it to run '-m {missing[0]}'; without that the "
            "job would end as COMPLETED, whatever became of the training"
        )


def header(text: str) -> dict[str, str]:
    """The options of a script's `#SBATCH` lines, as Slurm reads them: up to the first command.

    Returns:
        Option → value; empty for one that takes none.

    Raises:
        UserError: a line holds another number of words than one.
    """
    words = [sbatch_word(line.removeprefix("#SBATCH")) for line in _header_lines(text)]
    split = (word.removeprefix("--").partition("=") for word in words)
    return {option: value for option, _, value in split}


def _header_lines(text: str) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("#SBATCH"):
            lines.append(line)
        elif line.strip() and not line.startswith("#"):
            break
    return lines


def _context(job: Job) -> dict[str, Any]:
    settings, layout = job.settings, RunLayout(Path(job.run_dir))
    refuse_control_characters(job.name)
    container = settings["container"]
    return {
        "job": job,
        "options": [_option(name, value) for name, value in _header(job, layout)],
        "setup": settings["setup"],
        "env": list(settings["env"].items()),
        "python": settings.get("python") or job.python,
        "finds_python": bool(settings["setup"]) and not (container or settings.get("python")),
        "pythonpath": ":".join(job.pythonpath),
        "snapshot": _snapshot(job.pythonpath),
        "world_size": Verbatim(str(world_size(settings))),
        "processes_per_node": Verbatim(str(processes_per_node(settings))),
        "cpus": Verbatim(str((settings["cpus_per_task"] or 1) * processes_per_node(settings))),
        "nodes": Verbatim(str(settings["nodes"])),
        "launcher": settings["launcher"],
        "stop_file": layout.stop_request.name,
        "points_file": str(layout.points),
        "log_dir": layout.logs.name,
        "log_file": str(layout.log.relative_to(layout.root)),
        "inside": Verbatim(" ".join(map(quoted, _inside(container, job)))),
        "container": container is not None,
    }


def _snapshot(pythonpath: tuple[str, ...]) -> list[str]:
    """The folders of the snapshot, which stand beside the first; the others are the user's own.

    Those are never demanded: what was there at the submit may be gone by now, and Python passes
    over an entry that is not there.
    """
    top = os.path.dirname(pythonpath[0]) if pythonpath else ""
    return [folder for folder in pythonpath if folder.startswith(f"{top}/")]


def _header(job: Job, layout: RunLayout) -> list[tuple[str, str | None]]:
    log = layout.log
    lines: list[tuple[str, str | None]] = [
        ("job-name", slug(job.name)),
        ("comment", f"{COMMENT}{job.run_id} {job.name}"[:_MOST_COMMENT]),
        ("chdir", job.run_dir),
        ("output", file_pattern(str(log.with_name(f"{log.stem}.out") if job.array else log))),
        ("open-mode", "append"),
        *options(job.settings),
    ]
    if job.array:
        tasks, at_once = job.array
        lines.append(("array", f"0-{tasks - 1}" + (f"%{at_once}" if at_once else "")))
    if job.after:
        lines += [("dependency", job.after), ("kill-on-invalid-dep", "yes")]
    return lines


def _option(name: str, value: str | None) -> Verbatim:
    return Verbatim(f"--{name}" if value is None else f"--{name}={sbatch_quoted(value)}")


def _inside(container: Mapping[str, Any] | None, job: Job) -> list[str]:
    """The words before the innermost command: what runs it inside an image."""
    if container is None:
        return []
    own = (job.run_dir, *job.pythonpath)
    _refuse_unbindable(own)
    words = ["apptainer", "exec", *(["--nv"] if num_gpus(job.settings) else [])]
    binds = dict.fromkeys([*own, *container["binds"]])
    words += [word for bind in binds for word in ("--bind", bind)]
    return [*words, container["image"]]


def _refuse_unbindable(paths: Iterable[str]) -> None:
    for path in paths:
        if "," in path or ":" in path:
            raise UserError(
                f"{path!r}: apptainer takes ',' and ':' for the ends of a path. Fix: keep the runs "
                "of a recipe with slurm.container in a directory without them (--runs)"
            )
