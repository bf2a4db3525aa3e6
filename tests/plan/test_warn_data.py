"""Warnings about a plan's data: rare classes, and images that look misread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from fusionrun.plan.plan import Plan
from fusionrun.plan.warn_data import channels_last, class_missing_in_split

PlanOf = Callable[..., Plan]
ONE = "experts: {one: {model: mlp, view: a}}\n"


def save(folder: Path, rows: Sequence[int], name: str = "data.npz") -> None:
    """A data file with so many rows of class 0, 1, …"""
    labels = np.repeat(np.arange(len(rows)), rows)
    np.savez(folder / name, a=np.zeros((len(labels), 4), np.float32), label=labels)


def messages(plan: Plan) -> list[str]:
    found = list(class_missing_in_split(plan))
    assert {warning.code for warning in found} <= {"class_missing_in_split"}
    return [warning.message for warning in found]


def test_classes_in_every_part_are_no_matter(plan: PlanOf, folder: Path) -> None:
    save(folder, [20, 5])
    assert messages(plan(experts=ONE)) == []


def test_a_class_that_a_part_lacks_is_named_with_the_part(plan: PlanOf, folder: Path) -> None:
    save(folder, [20, 20, 2])
    (message,) = messages(plan(experts=ONE))
    assert message.startswith("no row of class 2 (2 rows in all) in ")
    assert message.endswith("Fix: more rows of it, other fractions, or leave the class out")


def test_classes_that_lack_in_different_parts_are_told_apart(plan: PlanOf, folder: Path) -> None:
    save(folder, [20, 20])
    save(folder, [2, 0], "val.npz")
    save(folder, [0, 2], "test.npz")
    split = "data.split={train: data.npz, val: val.npz, test: test.npz}"
    first, second = messages(
        plan("fusion: {type: multiplicative}", "data.path=null", split, experts=ONE)
    )
    assert first.startswith("no row of class 0 (22 rows in all) in test: what is measured there")
    assert second.startswith("no row of class 1 (22 rows in all) in val: ")
    assert "other files" in second


def test_a_part_that_there_is_not_lacks_no_class(plan: PlanOf, folder: Path) -> None:
    save(folder, [20, 2])
    split = "data.split={train: 0.5, val: 0.0, test: 0.5}"
    assert messages(plan("fusion: {type: multiplicative}", split, experts=ONE)) == []


def test_a_class_whose_only_row_is_tested_on_is_never_seen(plan: PlanOf, folder: Path) -> None:
    save(folder, [20, 20, 1])
    found = [
        message
        for fold in range(5)
        for message in messages(
            plan(
                "fusion: {type: multiplicative}",
                f"data.split={{folds: 5, fold: {fold}}}",
                experts=ONE,
            )
        )
    ]
    assert sum("in train and val: the model never sees it" in message for message in found) == 1
    assert all("fewer folds" in message for message in found)


def test_without_stratify_a_class_with_fewer_rows_than_parts_is_named(
    plan: PlanOf, folder: Path
) -> None:
    save(folder, [20, 20, 2])
    setting = "data.split={stratify: false}"
    (message,) = messages(plan("fusion: {type: multiplicative}", setting, experts=ONE))
    assert message.startswith("class 2 (2 rows in all) cannot be in each of train, val, test: ")


def test_of_many_rare_classes_the_first_are_named(plan: PlanOf, folder: Path) -> None:
    save(folder, [20, 20, 1, 1, 1, 1, 1, 1])
    setting = "data.split={stratify: false}"
    (message,) = messages(plan("fusion: {type: multiplicative}", setting, experts=ONE))
    assert "class 2 (1 row in all), 3 (1 row in all), 4 (1 row in all) and 3 more" in message


# ------------------------------------------------------------------ channels last


@pytest.mark.parametrize(
    ("shape", "expert", "warned"),
    [
        ((8, 9, 3), "{model: mlp, view: x}", True),
        ((3, 8, 9), "{model: mlp, view: x}", False),
        ((216,), "{model: cnn, view: x, shape: [8, 9, 3], channels: [4]}", True),
        ((216,), "{model: cnn, view: x, shape: [3, 8, 9]}", False),
        ((8, 9, 3), "{model: cnn, view: x, shape: [8, 9, 3], channels: [4]}", False),
        ((216,), "{model: mlp, view: x}", False),
    ],
)
def test_images_that_look_like_channels_last(
    plan: PlanOf, folder: Path, shape: tuple[int, ...], expert: str, warned: bool
) -> None:
    np.savez(folder / "data.npz", x=np.zeros((60, *shape), np.uint8), label=np.arange(60) % 3)
    found = list(channels_last(plan(experts=f"experts: {{one: {expert}}}\n")))
    assert bool(found) == warned
    assert all("expert one reads 8 × 9 × 3 as 8 channels" in w.message for w in found)
