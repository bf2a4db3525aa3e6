"""Which runs of a sweep are trained together in one process, their steps as one, and why not.

A rule of plans alone: what is trained together is known before anything is trained. Two runs can
be where their networks have the same shapes and their losses the same terms; seeds, folds, rates,
schedules, clips, decays, loss weights, optimizers, lengths and accumulation may differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    alike: dict[Any, list[int]] = {}
    apart = []
    for number, plan in enumerate(plans):
        if why := next(_obstacles(plan), ""):
            apart.append(Group((number,), why))
        else:
            alike.setdefault(_shape(plan), []).append(number)
    others = [number for own in alike.values() for number in own]
    for number in [own[0] for own in alike.values() if len(own) == 1]:
        why = _nobody_like(plans[number], [plans[n] for n in others if n != number])
        apart.append(Group((number,), why))
    many = [own for own in alike.values() if len(own) > 1]
    return sorted([*apart, *(part for own in many for part in _parts(plans, own))])


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


def _nobody_like(plan: Plan, others: Sequence[Plan]) -> str:
    """Why none of the others, which could be together with some, can be with this one."""
    networks = _networks(plan)
    found = [_differ(plan, other) for other in others if _networks(other) == networks]
    if not found:
        return "no other run to train has networks of the same shapes"
    nearest = min(found, key=lambda keys: len(keys))
    return f"the run most like it has another {' and another '.join(nearest)}"


def _differ(plan: Plan, other: Plan) -> list[str]:
    """In what plans with networks of the same shapes differ, of what a group shares."""
    terms = [] if _terms(plan) == _terms(other) else ["set of losses"]
    return [*(key for key in _ALIKE if plan[key] != other[key]), *terms]


def _shape(plan: Plan) -> Any:
    """What plans of one group share."""
    return (_networks(plan), _terms(plan), tuple(plan[key] for key in _ALIKE))


def _terms(plan: Plan) -> tuple[bool, ...]:
    return tuple(weight > 0 for weight in plan.losses[0].values())


def _networks(plan: Plan) -> Any:
    """What decides the shapes of a plan's networks."""
    experts = [
        (name, plan.data.views[expert.view], _leaves(plan, f"experts.{name}."))
        for name, expert in plan.settings.experts.items()
    ]
    return (repr(experts), _leaves(plan, "fusion."), len(plan.data.classes))


def _leaves(plan: Plan, start: str) -> str:
    """The values below a key, in words that compare."""
    keys = [key for key in plan.values if key.startswith(start)]
    return repr([(k, plan[k]) for k in keys if k.removeprefix(start) not in _NO_SHAPE])


def _most(plan: Plan) -> int:
    """How many runs like this one may be together."""
    numbers = sum(prod(plan.data.views[e.view]) for e in plan.settings.experts.values())
    own = plan.memory.total + _FLOAT_BYTES * numbers * plan.data.rows
    return max(1, min(MOST_RUNS, MOST_BYTES // own))
