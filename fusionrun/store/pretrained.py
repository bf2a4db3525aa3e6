"""The runs that an expert can be taken from: of one plan, completed, and their weights there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from fusionrun.errors import ComponentError
from fusionrun.store.checkpoints import list_checkpoints
from fusionrun.store.layout import RunLayout
from fusionrun.store.manifest import read_manifest
from fusionrun.store.status import read_status

__all__ = ["Wanted", "completed_run", "needs_pretraining", "pretraining_states"]


class Wanted(Protocol):
    """A run that comes before another one."""

    @property
    def run(self) -> str:
        """Its id, unless a directory of that name was there before."""

    @property
    def plan_hash(self) -> str:
        """Of its plan."""


def completed_run(wanted: Wanted, runs_dir: Path) -> RunLayout | None:
    """The newest run of a plan that has completed, and has weights; None where there is none.

    Only its manifest is read: whoever loads the weights verifies them.
    """
    for layout in reversed(list(_of_one_plan(wanted.run, runs_dir))):
        if read_status(layout).state == "completed" and _is_of(layout, wanted.plan_hash):
            return layout
    return None


def needs_pretraining(layout: RunLayout) -> bool:
    """Whether a run still has to take its experts: a checkpoint has them already."""
    return read_status(layout).state != "completed" and not list_checkpoints(layout.checkpoints)


def pretraining_states(wanted: Mapping[str, Wanted], runs_dir: Path) -> dict[str, str]:
    """How each of the runs stands, in a word: by their own records alone."""
    return {name: _state(own, runs_dir) for name, own in wanted.items()}


def _state(wanted: Wanted, runs_dir: Path) -> str:
    if completed_run(wanted, runs_dir):
        return "completed"
    runs = list(_of_one_plan(wanted.run, runs_dir))
    return read_status(runs[-1]).state if runs else "not begun"


def _of_one_plan(run: str, runs_dir: Path) -> Iterator[RunLayout]:
    """`run`, `run-2`, … as far as there are any. A name that leads elsewhere is no run's."""
    name, number = run, 1
    while os.path.basename(run) == run and (runs_dir / name).is_dir():
        yield RunLayout(runs_dir / name)
        number += 1
        name = f"{run}-{number}"


def _is_of(layout: RunLayout, plan_hash: str) -> bool:
    try:
        return read_manifest(layout.components("best")).plan_hash == plan_hash
    except ComponentError:
        return False
