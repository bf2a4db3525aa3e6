"""A plan: the recipe with every value resolved, each with its reason. Pure values, no torch.

`plan.json` in a run directory is a plan; the job that trains reads only that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from fusionrun.data.header import DataSummary
from fusionrun.errors import UserError
from fusionrun.plan.stage_plan import LOSS_WEIGHTS, Pretraining, StagePlan
from fusionrun.plan.value import Origin, Value, build, tuples, value_as_json
from fusionrun.schema.base import AUTO
from fusionrun.schema.recipe import Recipe

__all__ = [
    "ComponentPlan",
    "Memory",
    "Origin",
    "Plan",
    "Pretraining",
    "StagePlan",
    "Steps",
    "Value",
    "Warn",
    "Weights",
    "component_names",
    "tuples",
]

PLAN_FORMAT = 1
# What a run of the same weights and numbers may differ in: the hash leaves these out.
UNHASHED = ("name", "seed", "slurm", "tracking", "sweep", "training.checkpoints")


class Weights(NamedTuple):
    """Where a component's first weights come from.

    Attributes:
        path: a safetensors file.
        sha256: the content it must have.
        given: what the recipe says.
        prefix: what stands before the file's names in the component; empty: they are its own.
        left_out: the file's tensors that are not taken: a classifier.
    """

    path: str
    sha256: str
    given: str
    prefix: str = ""
    left_out: tuple[str, ...] = ()


class ComponentPlan(NamedTuple):
    """One component as it will be trained.

    Attributes:
        name: `experts.NAME`, `heads.NAME`, `fusion` or `global_head`.
        input_dim: an expert: width of the features it gives; a head: that it reads; fusion and
            global head: the fusion's `dim`.
        parameters: trainable numbers.
        lr: base rate.
        rates: one per epoch.
        rules: the rules that applied, ready to print.
        schedule: the scheduler with every number, `eta_min` included.
        clip: largest gradient norm of its clip group, or None.
        accumulation: batches between two steps.
        weights: what it starts from, or None for a fresh start.
        frozen_epochs: how many epochs it stays as it is at first, at a rate of 0; all of them for
            one that never trains.
        layer_decay, num_layers, base_width: how the rate is spread over its tensors, see
            `fusionrun.plan.spread.Spread`.
    """

    name: str
    input_dim: int
    parameters: int
    lr: float
    rates: tuple[float, ...]
    rules: tuple[str, ...]
    schedule: Mapping[str, Any]
    optimizer: str
    weight_decay: float
    clip: float | None
    accumulation: int
    weights: Weights | None = None
    frozen_epochs: int = 0
    layer_decay: float = 1.0
    num_layers: int = 0
    base_width: int | None = None

    @property
    def never_trains(self) -> bool:
        """Whether it is frozen in every epoch."""
        return self.frozen_epochs >= len(self.rates)

    def is_frozen(self, epoch: int) -> bool:
        """Whether it stays as it is in an epoch, counted from 0."""
        return epoch < self.frozen_epochs


class Steps(NamedTuple):
    """How many steps the run takes."""

    batches_per_epoch: int
    last_batch: int
    fusion_steps: int
    expert_steps: int


class Memory(NamedTuple):
    """Bytes that the model itself needs while training, activations not counted."""

    parameters: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.gradients + self.optimizer


class Warn(NamedTuple):
    """Something that is allowed and will probably disappoint."""

    code: str
    message: str


@dataclass(frozen=True)
class Plan:
    """Everything a job needs to know, and why.

    Attributes:
        values: every leaf of the recipe, resolved.
        components: by name, in the contract's order.
        data: what the data holds, and which of it trains here.
        steps: how many there are.
        memory: that the model needs.
        warnings: what is allowed and will probably disappoint.
        stages: the stages of this run, one after the other; empty: there is but one.
        pretraining: the run that each expert and its head come from, by the expert's name.
    """

    values: Mapping[str, Value]
    components: Mapping[str, ComponentPlan]
    data: DataSummary
    steps: Steps
    memory: Memory
    warnings: tuple[Warn, ...] = field(default=())
    stages: tuple[StagePlan, ...] = ()
    pretraining: Mapping[str, Pretraining] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        """The value of a dotted key. Building `settings` takes longer than all of a plan does."""
        return self.values[key].value

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a dotted key, or the default where the plan has no such key."""
        return self[key] if key in self.values else default

    def __contains__(self, key: str) -> bool:
        return key in self.values

    @property
    def losses(self) -> tuple[Mapping[str, float], ...]:
        """What `lambda_loss` and `knowledge_distillation_weight` are, in each stage."""
        if self.stages:
            return tuple(stage.losses for stage in self.stages)
        return ({name: self[f"knowledge_transfer.{name}"] for name in LOSS_WEIGHTS},)

    def stage_at(self, epoch: int) -> StagePlan | None:
        """The stage that an epoch, counted from 0, is of; None where there is but one."""
        return next((stage for stage in self.stages if stage.holds(epoch)), None)

    @cached_property
    def settings(self) -> Recipe:
        """The resolved recipe, typed. Per-component numbers stand in `components`.

        Raises:
            UserError: the plan was read back, and holds what no recipe can.
        """
        from fusionrun.plan.leaves import nest

        plain = {k: AUTO if _per_component(k, v.value) else v.value for k, v in self.values.items()}
        try:
            return Recipe.model_validate(nest(plain))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            said = "; ".join(str(error).splitlines()[:3])
            raise UserError(f"the plan is damaged ({said}); plan the recipe again") from error

    @cached_property
    def hash(self) -> str:
        """SHA-256 of what decides the run's numbers, seed and name left out.

        Of the recipe's mappings only the experts' has an order that counts: it is the order of
        the fusion's tensors.
        """
        content = {
            "values": {
                key: value.value
                for key, value in self.values.items()
                if not _is_below(key, UNHASHED)
            },
            "components": [(n, c.weights and c.weights.sha256) for n, c in self.components.items()],
            "data": self.data_content(),
            **self._staged_content(),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _staged_content(self) -> dict[str, Any]:
        """What stages add to what decides a run's numbers."""
        if not self.stages:
            return {}
        return {
            "stages": [stage.content() for stage in self.stages],
            "pretraining": {name: own.plan_hash for name, own in self.pretraining.items()},
        }

    def data_content(self) -> dict[str, Any]:
        """What the data's headers say, wherever its files lie."""
        held = self.data.to_json()
        return {part: what for part, what in held.items() if part not in {"files", "found"}}

    @property
    def name(self) -> str:
        """The recipe's name."""
        return str(self.values["name"].value)

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.values["seed"].value)

    @property
    def owners(self) -> tuple[str, ...]:
        """The components that have a rate of their own: a head has its expert's."""
        return tuple(name for name in self.components if not name.startswith("heads."))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: what `plan --json` prints and `plan.json` holds."""
        return {
            "format": PLAN_FORMAT,
            "name": self.name,
            "hash": self.hash,
            "components": {name: _component_as_json(c) for name, c in self.components.items()},
            "data": self.data.to_json(),
            "steps": self.steps._asdict(),
            "memory": {**self.memory._asdict(), "total": self.memory.total},
            "values": {key: value_as_json(value) for key, value in self.values.items()},
            "warnings": [warning._asdict() for warning in self.warnings],
            **self._staged_as_json(),
        }

    def _staged_as_json(self) -> dict[str, Any]:
        if not self.stages:
            return {}
        return {
            "stages": [stage.to_json() for stage in self.stages],
            "pretraining": {name: own.to_json() for name, own in self.pretraining.items()},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], source: str) -> Plan:
        """Read what `to_json` wrote.

        Raises:
            UserError: another format, or not a plan; names `source`.
        """
        if not isinstance(content, Mapping) or "format" not in content:
            raise UserError(f"{source}: not a plan: it has no 'format'; plan the recipe again")
        if content["format"] != PLAN_FORMAT:
            raise UserError(
                f"{source}: got plan format {content['format']!r}, expected {PLAN_FORMAT}: "
                "it was written by another version of fusionrun; plan the recipe again"
            )
        try:
            return cls._from_json(content)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise UserError(f"{source}: damaged ({problem}); plan the recipe again") from error

    @classmethod
    def _from_json(cls, content: Mapping[str, Any]) -> Plan:
        memory = {k: v for k, v in content["memory"].items() if k != "total"}
        plan = cls(
            values={k: build(Value, v) for k, v in content["values"].items()},
            components={k: _component(k, v) for k, v in content["components"].items()},
            data=DataSummary.from_json(content["data"]),
            steps=Steps(**content["steps"]),
            memory=Memory(**memory),
            warnings=tuple(Warn(**warning) for warning in content["warnings"]),
            stages=tuple(StagePlan.from_json(s) for s in content.get("stages", ())),
            pretraining={
                name: Pretraining.from_json(own)
                for name, own in content.get("pretraining", {}).items()
            },
        )
        _require_sound(plan)
        return plan


def _require_sound(plan: Plan) -> None:
    """Raises TypeError or KeyError for values that no plan has: nothing later meets them."""
    whole = [plan["seed"], *plan.steps, *plan.memory, plan.data.rows, *plan.data.sizes.values()]
    numbers = list[Any]()
    for component in plan.components.values():
        whole += [component.input_dim, component.parameters, component.accumulation]
        whole += [component.frozen_epochs, component.num_layers]
        whole.append(1 if component.base_width is None else component.base_width)
        numbers += [component.lr, *component.rates, component.clip or 0.0, component.layer_decay]
    for stage in plan.stages:
        whole += [stage.first_epoch, stage.epochs]
        numbers += [*stage.lrs.values(), *stage.losses.values()]
    whole += [size for shape in plan.data.views.values() for size in shape]
    words = [plan["name"], *plan.data.files.values(), *plan.data.views]
    words += [word for own in plan.pretraining.values() for word in (own.run, own.plan_hash)]
    for weights in filter(None, (component.weights for component in plan.components.values())):
        words += [*weights[:-1], *weights.left_out]
    for found, kind in ((whole, int), (numbers, int | float), (words, str)):
        for value in found:
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(f"{value!r} where a {kind} should be")


def _is_below(key: str, sections: tuple[str, ...]) -> bool:
    return key in sections or key.startswith(tuple(f"{section}." for section in sections))


def _per_component(key: str, value: Any) -> bool:
    return key.endswith(".eta_min") and isinstance(value, Mapping)


def _component_as_json(component: ComponentPlan) -> dict[str, Any]:
    content = component._asdict()
    del content["name"]  # (the key it stands under)
    return {**content, "weights": component.weights and component.weights._asdict()}


def _component(name: str, content: Mapping[str, Any]) -> ComponentPlan:
    weights = build(Weights, content["weights"]) if content["weights"] else None
    return build(ComponentPlan, {**content, "name": name, "weights": weights})


def component_names(experts: Mapping[str, Any]) -> Iterator[str]:
    """All components in the contract's order."""
    yield from (f"experts.{name}" for name in experts)
    yield from (f"heads.{name}" for name in experts)
    yield from ("fusion", "global_head")
