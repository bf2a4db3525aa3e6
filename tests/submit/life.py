"""A recipe that trains long enough, and a run's commands as another process calls them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import list_runs

RECIPE = """\
version: 1
name: {name}
data: {{source: npz, path: package:handwritten_digits, label: label}}
experts:
  fourier: {{model: mlp, view: fourier, hidden: [4], features: 4}}
  zernike: {{model: mlp, view: zernike, hidden: [4], features: 4}}
fusion: {{type: concatenation}}
training: {{epochs: {epochs}, device: cpu, engine: eager}}
{more}
"""
# The commands, whether or not the program lists them.
PROGRAM = """\
import sys
import typer
from fusionrun.cli import cancel, options, plan, resume, runs, status, submit, train
app = typer.Typer(pretty_exceptions_enable=False)
for module in (cancel, plan, resume, runs, status, submit, train):
    command = getattr(module, module.__name__.rpartition(".")[2])
    app.command(command.__name__)(options.known_errors(command))
app()
"""
MANY = 5_000


def write_recipe(path: Path, name: str, epochs: int = MANY, more: str = "") -> Path:
    path.write_text(RECIPE.format(name=name, epochs=epochs, more=more))
    return path


def argv(*arguments: object) -> list[str]:
    return [sys.executable, "-c", PROGRAM, *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k != "FUSIONRUN_RUNS"}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def call(
    *arguments: object, cwd: Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv(*arguments),
        cwd=cwd,
        env=environment() if env is None else dict(env),
        capture_output=True,
        text=True,
        check=False,
    )


def until(what: str, is_so: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.05)


def only_run(folder: Path) -> RunLayout:
    (layout,) = list_runs(folder / "runs")
    return layout


def events(layout: RunLayout) -> list[str]:
    lines = layout.events.read_text().splitlines() if layout.events.exists() else []
    return [json.loads(line)["event"] for line in lines]
