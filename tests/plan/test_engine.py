"""Which engine a plan has, by rule, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from fusionrun.errors import RecipeError
from fusionrun.plan.plan import Value
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe

RECIPE = Path(__file__).parents[2] / "recipes" / "handwritten-digits.yaml"
LONG = "training.epochs=2000"


def engine(*settings: str) -> Value:
    return make_plan(read_recipe(RECIPE, settings), Path("runs")).values["training.engine"]


def test_a_short_run_is_eager_by_rule() -> None:
    value = engine()
    assert (value.value, value.source) == ("eager", "rule")
    assert "600 steps" in value.why


def test_a_long_run_is_compiled_by_rule() -> None:
    assert engine(LONG).value == "compiled"


def test_two_backward_passes_are_not_compiled() -> None:
    value = engine(LONG, "knowledge_transfer.gradient_combination=pcgrad")
    assert value.value == "eager"
    assert "gradient_combination pcgrad" in value.why


def test_what_was_asked_for_and_cannot_be_done_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"compiled with training\.precision fp16"):
        engine("training.engine=compiled", "training.precision=fp16")
