"""Sizes and rows of the parts: nothing lost, nothing doubled, every class in its share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from fusionrun.data.split import PARTS, allocate, split_class_counts, split_indices, split_sizes
from fusionrun.schema.splits import FoldSplit, FractionSplit

shares = st.integers(1, 98).flatmap(
    lambda train: st.integers(0, 100 - train).map(
        lambda val: (train / 100, val / 100, (100 - train - val) / 100)
    )
)
class_counts = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@st.composite
def splits(draw: Any) -> FractionSplit | FoldSplit:
    common = {"stratify": draw(st.booleans()), "seed": draw(st.integers(0, 2**32))}
    if draw(st.booleans()):
        train, val, test = draw(shares)
        return FractionSplit(train=train, val=val, test=test, **common)
    folds = draw(st.integers(2, 7))
    fold = draw(st.integers(0, folds - 1))
    return FoldSplit(folds=folds, fold=fold, val=draw(st.integers(0, 90)) / 100, **common)


def labels_of(counts: list[int], seed: int = 0) -> np.ndarray:
    labels = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(labels)


@given(st.integers(0, 10**6), shares)
def test_allocate_gives_every_row_away_and_rounds_each_share(
    count: int, fractions: tuple[float, ...]
) -> None:
    sizes = allocate(count, fractions)
    assert sum(sizes) == count
    assert all(abs(n - count * f) < 1 + 1e-6 for n, f in zip(sizes, fractions, strict=True))


@pytest.mark.parametrize(
    ("count", "fractions", "sizes"),
    [
        (10, (0.6, 0.2, 0.2), (6, 2, 2)),
        (2000, (0.6, 0.2, 0.2), (1200, 400, 400)),
        (7, (0.6, 0.2, 0.2), (4, 2, 1)),
        (1, (0.2, 0.4, 0.4), (1, 0, 0)),
        (10, (0.7, 0.2, 0.1), (7, 2, 1)),
        (0, (0.6, 0.2, 0.2), (0, 0, 0)),
        (10**12, (0.1, 0.2, 0.7), (10**11, 2 * 10**11, 7 * 10**11)),
    ],
)
def test_allocate_by_largest_remainder(
    count: int, fractions: tuple[float, ...], sizes: tuple[int, ...]
) -> None:
    assert allocate(count, fractions) == sizes


@settings(deadline=None)
@given(class_counts, splits(), st.integers(0, 9))
def test_parts_are_a_partition_of_the_predicted_sizes(
    counts: list[int], split: FractionSplit | FoldSplit, order: int
) -> None:
    parts = split_indices(labels_of(counts, order), split)
    rows = np.concatenate([parts[part] for part in PARTS])
    assert sorted(rows.tolist()) == list(range(sum(counts)))
    assert {part: len(parts[part]) for part in PARTS} == split_sizes(counts, split)


@settings(deadline=None)
@given(class_counts, splits())
def test_class_counts_of_stratified_parts_are_as_predicted(
    counts: list[int], split: FractionSplit | FoldSplit
) -> None:
    labels = labels_of(counts)
    parts = split_indices(labels, split)
    for part, predicted in split_class_counts(counts, split).items():
        found = np.bincount(labels[parts[part]], minlength=len(counts))
        assert tuple(found.tolist()) == predicted


@given(class_counts, shares)
def test_every_class_can_be_learnt(counts: list[int], fractions: tuple[float, ...]) -> None:
    train, val, test = fractions
    split = FractionSplit(train=train, val=val, test=test)
    assert min(split_class_counts(counts, split)["train"]) >= 1


@settings(deadline=None)
@given(class_counts, st.integers(2, 6), st.booleans())
def test_every_row_is_tested_in_exactly_one_fold(
    counts: list[int], folds: int, stratify: bool
) -> None:
    labels = labels_of(counts)
    tests = [
        split_indices(labels, FoldSplit(folds=folds, fold=fold, stratify=stratify))["test"]
        for fold in range(folds)
    ]
    assert sorted(np.concatenate(tests).tolist()) == list(range(len(labels)))


@given(class_counts, st.integers(2, 6))
def test_stratified_folds_differ_by_one_row_a_class_at_most(counts: list[int], folds: int) -> None:
    tests = [
        split_class_counts(counts, FoldSplit(folds=folds, fold=fold))["test"]
        for fold in range(folds)
    ]
    assert all(max(of_class) - min(of_class) <= 1 for of_class in zip(*tests, strict=True))
    totals = [sum(test) for test in tests]
    assert max(totals) - min(totals) <= 1


def test_many_tiny_classes_still_fill_every_part() -> None:
    assert split_sizes([3] * 100, FractionSplit()) == {"train": 180, "val": 60, "test": 60}


def test_classes_are_kept_in_share_as_well_as_scikit_learn_does() -> None:
    counts = [17, 230, 61, 5, 400, 33]
    labels = labels_of(counts)

    def worst(rows: np.ndarray) -> float:
        share = np.bincount(labels[rows], minlength=6) / len(rows)
        return float(np.abs(share - np.array(counts) / sum(counts)).max())

    ours = split_indices(labels, FractionSplit())
    _, theirs = train_test_split(
        np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0
    )
    assert worst(ours["test"]) <= worst(theirs) + 1e-3


def test_without_stratify_class_counts_are_not_foretold() -> None:
    assert split_class_counts([5, 5], FractionSplit(stratify=False)) == {}


def test_the_split_has_a_seed_of_its_own() -> None:
    labels = labels_of([50, 50])
    first, same, other = (split_indices(labels, FractionSplit(seed=s))["test"] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_a_split_never_changes_between_versions() -> None:
    """Written down from the first version: whoever changes this moves everyone's test rows."""
    labels = np.arange(12) % 2
    parts = split_indices(labels, FractionSplit(seed=7))
    assert {part: rows.tolist() for part, rows in parts.items()} == FROZEN


FROZEN = {"train": [0, 3, 4, 6, 9, 10, 11], "val": [2, 5, 7], "test": [1, 8]}
