"""Numbers that are valid one by one and would hang a plan or a start: refused, with a place."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fusionrun.errors import RecipeError
from fusionrun.plan.plan import Plan
from fusionrun.schema.base import MAX_COUNT, MAX_EPOCHS, MAX_SEED

PlanOf = Callable[..., Plan]
MULTIPLICATIVE = "fusion: {type: multiplicative}"
FOLDS = "data.split={folds: 2, seed: 9223372036854775808}"


def refused(plan: PlanOf, setting: str) -> str:
    with pytest.raises(RecipeError, match="expected") as caught:
        plan(MULTIPLICATIVE, setting)
    return str(caught.value)


@pytest.mark.parametrize("epochs", [MAX_EPOCHS + 1, 99_999_999_999])
def test_more_epochs_than_a_plan_can_hold_are_refused(epochs: int, plan: PlanOf) -> None:
    shown = refused(plan, f"training.epochs={epochs}")
    assert "training.epochs" in shown
    assert "a whole number of at most 100,000: a plan holds a rate for each epoch" in shown


def test_the_most_epochs_are_planned(plan: PlanOf) -> None:
    made = plan(MULTIPLICATIVE, f"training.epochs={MAX_EPOCHS}")
    assert len(made.components["fusion"].rates) == MAX_EPOCHS


def test_equal_rates_are_made_once(plan: PlanOf) -> None:
    components = plan().components
    assert components["heads.two"].rates is components["experts.one"].rates


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        (f"seed={MAX_SEED + 1}", "seed"),
        ("seed=-1", "seed"),
        (f"data.split.seed={MAX_SEED + 1}", "data.split.seed"),
        (FOLDS, "data.split.seed"),
        (f"sweep={{seeds: [0, {MAX_SEED + 1}]}}", "sweep.seeds[1]"),
    ],
)
def test_a_seed_that_torch_cannot_take_is_refused_where_it_stands(
    setting: str, key: str, plan: PlanOf
) -> None:
    assert f"  {key}\n" in refused(plan, setting)


def test_a_seed_above_the_bound_is_told_the_bound(plan: PlanOf) -> None:
    assert "a whole number from 0 to 2**63 - 1" in refused(plan, f"seed={MAX_SEED + 1}")


def test_the_largest_seed_is_one_torch_takes(plan: PlanOf) -> None:
    import torch

    seed = plan(MULTIPLICATIVE, f"seed={MAX_SEED}").seed
    assert torch.Generator().manual_seed(seed).initial_seed() == MAX_SEED


@pytest.mark.parametrize(
    "key", ["training.batch_size", "experts.one.features", "fusion.dim", "augmentation.crop"]
)
def test_a_count_that_torch_would_overflow_on_is_refused(key: str, plan: PlanOf) -> None:
    assert "a whole number of at most 1,000,000,000" in refused(plan, f"{key}={MAX_COUNT + 1}")


def test_a_product_of_two_counts_fits_torchs_integers() -> None:
    assert MAX_COUNT**2 <= 2**63 - 1
