"""`fusionrun train` for a recipe with a sweep: every point a run of its own, all in one command.

Points whose networks have the same shapes are trained together, their steps as one; the others one
after the other. Given once more, it goes on with what has not completed.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import typer

from fusionrun.cli.options import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fusionrun.errors import FusionrunError
    from fusionrun.launch import Start
    from fusionrun.plan.sweep import Point
    from fusionrun.plan.together import Group
    from fusionrun.recipe.read import Source
    from fusionrun.store.layout import RunLayout


class Trained(NamedTuple):
    """What has become of a sweep.

    Attributes:
        points: all of them.
        layouts: their runs, in the same order.
        errors: of those that did not complete, by the run's id.
    """

    points: Sequence[Point]
    layouts: Sequence[RunLayout]
    errors: dict[str, FusionrunError]


def train_sweep(
    recipe: Path, settings: Sequence[str], runs_dir: Path, again: str, new: bool
) -> Trained:
    """Train here whatever is missing of a sweep.

    Args:
        recipe: the recipe.
        settings: arguments of `--set`.
        runs_dir: where runs live.
        again: the command that goes on with it.
        new: a new run for each point, whatever became of those before.

    Raises:
        KeyboardInterrupt: a person interrupted it; all runs are saved.
    """
    from fusionrun.launch import discard_unless_begun
    from fusionrun.plan.sweep import plan_points
    from fusionrun.plan.unsupported import refuse_unsupported

    source, points = plan_points(recipe, settings, runs_dir)
    for point in points:
        refuse_unsupported(point.plan)
    starts = [_start(point, source, runs_dir, new) for point in points]
    say("\n".join(_screen(points, starts)))
    trained = Trained(points, [start.layout for start in starts], {})
    left = [number for number, start in enumerate(starts) if not start.finished]
    try:
        for group in _groups(points, starts, left):
            _train(group, source, starts, trained)
    except KeyboardInterrupt:
        for number in left:
            discard_unless_begun(starts[number].layout)
        typer.echo(f"to go on with all that is missing: {again}", err=True)
        raise
    return trained


def _start(point: Point, source: Source, runs_dir: Path, new: bool) -> Start:
    from fusionrun.launch import go_on, prepare
    from fusionrun.submit.trainer import announce

    if new:
        return prepare(point.plan, source.text, runs_dir, new=True, first=announce)
    return go_on(point.plan, source.text, runs_dir)


def _screen(points: Sequence[Point], starts: Sequence[Start]) -> Iterator[str]:
    left = sum(not start.finished for start in starts)
    yield f"{points[0].plan.name}  ·  a sweep of {len(points)} points, {left} to train"
    yield ""
    width = max(len(str(point)) for point in points)
    for point, start in zip(points, starts, strict=True):
        state = "has completed" if start.finished else "to train"
        yield f"  {point!s:{width}}  {start.layout.id}  {state}"
    if left:
        yield ""


def _groups(points: Sequence[Point], starts: Sequence[Start], left: Sequence[int]) -> list[Group]:
    """Who is trained with whom, by the points' numbers; told before anything is trained."""
    from fusionrun.plan.together import Group, groups_of

    alone = {n: why for n in left if (why := _goes_on_alone(points[n], starts[n]))}
    others = [number for number in left if number not in alone]
    found = [
        Group(tuple(others[n] for n in group.numbers), group.why)
        for group in groups_of([points[number].plan for number in others])
    ]
    groups = sorted([*found, *(Group((number,), why) for number, why in alone.items())])
    for group in groups:
        if group.why:
            say(f"by itself   {starts[group.numbers[0]].layout.id}: {group.why}")
        else:
            say(f"together    {len(group.numbers)} runs of the same shapes, step by step")
    return groups


def _goes_on_alone(point: Point, start: Start) -> str:
    """Why a run is trained by itself that could be one of several by its plan."""
    from fusionrun.cli.train import interrupts_wait

    with interrupts_wait():
        import torch

        from fusionrun.train.checkpoint import engine_before
        from fusionrun.train.engines import TOGETHER
    if torch.cuda.is_available() and point.plan["training.device"] == "auto":
        return "there is a CUDA device here, and only on a CPU are steps computed together"
    before = engine_before(start.layout)
    return "" if before in (None, TOGETHER) else "it goes on as it began, by itself"


def _train(group: Group, source: Source, starts: Sequence[Start], trained: Trained) -> None:
    layouts = [starts[number].layout for number in group.numbers]
    first = trained.points[group.numbers[0]]
    if group.why:
        say(f"\n{first}")
        _train_alone(first, source, layouts[0], trained)
        return
    from fusionrun.errors import UserError
    from fusionrun.launch import discard_if_empty
    from fusionrun.train.several import run_together

    say(f"\n{len(layouts)} runs together; what follows are means over them")
    errors = run_together(layouts, _tell)
    for layout in layouts:
        if isinstance(errors.get(layout.id), UserError):
            discard_if_empty(layout)
    trained.errors.update(errors)


def _tell(layout: RunLayout, error: FusionrunError) -> None:
    """At once, while others are trained: a reader that went away is no reason to stop them."""
    with suppress(BrokenPipeError):
        typer.echo(f"fusionrun: {layout.id}: {error}", err=True)


def _train_alone(point: Point, source: Source, layout: RunLayout, trained: Trained) -> None:
    from fusionrun.cli.train import train_here
    from fusionrun.cli.train_stages import train_before
    from fusionrun.errors import FusionrunError

    try:
        train_before(point.pretraining, layout, source.text)
        train_here(layout)
    except FusionrunError as error:  # the others do not suffer for it
        _tell(layout, error)
        trained.errors[layout.id] = error


def refuse_incomplete(trained: Trained) -> None:
    """Raises TrainingError where a run did not complete; how to mend it was said when it ended."""
    from fusionrun.errors import TrainingError

    if not trained.errors:
        return
    lines = [f"  {name}: {str(e).partition(chr(10))[0]}" for name, e in trained.errors.items()]
    what = f"{len(lines)} of {len(trained.points)} runs did not complete"
    raise TrainingError("\n".join([what, *lines]))
