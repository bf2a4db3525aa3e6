"""What becomes of a data set's rows: those published in parts, those drawn, those taken aside.

Taking a share of the training rows (for validation, or for the fusion alone) is, like a split, a
function of the labels and the split's seed. How many needs no numpy; which ones does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from fusionrun.data.reading import ALL
from fusionrun.data.split import (
    PARTS,
    by_class,
    shuffled,
    split_class_counts,
    split_indices,
    split_sizes,
    spread,
    whole_weights,
)
from fusionrun.schema.base import AUTO
from fusionrun.schema.data import Data
from fusionrun.schema.splits import FileSplit, FoldSplit, FractionSplit, OfficialSplit, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

HOLDOUT: Final = "fusion_holdout"
"""The part of the training rows that no expert's pretraining sees."""

DEFAULT_VAL: Final = 0.1
"""Share of an official training part to validate on: 6,000 rows of MNIST, 5,000 of CIFAR."""

# Second numbers of the seed: what is taken for one purpose has nothing to do with the other.
_VAL, _HOLDOUT = 1, 2


class Held(NamedTuple):
    """How many rows each part holds.

    Attributes:
        sizes: by part: `train`, `val` and `test`, 0 where there is none; `fusion_holdout` where
            the recipe asks for it.
        class_counts: of each class, by part; of all parts together under `all`, where only the
            drawing tells.
    """

    sizes: Mapping[str, int]
    class_counts: Mapping[str, tuple[int, ...]]


class Taken(NamedTuple):
    """Which rows of what was loaded make up a part; `rows` None: all of them, in order."""

    loaded: str
    rows: Integers | None


def val_share(split: Split, has_val: bool) -> float:
    """The share of the training rows that become the validation part."""
    if isinstance(split, OfficialSplit):
        default = 0.0 if has_val else DEFAULT_VAL
        return default if split.val == AUTO else split.val
    if isinstance(split, FileSplit) and isinstance(split.val, float | int):
        return split.val
    return 0.0


def held(data: Data, counts: Mapping[str, tuple[int, ...]]) -> Held:
    """Rows of each part.

    Args:
        data: the recipe's section.
        counts: rows of each class in each part that was found.
    """
    split, found = data.split, dict(counts)
    share = val_share(split, "val" in counts)
    known = split.stratify or not (ALL in counts or share or data.fusion_holdout)
    if isinstance(split, FractionSplit | FoldSplit):
        sizes = split_sizes(counts[ALL], split)
        found = split_class_counts(counts[ALL], split) or {p: (n,) for p, n in sizes.items()}
    elif not known:
        found = {part: (sum(rows),) for part, rows in counts.items()}
    if share:
        found["train"], found["val"] = carve_counts(found["train"], share)
    if data.fusion_holdout:
        found["train"], found[HOLDOUT] = carve_counts(found["train"], data.fusion_holdout)
    sizes = {part: sum(found.get(part, ())) for part in PARTS}
    sizes |= {HOLDOUT: sum(found[HOLDOUT])} if HOLDOUT in found else {}
    all_counts = tuple(map(sum, zip(*counts.values(), strict=True)))
    return Held(sizes, found if known else {ALL: all_counts})


def rows_of_parts(data: Data, labels: Mapping[str, Integers]) -> dict[str, Taken]:
    """Which rows are in which part. `held` tells the same numbers.

    Args:
        data: the recipe's section.
        labels: class indices of what was loaded, by part.
    """
    split = data.split
    if isinstance(split, FractionSplit | FoldSplit):
        drawn = split_indices(labels[ALL], split)
        parts = {part: Taken(ALL, rows) for part, rows in drawn.items()}
    else:
        parts = {part: Taken(part, None) for part in labels}
    seed = (split.seed,)
    if share := val_share(split, "val" in labels):
        parts["train"], parts["val"] = _carve(parts["train"], labels, share, data, (*seed, _VAL))
    if share := data.fusion_holdout:
        stream = (*seed, _HOLDOUT)
        parts["train"], parts[HOLDOUT] = _carve(parts["train"], labels, share, data, stream)
    return parts


def carve_counts(groups: Sequence[int], share: float) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows of each group that stay, and rows that are taken."""
    taken, whole = whole_weights((share, 1))
    cells = spread(groups, (whole - taken, taken))
    return tuple(cell[0] for cell in cells), tuple(cell[1] for cell in cells)


def _carve(
    part: Taken, labels: Mapping[str, Integers], share: float, data: Data, seed: tuple[int, ...]
) -> tuple[Taken, Taken]:
    """What stays of a part, and what is taken from it, both ascending."""
    import numpy as np

    rows = np.arange(len(labels[part.loaded])) if part.rows is None else part.rows
    order = shuffled(len(rows), *seed)
    groups = by_class(order, labels[part.loaded][rows]) if data.split.stratify else [order]
    stay, _ = carve_counts([len(group) for group in groups], share)
    pairs = [(group[:n], group[n:]) for group, n in zip(groups, stay, strict=True)]
    left, taken = (np.sort(rows[np.concatenate(side)]) for side in zip(*pairs, strict=True))
    return Taken(part.loaded, left), Taken(part.loaded, taken)
