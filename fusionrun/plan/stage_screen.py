"""A plan's stages as text: what trains in each, on how many rows, at which rates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fusionrun.data.own_rows import TRAIN
from fusionrun.data.parts import HOLDOUT
from fusionrun.plan.plan import Plan, StagePlan, Value
from fusionrun.plan.reasons import comment
from fusionrun.plan.screen import losses_in_words
from fusionrun.plan.sparkline import sparkline
from fusionrun.plan.text import Row, columns, counted, fits, literal

SPARK_WIDTH = 12


def stage_table(plan: Plan) -> list[str]:
    """A row for each group of components that a stage trains alike."""
    header = ("stage", "epochs", "trains", "rows", "base rate", "rate", "first → last")
    rows = [header, *_before(plan), *(row for stage in plan.stages for row in _rows(stage, plan))]
    for table in (rows, [row[:-1] for row in rows], [(*row[:3], row[4]) for row in rows]):
        lines = list(columns(table, right=(3, 4) if len(table[0]) > 4 else ()))
        if fits(lines):
            return lines
    return lines


def _before(plan: Plan) -> Iterator[Row]:
    for number, (name, own) in enumerate(plan.pretraining.items()):
        stage = "" if number else "pretrain"
        yield _row(stage, str(own.epochs), f"{name} alone", own.rows, own.lr, own.rates)


def _rows(stage: StagePlan, plan: Plan) -> Iterator[Row]:
    span = f"{stage.first_epoch + 1} to {stage.end}" if stage.epochs > 1 else str(stage.end)
    word, rows = str(stage.stage), plan.data.sizes[TRAIN]
    for (lr, rates), names in _alike(stage, plan).items():
        yield _row(word, span, _listed(names, plan), rows, lr, rates)
        word = span = ""


def _row(stage: str, epochs: str, trains: str, rows: int, lr: float, rates: Sequence[float]) -> Row:
    ends = f"{rates[0]:.3g} → {rates[-1]:.3g}" if len(rates) > 1 else f"{rates[0]:.3g}"
    return (stage, epochs, trains, f"{rows:,}", f"{lr:g}", sparkline(rates, SPARK_WIDTH), ends)


def _alike(stage: StagePlan, plan: Plan) -> dict[tuple[float, tuple[float, ...]], list[str]]:
    """The components that move in a stage, together where their rates are the same."""
    found: dict[tuple[float, tuple[float, ...]], list[str]] = {}
    for name, component in plan.components.items():
        rates = component.rates[stage.first_epoch : stage.end]
        if component.parameters and any(rates):
            found.setdefault((stage.lrs[name], rates), []).append(name)
    return found


def _listed(names: list[str], plan: Plan) -> str:
    """All experts, and all heads, in a word each."""
    words = list[str]()
    for group in ("experts", "heads"):
        own = [name for name in names if name.startswith(f"{group}.")]
        everybody = sum(name.startswith(f"{group}.") for name in plan.components)
        words += [group] if len(own) == everybody > 1 else own
    return ", ".join([*words, *(name for name in names if "." not in name)])


def stage_facts(plan: Plan, states: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is to be said of stages below the table.

    Args:
        plan: with stages.
        states: how each expert's pretraining stands, in words, where somebody has looked.
    """
    for name, own in plan.pretraining.items():
        state = states.get(name, "")
        yield ("pretraining", f"{name}: run {own.run}" + (f" ({state})" if state else ""))
    if plan.pretraining:
        rows = counted(plan.data.sizes[TRAIN], "row")
        where = (
            f"on the {rows} of {HOLDOUT} that no expert has seen"
            if plan.data.own
            else f"on all {rows} of the training part"
        )
        yield ("fused run", f"starts from these experts and their heads, and trains {where}")


def stage_losses(plan: Plan) -> str:
    """The losses of each stage; in a word where all have the same."""
    words = {losses_in_words(plan, s.losses): None for s in plan.stages}
    if len(words) == 1:
        return next(iter(words))
    return "; ".join(f"{s.stage}: {losses_in_words(plan, s.losses)}" for s in plan.stages)


def why_by_stage(plan: Plan, key: str) -> Iterator[str]:
    """What a key is in each stage that resolves it for itself."""
    parts = [(f"pretrain {name}", own.values) for name, own in plan.pretraining.items()]
    parts += [(stage.stage, stage.values) for stage in plan.stages]
    for where, values in parts:
        if key in values:
            yield f"  in {where}: {literal(values[key].value)}"
            yield f"    {comment(values[key])}"
            yield from (f"    {step}" for step in values[key].steps)


def by_stage_as_json(plan: Plan, key: str) -> dict[str, Any]:
    """The same for programs: stage → value, source and reason."""
    parts: list[tuple[str, Mapping[str, Value]]] = [
        (f"pretrain.{name}", own.values) for name, own in plan.pretraining.items()
    ]
    parts += [(f"stages.{n}.{stage.stage}", stage.values) for n, stage in enumerate(plan.stages)]
    return {where: values[key]._asdict() for where, values in parts if key in values}
