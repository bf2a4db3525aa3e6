"""The points of a recipe's `sweep:`. Each is the recipe with some keys set, planned like any other,
and all of them are planned before anything is trained.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fusionrun.errors import Problem, RecipeError, UserError
from fusionrun.plan.plan import Plan
from fusionrun.plan.stages import make_plans
from fusionrun.recipe.flow import flow
from fusionrun.recipe.read import Source, read_recipe
from fusionrun.schema.splits import FoldSplit, FractionSplit

if TYPE_CHECKING:
    from fusionrun.schema.several import Sweep

MAX_POINTS = 10_000
"""More than this is a slip of the pen."""

_FOLD = "data.split.fold"
_OF_ONE_KEY = {"folds": _FOLD, "seeds": "seed"}


class Point(NamedTuple):
    """One run of a sweep.

    Attributes:
        settings: dotted key → value, in the recipe's order; `seed` is one of them.
        plan: what comes of the recipe with them.
        pretraining: the plans of the runs that come before it, by the expert's name.
    """

    settings: Mapping[str, Any]
    plan: Plan
    pretraining: Mapping[str, Plan] = {}

    def __str__(self) -> str:
        return ", ".join(f"{key}={flow(value)}" for key, value in self.settings.items())

    def briefly(self) -> str:
        """The same for a narrow table: of each key its last part, where no other has that."""
        keys = list(self.settings)
        last = [key.rpartition(".")[2] for key in keys]
        pairs = zip(keys, last, strict=True)
        names = [own if last.count(own) == 1 else key for key, own in pairs]
        values = map(flow, self.settings.values())
        return ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))


def plan_points(
    recipe: Path, settings: Sequence[str], runs_dir: Path, site: Path | None = None
) -> tuple[Source, tuple[Point, ...]]:
    """Plan every point of a recipe's sweep.

    Args:
        recipe: the recipe's file.
        settings: arguments of `--set`; what the sweep sets lies on top of them.
        runs_dir: where `weights: run:…` are looked for.
        site: a file with a `slurm` section below the recipe's own.

    Returns:
        The recipe as it is written, and its points: the grid's combinations, the last key moving
        fastest, each with the zip's rows, each of those with every fold, each of them with every
        seed.

    Raises:
        UserError: the recipe has no sweep, or one of no points, of too many, or of twins.
        RecipeError: a point is no valid recipe; the places are those of the sweep's keys.
    """
    source = read_recipe(recipe, settings, site)
    sweep = source.recipe.sweep
    if sweep is None:
        raise UserError(f"{recipe}: has no 'sweep'; 'fusionrun plan' shows its one run")
    combinations = list(itertools.islice(_combinations(sweep), MAX_POINTS + 1))
    if not 0 < len(combinations) <= MAX_POINTS:
        raise UserError(
            f"{source.document.place(('sweep',))}: a sweep of {len(combinations) or 'no'} points; "
            f"expected grid, zip, folds or seeds that make 1 to {MAX_POINTS:,}"
        )
    base = [*settings, *_into_folds(source)]
    points = tuple(
        _point(own, source, lambda texts: read_recipe(recipe, [*base, *texts], site), runs_dir)
        for own in combinations
    )
    _refuse_twins(points, source)
    return source, points


def _combinations(sweep: Sweep) -> Iterator[dict[str, Any]]:
    rows = list(zip(*sweep.zip.values(), strict=True)) if sweep.zip else [()]
    folds = [{_FOLD: fold} for fold in range(sweep.folds or 0)] or [{}]
    seeds = [{"seed": seed} for seed in sweep.seeds] or [{}]
    if not (sweep.grid or sweep.zip or sweep.folds or sweep.seeds):
        return
    cells = itertools.product(*sweep.grid.values())
    for cell, row, fold, seed in itertools.product(cells, rows, folds, seeds):
        grid = dict(zip(sweep.grid, cell, strict=True))
        yield grid | dict(zip(sweep.zip, row, strict=True)) | fold | seed


def _into_folds(source: Source) -> list[str]:
    """The setting that makes folds of the recipe's split, if its sweep asks for folds.

    Shares of train and val stay in proportion: 0.6 and 0.2 of all rows become 0.75 and 0.25 of
    those that are not the fold's.
    """
    assert source.recipe.sweep is not None
    folds, split = source.recipe.sweep.folds, source.recipe.data.split
    if folds is None:
        return []
    if not isinstance(split, FractionSplit | FoldSplit):
        expected = "a split by shares or folds: the parts of these data are as they are"
        place = source.document.place(("sweep", "folds"))
        raise RecipeError([Problem(place, "sweep.folds", str(folds), expected)])
    val = split.val / (split.train + split.val) if isinstance(split, FractionSplit) else split.val
    own = {"folds": folds, "val": val, "stratify": split.stratify, "seed": split.seed}
    return [f"data.split={flow(own)}"]


def _point(
    own: Mapping[str, Any],
    source: Source,
    read: Callable[[Sequence[str]], Source],
    runs_dir: Path,
) -> Point:
    # A point is one run, and has no sweep of its own.
    texts = ["sweep=null", *(f"{key}={flow(value)}" for key, value in own.items())]
    try:
        return Point(own, *make_plans(read(texts), runs_dir))
    except RecipeError as error:
        raise RecipeError([_in_the_sweep(p, own, source) for p in error.problems]) from error


def _in_the_sweep(problem: Problem, own: Mapping[str, Any], source: Source) -> Problem:
    """The problem of a point, told where the sweep's value stands in the recipe."""
    for part in ("grid", "zip", "folds", "seeds"):
        for key in own:
            path = ("sweep", part) if part in _OF_ONE_KEY else ("sweep", part, key)
            is_it = problem.key == key or problem.key.startswith((f"{key}.", f"{key}["))
            if is_it and source.document.has(path) and _OF_ONE_KEY.get(part, key) == key:
                return problem._replace(place=source.document.place(path, "key"))
    return problem


def _refuse_twins(points: Sequence[Point], source: Source) -> None:
    seen: dict[tuple[str, int], Point] = {}
    for point in points:
        identity = (point.plan.hash, point.plan.seed)
        if identity in seen:
            raise UserError(
                f"{source.document.place(('sweep',))}: two points are the same run:\n"
                f"  {seen[identity]}\n  {point}\neach value of a key can stand there once"
            )
        seen[identity] = point
