"""The batch script of a run: a pure function from what is asked to text, the same each time.

The text comes from `templates/job.sbatch.j2` or a user's own template, in a sandbox: a name that
is misspelt there is an error, and every value is quoted for bash where it stands.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fusionrun.errors import UserError
from fusionrun.resources import shipped
from fusionrun.slurm.quoting import Verbatim, file_pattern, quoted, refuse_control_characters
from fusionrun.slurm.request import options, processes_per_node, world_size
from fusionrun.store.layout import RunLayout, slug

__all__ = ["COMMENT", "Job", "header", "render"]

COMMENT: Final = "fusionrun:"
"""What the comment of every job begins with; the run's id follows."""

TEMPLATE: Final = "job.sbatch.j2"


@dataclass(frozen=True)
class Job:
    """Everything that the script says.

    Attributes:
        run_id: of the run; of an array, what its runs have in common.
        name: the recipe's, any printable text.
        run_dir: absolute; of an array, the directory of its records.
        python: absolute path of the interpreter that submits.
        pythonpath: what stands before everything else there: the snapshot.
        settings: the resolved `slurm` section, plain.
        after: text of `--dependency`, or None.
        array: number of tasks and how many run at once (None: all); None for a single run. Task
            i trains the run whose directory stands in line i (from 0) of `points.txt` in run_dir.
        template: a user's own template, as text.
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
        UserError: the user's template is wrong, or something holds a control character.
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
    text = job.template
    if text is None:
        text = (shipped("templates") / TEMPLATE).read_text(encoding="utf-8")
    try:
        return environment.from_string(text).render(_context(job))
    except TemplateError as error:
        number = getattr(error, "lineno", None)
        line = f" line {number}" if number else ""
        raise UserError(f"the batch script's template{line}: {error}") from error


def header(text: str) -> dict[str, str]:
    """The options of a script's `#SBATCH` lines, as Slurm reads them: up to the first command.

    Returns:
        Option → value; empty for one that takes none.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("#SBATCH "):
            (word,) = shlex.split(line.removeprefix("#SBATCH "), comments=True)
            option, _, value = word.removeprefix("--").partition("=")
            found[option] = value
        elif line.strip() and not line.startswith("#"):
            break
    return found


def _context(job: Job) -> dict[str, Any]:
    settings, layout = job.settings, RunLayout(Path(job.run_dir))
    refuse_control_characters(job.name)
    container = settings["container"]
    return {
        "job": job,
        "options": [_option(name, value) for name, value in _header(job, layout)],
        "setup": [(Verbatim(line), line) for line in settings["setup"]],
        "env": [(Verbatim(name), value) for name, value in settings["env"].items()],
        "pythonpath": ":".join(job.pythonpath),
        "world_size": Verbatim(str(world_size(settings))),
        "processes_per_node": Verbatim(str(processes_per_node(settings))),
        "cpus": Verbatim(str((settings["cpus_per_task"] or 1) * processes_per_node(settings))),
        "nodes": Verbatim(str(settings["nodes"])),
        "launcher": settings["launcher"],
        "stop_file": layout.stop_request.name,
        "points_file": str(layout.points),
        "log_dir": layout.logs.name,
        "log_file": str(layout.log.relative_to(layout.root)),
        "inside": _inside(container, job, settings),
        "container": container is not None,
    }


def _header(job: Job, layout: RunLayout) -> list[tuple[str, str | None]]:
    log = layout.log
    lines: list[tuple[str, str | None]] = [
        ("job-name", slug(job.name)),
        ("comment", f"{COMMENT}{job.run_id} {job.name}"[:1024]),
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
    return Verbatim(f"--{name}" if value is None else f"--{name}={quoted(value)}")


def _inside(
    container: Mapping[str, Any] | None, job: Job, settings: Mapping[str, Any]
) -> list[str]:
    """The words before the innermost command: what runs it inside an image."""
    if container is None:
        return []
    gpus = settings["gpus_per_node"] or "gpu" in (settings["gres"] or "")
    binds = [job.run_dir, *job.pythonpath, *container["binds"]]
    words = ["apptainer", "exec", *(["--nv"] if gpus else [])]
    words += [word for bind in dict.fromkeys(binds) for word in ("--bind", bind)]
    return [*words, container["image"]]
