"""What a plan holds of its stages: those of its own run, and the runs that come before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from fusionrun.plan.value import Value, build, value_as_json

LOSS_WEIGHTS: Final = ("lambda_loss", "knowledge_distillation_weight")
"""The keys of `knowledge_transfer` that a stage may have for itself."""


class StagePlan(NamedTuple):
    """One stage of a run.

    Attributes:
        stage: its kind.
        first_epoch: the first one of it, counted from 0 over all stages of the run.
        epochs: how many it has.
        lrs: base rate by component.
        losses: `lambda_loss` and `knowledge_distillation_weight`.
        values: what is resolved otherwise in this stage than in the recipe as a whole.
    """

    stage: Literal["warmup", "joint"]
    first_epoch: int
    epochs: int
    lrs: Mapping[str, float]
    losses: Mapping[str, float]
    values: Mapping[str, Value] = {}

    @property
    def end(self) -> int:
        """The first epoch after it."""
        return self.first_epoch + self.epochs

    def holds(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, is one of it."""
        return self.first_epoch <= epoch < self.end

    def content(self) -> dict[str, Any]:
        """What decides the run's numbers."""
        return {**self.to_json(), "values": {k: v.value for k, v in self.values.items()}}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**self._asdict(), "values": _as_json(self.values)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StagePlan:
        """Read what `to_json` wrote."""
        return build(cls, {**content, "values": _values(content)})


class Pretraining(NamedTuple):
    """The run of one expert alone, of which the plan is a plan of its own.

    Attributes:
        run: its id, unless a directory of that name was there before.
        plan_hash: of its plan.
        epochs: how many it has.
        rows: of the training split that it sees.
        lr: base rate of the expert and its head.
        rates: one per epoch.
        values: what is resolved otherwise there than in the recipe as a whole.
    """

    run: str
    plan_hash: str
    epochs: int
    rows: int
    lr: float
    rates: tuple[float, ...]
    values: Mapping[str, Value] = {}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**self._asdict(), "values": _as_json(self.values)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Pretraining:
        """Read what `to_json` wrote."""
        return build(cls, {**content, "values": _values(content)})


def _as_json(values: Mapping[str, Value]) -> dict[str, Any]:
    return {key: value_as_json(value) for key, value in values.items()}


def _values(content: Mapping[str, Any]) -> dict[str, Value]:
    return {key: build(Value, value) for key, value in content["values"].items()}
