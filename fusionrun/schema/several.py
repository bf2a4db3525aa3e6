"""More than one training from one recipe: its stages, and its sweep."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from fusionrun.schema.base import Count, NonNegative, Positive, Section, Seed


class StageLosses(Section):
    """Losses of one stage; what is absent is as in knowledge_transfer."""

    lambda_loss: NonNegative | None = None
    """Weight of the experts' own cross-entropies."""
    knowledge_distillation_weight: NonNegative | None = None
    """Weight of distillation."""


class StageRates(Section):
    """Rates of one stage; what is absent is as in learning_rates."""

    base_lr: Positive | None = None
    """Rate of experts and their heads."""
    head_lr: Positive | None = None
    """Rate of fusion and global head."""


class Stage(Section):
    """One stage of training. Each begins its schedules anew, over its own epochs."""

    stage: Literal["pretrain", "warmup", "joint"]
    """pretrain: each expert alone, on its share of the rows, in a run of its own; warmup: heads,
    fusion and global head, experts frozen; joint: everything. In this order."""
    epochs: Count
    """Passes over the rows that the stage trains on."""
    learning_rates: StageRates | None = None
    """Rates of this stage, in the place of all that `learning_rates` says of them; rules do not
    touch them."""
    losses: StageLosses | None = None
    """Losses of this stage."""


class Sweep(Section):
    """Several runs of one recipe."""

    grid: Mapping[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Recipe keys and their values: every combination is a run."""
    zip: Mapping[str, tuple[Any, ...]] = Field(default_factory=dict)
    """Recipe keys and their values, taken together: the first of each, the second of each, …"""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Cross-validation: each point is run so many times, each time with another part of the rows as
    its test part. Shares of val, strata and the split's seed are those of `data.split`."""
    seeds: tuple[Seed, ...] = ()
    """Seeds that each point is run with."""

    @model_validator(mode="after")
    def _equal_lengths(self) -> "Sweep":
        if len({len(values) for values in self.zip.values()}) > 1:
            raise PydanticCustomError("zip_lengths", "lists of one length", {"key": "zip"})
        return self
