"""A staged recipe → its plans: one of each expert's pretraining, and one of the fused run.

Each stage is planned by itself, as the recipe that it comes to, and the fused run is put together
of its stages: every schedule begins anew over the stage's own epochs. Nothing is trained here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, NamedTuple, cast

from fusionrun.data.header import DataSummary
from fusionrun.data.own_rows import TRAIN, OwnRows, narrowed
from fusionrun.data.parts import HOLDOUT
from fusionrun.errors import Problem, RecipeError
from fusionrun.plan.checks import read_data
from fusionrun.plan.plan import ComponentPlan, Plan, Pretraining, StagePlan, Value, Warn
from fusionrun.plan.resolve import resolve
from fusionrun.plan.rows import with_shares
from fusionrun.plan.stage_checks import pretrains
from fusionrun.plan.stage_sources import pretraining_source, stage_source
from fusionrun.plan.warn import warnings_of
from fusionrun.recipe.read import Source
from fusionrun.schema.base import AUTO
from fusionrun.store.layout import run_id

__all__ = ["Plans", "make_plans"]

_OF_STAGES: Final = ("learning_rates.", "schedulers.", "knowledge_transfer.")
_OF_PRETRAINING: Final = ("learning_rates.", "schedulers.experts.", "training.")
_NOT_OWN: Final = ("training.epochs", "training.selection.path")
"""What differs between a pretraining and the whole by what they are."""


class Plans(NamedTuple):
    """All that a recipe comes to.

    Attributes:
        plan: of the run that the recipe is: with stages, of the fused one.
        pretraining: of the runs that come before it, by the expert's name.
    """

    plan: Plan
    pretraining: Mapping[str, Plan]


def make_plans(source: Source, runs_dir: Path) -> Plans:
    """Resolve a recipe and all its stages.

    Raises:
        RecipeError: stages that do not fit each other or the rest, or whatever else is wrong.
        DataError: the data cannot be read.
        NotYetError: the data source is for a later version.
    """
    recipe = source.recipe
    summary = with_shares(source, read_data(source))
    if not recipe.stages:
        return Plans(resolve(source, summary, runs_dir), {})
    alone = pretrains(recipe)
    fused_on = OwnRows(HOLDOUT) if alone and recipe.data.fusion_holdout else None
    fused = narrowed(recipe.data, summary, fused_on)._replace(shares=summary.shares)
    before = tuple(n for n, e in recipe.experts.items() if alone or e.weights is not None)
    whole = resolve(source, fused, runs_dir, before if alone else ())
    parts = [
        (number, resolve(stage_source(source, number), fused, runs_dir, before))
        for number, stage in enumerate(recipe.stages)
        if stage.stage != "pretrain"
    ]
    pretraining = _pretraining(source, summary, runs_dir) if alone else {}
    return Plans(_joined(whole, source, parts, pretraining), pretraining)


def _pretraining(source: Source, summary: DataSummary, runs_dir: Path) -> dict[str, Plan]:
    """The plan of each expert alone, on its share."""
    experts, data = tuple(source.recipe.experts), source.recipe.data
    plans = {}
    for number, name in enumerate(experts):
        own = None if data.expert_shares == "shared" else OwnRows(TRAIN, number, len(experts))
        try:
            seen = narrowed(data, summary, own)
        except ValueError as error:
            raise RecipeError([_undrawn(source, error)]) from error
        alone = pretraining_source(source, 0, name, summary)
        plans[name] = resolve(alone, seen, runs_dir)
    return plans


def _undrawn(source: Source, error: ValueError) -> Problem:
    path = ("data", "expert_shares")
    return Problem(
        source.document.place(path),
        ".".join(path),
        got=f"{source.recipe.data.expert_shares}: {error}",
        expected="a split with stratify: true, or expert_shares: iid",
    )


def _joined(
    whole: Plan,
    source: Source,
    parts: Sequence[tuple[int, Plan]],
    pretraining: Mapping[str, Plan],
) -> Plan:
    """The fused run: the recipe as a whole, with the rates of its stages one after the other."""
    values = {key: _by_stage(key, value, parts) for key, value in whole.values.items()}
    stages, first = list[StagePlan](), 0
    for number, part in parts:
        stages.append(_stage(source, number, part, values, first))
        first += stages[-1].epochs
    components = {
        name: _component(component, [part for _, part in parts])
        for name, component in whole.components.items()
    }
    plan = replace(
        whole,
        values=values,
        components=components,
        stages=tuple(stages),
        pretraining={name: _before(own, name, values) for name, own in pretraining.items()},
    )
    return replace(plan, warnings=_warnings(plan, parts[-1][1], pretraining))


def _by_stage(key: str, value: Value, parts: Sequence[tuple[int, Plan]]) -> Value:
    """What each stage resolves for itself, as it goes by the stage's own epochs and rates."""
    if not key.startswith("schedulers.") or all(p.get(key) == value.value for _, p in parts):
        return value
    return Value(AUTO, "rule", "each stage's own, over its own epochs")


def _stage(
    source: Source, number: int, part: Plan, values: Mapping[str, Value], first: int
) -> StagePlan:
    stage = source.recipe.stages[number]
    return StagePlan(
        stage=cast(Literal["warmup", "joint"], stage.stage),
        first_epoch=first,
        epochs=stage.epochs,
        lrs={name: component.lr for name, component in part.components.items()},
        losses=part.losses[0],
        values=_own(part, values, _OF_STAGES),
    )


def _before(own: Plan, name: str, values: Mapping[str, Value]) -> Pretraining:
    component = own.components[f"experts.{name}"]
    return Pretraining(
        run=run_id(own.name, own.hash, own.seed),
        plan_hash=own.hash,
        epochs=own["training.epochs"],
        rows=own.data.sizes[TRAIN],
        lr=component.lr,
        rates=component.rates,
        values=_own(own, values, _OF_PRETRAINING),
    )


def _own(part: Plan, values: Mapping[str, Value], sections: tuple[str, ...]) -> dict[str, Value]:
    """What a part resolves otherwise than the whole."""
    return {
        key: value
        for key, value in part.values.items()
        if key.startswith(sections) and key not in _NOT_OWN
        if key in values and values[key].value != value.value
    }


def _component(whole: ComponentPlan, parts: Sequence[Plan]) -> ComponentPlan:
    """A component over all stages. Base rate, rules and schedule are those of the last one."""
    own = [part.components[whole.name] for part in parts]
    rates = [rate for part, c in zip(parts, own, strict=True) for rate in _rates(c, part)]
    frozen = whole.frozen_epochs
    return whole._replace(
        lr=own[-1].lr,
        rules=own[-1].rules,
        schedule=own[-1].schedule,
        rates=(*(0.0,) * frozen, *rates[frozen:]),
    )


def _rates(component: ComponentPlan, part: Plan) -> tuple[float, ...]:
    """A head that no loss of a stage reaches does not move there: weight decay would move it."""
    taught = part["knowledge_transfer.lambda_loss"] > 0
    taught |= part["knowledge_transfer.knowledge_distillation_weight"] > 0
    if component.name.startswith("heads.") and not taught and "fusion.dim" in part:
        return (0.0,) * len(component.rates)
    return component.rates


def _warnings(plan: Plan, last: Plan, pretraining: Mapping[str, Plan]) -> tuple[Warn, ...]:
    """Those of the last stage, where rates end, and those of the experts alone, told together."""
    first = plan.stages[-1].first_epoch
    components = {
        name: component._replace(
            rates=component.rates[first:],
            frozen_epochs=max(0, component.frozen_epochs - first),
        )
        for name, component in plan.components.items()
    }
    judged = replace(last, components=components, pretraining=plan.pretraining)
    return (*warnings_of(judged), *_warnings_before(pretraining))


def _warnings_before(pretraining: Mapping[str, Plan]) -> Iterator[Warn]:
    found: dict[str, list[str]] = {}
    for name, plan in pretraining.items():
        for code in dict.fromkeys(warning.code for warning in plan.warnings):
            found.setdefault(code, []).append(name)
    for code, names in found.items():
        if code == "class_missing_in_split" and pretraining[names[0]]["data.expert_shares"] == (
            "classes"
        ):
            continue  # (as it is asked for)
        warnings = pretraining[names[0]].warnings
        message = next(warning.message for warning in warnings if warning.code == code)
        yield Warn(code, f"pretraining of {', '.join(names)}: {message}")
