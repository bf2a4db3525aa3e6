"""Learning rates: the two base rates, the rules that adapt them, and the user's last word."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fusionrun.schema.base import AUTO, Count, Factor, Name, OrAuto, Positive, Section
from fusionrun.schema.chosen import Chosen


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


class BaseWidth(Section):
    """Where the rates were found."""

    base_width: Count
    """The `input_dim` at which rates stay as they are."""


class WidthRule(Section):
    """muP's rule of widths: how one rate is spread over a component's tensors."""

    mup: BaseWidth
    """Rates of matrices by width, as the optimizer asks (Yang et al., 2022)."""
    when: When | None = None
    """The condition; null always holds."""


class RuleForms(Chosen):
    """The two forms of a rule, told apart by their keys."""

    combined = "anyOf"
    forms = (Rule, WidthRule)

    def __str__(self) -> str:
        return "a mapping of when and scale, or of mup"

    def choose(self, value: object) -> type[Rule] | type[WidthRule] | None:
        """The form that a written mapping is meant for; None when it is no mapping."""
        if not isinstance(value, Mapping):
            return None
        return Rule if {"when", "scale"} & set(value) and "mup" not in value else WidthRule

    def _validate(self, value: Any) -> Rule | WidthRule:
        if isinstance(value, self.forms):
            return value
        form = self.choose(value)
        if form is None:
            raise PydanticCustomError("mapping_type", "a mapping")
        return form.model_validate(value)

    def _classes(self) -> tuple[type[Rule], type[WidthRule]]:
        return self.forms


def _layer_decay(value: Any) -> Any:
    """Both forms at once: a pydantic union would report errors of both."""
    factors = tuple(value.values()) if isinstance(value, Mapping) else (value,)
    for factor in factors if value is not None else ():
        is_number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not is_number or not 0 < factor <= 1:
            words = "a number greater than 0 and of at most 1, or a mapping from experts to such"
            raise PydanticCustomError("layer_decay", words)
    return value


LayerDecay = Annotated[Factor | Mapping[Name, Factor] | None, BeforeValidator(_layer_decay)]
Rate = Annotated[Positive, OrAuto()]


class LearningRates(Section):
    """Base rates, rules, and rates given for one component (final: no rule touches those)."""

    base_lr: Rate = AUTO
    """Rate of experts and their heads; auto: the preset's, adapted by the rules."""
    head_lr: Rate = AUTO
    """Rate of fusion and global head; auto: the preset's, adapted by the rules."""
    rules: Annotated[tuple[Annotated[Rule | WidthRule, RuleForms()], ...], OrAuto()] = AUTO
    """Multiply in the order written; auto: the preset's; `[]` turns them off."""
    experts: Mapping[Name, Rate] = Field(default_factory=dict)
    """Rate of one expert and its head, by the expert's name."""
    fusion: Rate = AUTO
    """Rate of the fusion alone."""
    global_head: Rate = AUTO
    """Rate of the global head alone."""
    layer_decay: LayerDecay = None
    """Factor on the rate a layer, from the output back, of pretrained experts: all, or by name."""
