"""Which rows train, validate and test: how many of each, and which.

A split is a function of the labels and the split's own seed, nothing else. How many needs no
numpy, so a plan can tell the sizes; which ones needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING, Final

from fusionrun.schema.splits import FoldSplit, FractionSplit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

PARTS: Final = ("train", "val", "test")

DrawnSplit = FractionSplit | FoldSplit
"""The splits that are drawn, as against parts that stand in files of their own."""


def allocate(count: int, fractions: Sequence[float]) -> tuple[int, ...]:
    """Share `count` rows out by largest remainder.

    Each part gets its exact share rounded down or up, the sum is `count`, and ties go to the
    earlier part. The first part (training) is never empty while there is a row to give.

    Args:
        count: rows to share out.
        fractions: share of each part; scaled to sum to 1.
    """
    weights = whole_weights(fractions)
    return _share_out(count, weights, [0] * len(weights))


def split_sizes(class_counts: Sequence[int], split: DrawnSplit) -> dict[str, int]:
    """Rows in each part. `split_indices` gives exactly these.

    Args:
        class_counts: rows of each class.
        split: fractions or folds.
    """
    cells = _cells(class_counts if split.stratify else [sum(class_counts)], split)
    return {part: sum(cell[i] for cell in cells) for i, part in enumerate(PARTS)}


def split_class_counts(
    class_counts: Sequence[int], split: DrawnSplit
) -> dict[str, tuple[int, ...]]:
    """Rows of each class in each part; empty without `stratify`, where only drawing tells."""
    if not split.stratify:
        return {}
    cells = _cells(class_counts, split)
    return {part: tuple(cell[i] for cell in cells) for i, part in enumerate(PARTS)}


def split_indices(labels: Integers, split: DrawnSplit) -> dict[str, Integers]:
    """The rows of each part, ascending; every row is in exactly one.

    Args:
        labels: (N,) class index of each row, from 0.
        split: fractions or folds.
    """
    import numpy as np

    order = shuffled(len(labels), split.seed)
    groups = by_class(order, labels) if split.stratify else [order]
    cells = _cells([len(group) for group in groups], split)
    drawn: list[list[Integers]] = [[], [], []]
    start = 0
    for group, cell in zip(groups, cells, strict=True):
        is_test = _test_mask(start, cell, split)
        rest = group[~is_test]
        for part, rows in enumerate((rest[: cell[0]], rest[cell[0] :], group[is_test])):
            drawn[part].append(rows)
        start += len(group)
    return {part: np.sort(np.concatenate(rows)) for part, rows in zip(PARTS, drawn, strict=True)}


def whole_weights(fractions: Sequence[float]) -> list[int]:
    """Whole numbers in the same proportion. A float counts as the decimal it prints as, so a
    fifth of ten rows is two, with no rounding error to settle.
    """
    exact = [Fraction(repr(float(share))) for share in fractions]
    denominator = lcm(*(share.denominator for share in exact))
    return [int(share * denominator) for share in exact]


def _share_out(count: int, weights: Sequence[int], owed: Sequence[int]) -> tuple[int, ...]:
    """`allocate` by whole weights; `owed` is what each part is short of, in `sum(weights)`ths."""
    total = sum(weights)
    sizes = [count * weight // total for weight in weights]
    claims = [count * weight % total for weight in weights]
    rounded = [part for part, claim in enumerate(claims) if claim > 0]
    rounded.sort(key=lambda part: (part > 0 or sizes[0] > 0, -(claims[part] + owed[part]), part))
    for part in rounded[: count - sum(sizes)]:
        sizes[part] += 1
    return tuple(sizes)


def _cells(groups: Sequence[int], split: DrawnSplit) -> list[tuple[int, int, int]]:
    """Rows of each group in (train, val, test); a group is a class, or all rows."""
    if isinstance(split, FractionSplit):
        cells = spread(groups, whole_weights((split.train, split.val, split.test)))
        return [(train, val, test) for train, val, test in cells]
    tests = fold_counts(groups, split.folds, split.fold)
    others = [count - test for count, test in zip(groups, tests, strict=True)]
    val, whole = whole_weights((split.val, 1))
    rest = spread(others, (whole - val, val))
    return [(train, val, test) for (train, val), test in zip(rest, tests, strict=True)]


def spread(groups: Iterable[int], weights: Sequence[int]) -> list[tuple[int, ...]]:
    """Share out group by group. What rounding took from a part in one group is owed to it in
    the next: else a part of many tiny classes would get nothing from any of them.
    """
    total = sum(weights)
    owed = [0] * len(weights)
    cells = []
    for count in groups:
        cell = _share_out(count, weights, owed)
        owed = [
            debt + count * weight - total * given
            for debt, weight, given in zip(owed, weights, cell, strict=True)
        ]
        cells.append(cell)
    return cells


def fold_counts(groups: Sequence[int], folds: int, fold: int) -> list[int]:
    """Rows of each group in one fold, when rows laid out group by group are dealt in turn."""

    def dealt(end: int) -> int:
        return (end + folds - 1 - fold) // folds

    counts, start = [], 0
    for count in groups:
        counts.append(dealt(start + count) - dealt(start))
        start += count
    return counts


def _test_mask(start: int, cell: tuple[int, int, int], split: DrawnSplit) -> NDArray[np.bool_]:
    """Which of a group's shuffled rows are test rows; `start` rows were dealt before them."""
    import numpy as np

    positions: Integers = np.arange(sum(cell))
    if isinstance(split, FractionSplit):
        return positions >= cell[0] + cell[1]
    mask: NDArray[np.bool_] = (start + positions) % split.folds == split.fold
    return mask


def shuffled(count: int, *seed: int) -> Integers:
    """A permutation that no version of numpy changes: NEP 19 promises the raw stream of a bit
    generator for good, but not what `Generator.permutation` makes of it.

    Args:
        count: N; the permutation is (N,), from 0.
        seed: one number, or several for streams that have nothing in common.
    """
    import numpy as np

    return np.argsort(
        np.random.PCG64(seed if len(seed) > 1 else seed[0]).random_raw(count), kind="stable"
    )


def by_class(
    order: Integers,
    labels: Integers,
) -> list[Integers]:
    """Rows of each class, each in the shuffled order."""
    import numpy as np

    counts = np.bincount(labels)
    grouped = order[np.argsort(labels[order], kind="stable")]
    return np.split(grouped, np.cumsum(counts)[:-1])
