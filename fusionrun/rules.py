"""Adaptive defaults: one small pure function each, with formula, unit and source. No torch.

The numbers these work on (base rates, thresholds, factors) are data: see `fusionrun.presets`
and `learning_rates.rules` of a recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from fusionrun.schema.rates import NumberTest, Rule, When, WidthRule

Fact = int | str | bool

_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "eq": "="}


COMPILE_FROM_STEPS = 10_000
"""Steps from which on compiling the whole step pays back. Source: measured on two CPU cores: 25 to
70 s for the first compilation of six small experts, and more than half of a step's time gained."""

LOG_VARIANCE_RATE = 0.01
LOG_VARIANCE_WHY = "Adam's, constant: a log-variance moves by about 1 in 100 batches (assumed)"


def fusion_dim(input_dims: Sequence[int]) -> int:
    """Width D of the fusion: the largest `input_dim`. Source: the origin."""
    return max(input_dims)


def num_heads(dim: int) -> int:
    """Attention heads: eight, or the most below that divide the width. Source: the origin."""
    return max(heads for heads in range(1, 9) if dim % heads == 0)


def hidden_dim(dim: int) -> int:
    """Width of the hidden layer after the join: D. Source: the origin's Linear(D, D)."""
    return dim


def times(number: float, factor: float) -> float:
    """Product of two decimals as they are written: 5e-4 × 1.2 is 6e-4, to the digit."""
    return float(Decimal(repr(number)) * Decimal(repr(factor)))


def num_threads(num_parameters: int) -> int | None:
    """CPU threads: one below two million parameters, else None (torch's choice).

    Source: measured on small experts; a second thread gains 1.2× on a quiet machine and costs
    3× and more beside a busy neighbour.
    """
    return 1 if num_parameters < 2_000_000 else None


def memory_format(convolves: bool) -> str:
    """Order of an image's numbers in memory: channels last where anything convolves.

    Source: measured on eight small networks on one CPU core, forward and backward of 128 images
    of 28 × 28: 1.16 to 1.65 times as fast (1.43 in the middle). On GPUs it is what their matrix
    units read, by the word of torch's notes on performance.
    """
    return "channels_last" if convolves else "contiguous"


class Applied(NamedTuple):
    """A rule that held for a component: its position (from 1), factor, and the test that held."""

    number: int
    factor: float
    because: str


def applied_rules(
    rules: Sequence[Rule | WidthRule], rate: str, facts: Mapping[str, Fact]
) -> tuple[Applied, ...]:
    """The rules that hold for a component, in the order written.

    Args:
        rules: as in the recipe.
        rate: `base_lr` or `head_lr`: which of a rule's factors counts.
        facts: input_dim, fusion_type, num_experts, batch_size and pretrained of the component.
    """
    return tuple(
        Applied(number, factor, ", ".join(_reasons(rule.when, facts)) or "always")
        for number, rule in enumerate(rules, start=1)
        if isinstance(rule, Rule)
        if (factor := getattr(rule.scale, rate)) is not None and holds(rule.when, facts)
    )


def width_rule(
    rules: Sequence[Rule | WidthRule], facts: Mapping[str, Fact]
) -> tuple[int, int] | None:
    """The rule of widths that holds for a component: its position (from 1) and base width."""
    for number, rule in enumerate(rules, start=1):
        if isinstance(rule, WidthRule) and (rule.when is None or holds(rule.when, facts)):
            return number, rule.mup.base_width
    return None


def holds(when: When, facts: Mapping[str, Fact]) -> bool:
    """Whether everything that a rule asks is true of a component."""
    return all(_test(test, facts[key]) for key, test in _tests(when))


def _tests(when: When) -> Iterator[tuple[str, object]]:
    for key in type(when).model_fields:
        if (test := getattr(when, key)) is not None:
            yield key, test


def _test(test: object, fact: Fact) -> bool:
    if isinstance(test, NumberTest):
        return all(_compare(sign, fact, bound) for sign, bound in _bounds(test))
    if isinstance(test, tuple):
        return fact in test
    return fact == test


def _bounds(test: NumberTest) -> Iterator[tuple[str, float]]:
    for sign in _SIGNS:
        if (bound := getattr(test, sign)) is not None:
            yield sign, bound


def _compare(sign: str, fact: Fact, bound: float) -> bool:
    number = float(fact)
    return {
        "gt": number > bound,
        "ge": number >= bound,
        "lt": number < bound,
        "le": number <= bound,
        "eq": number == bound,
    }[sign]


def _reasons(when: When, facts: Mapping[str, Fact]) -> Iterator[str]:
    for key, test in _tests(when):
        if isinstance(test, NumberTest):
            bounds = " and ".join(f"{_SIGNS[sign]} {bound:g}" for sign, bound in _bounds(test))
            yield f"{key} {facts[key]} {bounds}"
        else:
            yield f"{key} is {facts[key]}"
