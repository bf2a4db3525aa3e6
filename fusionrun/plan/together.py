"""Which runs of a sweep are trained together in one process, their steps as one, and why not.

A rule of plans alone: what is trained together is known before anything is trained. Two runs can
be where their networks have the same shapes and their losses the same terms; seeds, folds, rates,
schedules, clips, decays, loss weights, optimizers, lengths and accumulation may differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Any, Final, NamedTuple

from fusionrun.plan.plan import Plan

__all__ = ["MOST_BYTES", "MOST_RUNS", "Group", "groups_of"]

MOST_RUNS: Final = 32
"""Runs of a group. From some eight on a step takes no less for each (measured on the digits)."""

MOST_BYTES: Final = 2 << 30
"""Of a group: models, their gradients and moments, and each run's rows as float32. Assumed: what
a small machine can spare."""

_FLOAT_BYTES: Final = 4
# What of a plan decides the shapes of a step, besides experts, data and which terms the loss has.
_ALIKE: Final = (
    "training.batch_size",
    "training.threads",
    "training.deterministic",
    "training.matmul_precision",
    "training.device",
    "knowledge_transfer.temperature",
    "knowledge_transfer.teacher",
)
# Keys of an expert that its weights begin with, and no shape.
_NO_SHAPE: Final = ("weights", "view")


class _Shape(NamedTuple):
    """What plans of one group share.

    Attributes:
        networks: what decides the shapes of their networks, in words that compare.
        terms: which losses there are.
        values: of the keys that must be alike.
    """

    networks: str
    terms: tuple[bool, ...]
    values: tuple[Any, ...]


class Group(NamedTuple):
    """Runs that are trained together; or one that is not.

    Attributes:
        numbers: which of the plans, in their order.
        why: one: why it is trained by itself; empty where there are several.
    """

    numbers: tuple[int, ...]
    why: str = ""


def groups_of(plans: Sequence[Plan]) -> list[Group]:
    """Who is trained with whom, in the order of the first of each group."""
    alike: dict[_Shape, list[int]] = {}
    found = []
    for number, plan in enumerate(plans):
        if why := next(_obstacles(plan), ""):
            found.append(Group((number,), why))
        else:
            alike.setdefault(_shape(plan), []).append(number)
    for shape, own in alike.items():
        if len(own) == 1:
            found.append(Group(tuple(own), _like_no_other(shape, alike)))
        else:
            found += _parts(plans, own)
    return sorted(found)


def _parts(plans: Sequence[Plan], numbers: Sequence[int]) -> Iterator[Group]:
    """Several runs of one shape, in groups that memory has room for."""
    most, why = _most(plans[numbers[0]]), ""
    if most == 1:
        why = f"two runs like it take more than {MOST_BYTES >> 30} GiB"
    elif len(numbers) > most:
        why = f"{most} others of the same shapes are a group already"
    for start in range(0, len(numbers), most):
        own = tuple(numbers[start : start + most])
        yield Group(own, "" if len(own) > 1 else why)


def _obstacles(plan: Plan) -> Iterator[str]:
    """What the steps of several runs cannot do as one."""
    if plan.stages or plan.pretraining:
        yield "it has stages"
    for name in plan.settings.experts:
        component = plan.components[f"experts.{name}"]
        if (model := plan[f"experts.{name}.model"]) != "mlp":
            yield f"experts.{name} is a {model}, and only mlps are computed together"
        if component.frozen_epochs:
            yield f"experts.{name} is frozen"
    if (engine := plan["training.engine"]) != "eager":
        only = "only eager steps are computed together"
        by_rule = plan.values["training.engine"].source == "rule"
        asked = f"; 'training.engine: eager' would let it be (auto: {engine})" if by_rule else ""
        yield f"training.engine is {engine}, and {only}{asked}"
    if (precision := plan["training.precision"]) != "float32":
        yield f"training.precision is {precision}"
    if plan["training.device"] == "cuda":
        yield "training.device is cuda"
    for key, only in (("gradient_combination", "sum"), ("loss_weighting", "static")):
        if (kind := plan[f"knowledge_transfer.{key}"]) != only:
            yield f"knowledge_transfer.{key} is {kind}"
    if plan["knowledge_transfer.cross_expert_attention"]:
        # (torch.func.vmap has no rule for its kernel, and would take one run after the other)
        yield "the experts attend to each other (cross_expert_attention)"
    if not any(plan.losses[0].values()):
        yield "its heads learn nothing (lambda_loss 0, no distillation)"
    if not plan.settings.fusion.module.startswith("fusionrun."):
        yield f"fusion.type {plan['fusion.type']} is another package's"


def _like_no_other(shape: _Shape, shapes: Iterable[_Shape]) -> str:
    """Why a run of this shape is with none of the others, each of another one."""
    others = [other for other in shapes if other != shape and other.networks == shape.networks]
    if not others:
        return "no other run to train has networks of the same shapes"
    nearest = min((_differ(shape, other) for other in others), key=len)
    return f"the run most like it has another {' and another '.join(nearest)}"


def _differ(one: _Shape, other: _Shape) -> list[str]:
    """In what, but for the networks."""
    values = zip(_ALIKE, one.values, other.values, strict=True)
    terms = [] if one.terms == other.terms else ["set of losses"]
    return [*(key for key, own, its in values if own != its), *terms]


def _shape(plan: Plan) -> _Shape:
    experts = [
        (name, plan.data.views[expert.view], _leaves(plan, f"experts.{name}."))
        for name, expert in plan.settings.experts.items()
    ]
    return _Shape(
        repr((experts, _leaves(plan, "fusion."), len(plan.data.classes))),
        tuple(weight > 0 for weight in plan.losses[0].values()),
        tuple(plan[key] for key in _ALIKE),
    )


def _leaves(plan: Plan, start: str) -> str:
    """The values below a key, in words that compare."""
    keys = [key for key in plan.values if key.startswith(start)]
    return repr([(k, plan[k]) for k in keys if k.removeprefix(start) not in _NO_SHAPE])


def _most(plan: Plan) -> int:
    """How many runs like this one may be together."""
    numbers = sum(prod(plan.data.views[e.view]) for e in plan.settings.experts.values())
    own = plan.memory.total + _FLOAT_BYTES * numbers * plan.data.rows
    return max(1, min(MOST_RUNS, MOST_BYTES // own))
