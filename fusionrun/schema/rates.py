"""Learning rates: the two base rates, the rules that adapt them, and the user's last word."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from fusionrun.schema.base import AUTO, Name, OnDemand, OrAuto, Positive, Section


class NumberTest(Section):
    """Bounds on a number; all that are given must hold."""

    gt: float | None = None
    """Greater than."""
    ge: float | None = None
    """Greater than or equal to."""
    lt: float | None = None
    """Less than."""
    le: float | None = None
    """Less than or equal to."""
    eq: float | None = None
    """Equal to."""

    @model_validator(mode="after")
    def _not_empty(self) -> "NumberTest":
        if not self.model_fields_set:
            raise PydanticCustomError("empty_test", "at least one of gt, ge, lt, le, eq")
        return self


class When(Section):
    """What a rule asks of a component; everything that is given must hold."""

    input_dim: NumberTest | None = None
    """Of an expert: the width of its features. Of fusion and global head: the fusion's `dim`."""
    fusion_type: str | tuple[str, ...] | None = None
    """The fusion's type, or several of which one must match."""
    num_experts: NumberTest | None = None
    """How many experts the recipe has."""
    batch_size: NumberTest | None = None
    """Samples a batch."""
    pretrained: bool | None = None
    """Whether the expert starts from `weights`; of fusion and global head: whether all do."""


class Scale(Section):
    """The factors a rule puts on the base rates."""

    base_lr: Positive | None = None
    """Factor on the rate of experts and their heads."""
    head_lr: Positive | None = None
    """Factor on the rate of fusion and global head."""

    @model_validator(mode="after")
    def _not_empty(self) -> "Scale":
        if not self.model_fields_set:
            raise PydanticCustomError("empty_scale", "at least one of base_lr, head_lr")
        return self


class Rule(Section):
    """One adaptive rule: where `when` holds, `scale` multiplies."""

    when: When
    """The condition; an empty one always holds."""
    scale: Scale
    """The factors."""


Rate = Annotated[Positive, OrAuto()]


class LearningRates(Section):
    """Base rates, rules, and rates given for one component (final: no rule touches those)."""

    base_lr: Rate = AUTO
    """Rate of experts and their heads; auto: the preset's, adapted by the rules."""
    head_lr: Rate = AUTO
    """Rate of fusion and global head; auto: the preset's, adapted by the rules."""
    rules: Annotated[tuple[Annotated[Rule, OnDemand()], ...], OrAuto()] = AUTO
    """Multiply in the order written; auto: the preset's; `[]` turns them off."""
    experts: Mapping[Name, Rate] = Field(default_factory=dict)
    """Rate of one expert and its head, by the expert's name."""
    fusion: Rate = AUTO
    """Rate of the fusion alone."""
    global_head: Rate = AUTO
    """Rate of the global head alone."""
