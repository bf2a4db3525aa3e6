"""`fusionrun train` for a recipe with a pretrain stage: each expert alone, then the fused run.

Given once more, it goes on where it was: what has completed is taken, what ended early goes on in
its own directory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from fusionrun.cli.options import say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fusionrun.launch import Start
    from fusionrun.plan.plan import Plan
    from fusionrun.plan.stages import Plans
    from fusionrun.recipe.read import Source
    from fusionrun.store.layout import RunLayout


def train_stages(plans: Plans, source: Source, runs_dir: Path, again: str, new: bool) -> RunLayout:
    """Train here whatever is missing of a staged recipe; returns the fused run.

    Args:
        plans: of the recipe.
        source: the recipe.
        runs_dir: where runs live.
        again: the command that goes on with it.
        new: make a new fused run, whatever became of those before.
    """
    from fusionrun.errors import FusionrunError
    from fusionrun.launch import begun, go_on, prepare
    from fusionrun.plan.screen import screen
    from fusionrun.store.layout import run_id
    from fusionrun.store.pretrained import needs_pretraining, pretraining_states
    from fusionrun.submit.trainer import announce

    plan = plans.plan
    states = pretraining_states(plan.pretraining, runs_dir)
    say(screen(plan, run_id(plan.name, plan.hash, plan.seed), states))
    earlier = None if new else begun(plan, runs_dir)
    before = plans.pretraining if earlier is None or needs_pretraining(earlier) else {}
    count = len(before) + 1
    try:
        for number, (name, alone) in enumerate(before.items(), 1):
            start = go_on(alone, source.text, runs_dir)
            _one(start, f"{number} of {count}: pretraining of {name}")
        start = (
            prepare(plan, source.text, runs_dir, new=True, first=announce)
            if new
            else go_on(plan, source.text, runs_dir)
        )
        _one(start, f"{count} of {count}: the fused run")
    except (FusionrunError, KeyboardInterrupt):
        typer.echo(f"to go on with all that is missing: {again}", err=True)
        raise
    return start.layout


def train_before(pretraining: Mapping[str, Plan], layout: RunLayout, text: str) -> None:
    """Train whatever is missing of the runs that a fused run, which is there, starts from."""
    from fusionrun.launch import go_on
    from fusionrun.store.pretrained import needs_pretraining

    for name, alone in pretraining.items() if needs_pretraining(layout) else ():
        _one(go_on(alone, text, layout.root.parent), f"pretraining of {name}")


def _one(start: Start, which: str) -> None:
    from fusionrun.cli.train import train_here

    note = start.note.removeprefix("run directory").strip()
    say(f"\n{which}\n{note}")
    if not start.finished:
        train_here(start.layout)
