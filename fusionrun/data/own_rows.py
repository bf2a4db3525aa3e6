"""Which of the training rows a run trains on, where it is not the training part as a whole: one
expert's share of it, or what was held out for the fusion. How many needs no numpy; which ones does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from fusionrun.data.parts import HOLDOUT, Taken
from fusionrun.data.reading import ALL
from fusionrun.data.shares import plan_shares, share_rows
from fusionrun.data.split import fold_counts
from fusionrun.schema.data import Data

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fusionrun.data.header import DataSummary

    Integers = NDArray[np.int64]

TRAIN: Final = "train"


class OwnRows(NamedTuple):
    """What a run trains on.

    Attributes:
        part: `train` or `fusion_holdout`.
        share: whose share of `train` as `data.expert_shares` deals it: the expert's number, from 0.
        of: experts that there are.
    """

    part: str
    share: int = 0
    of: int = 1


def narrowed(data: Data, summary: DataSummary, own: OwnRows | None) -> DataSummary:
    """A summary of the same files whose training part is what a run trains on.

    Args:
        data: the recipe's section.
        summary: of the whole data.
        own: what it trains on; None: the training part as it is.

    Raises:
        ValueError: how many rows that are only the drawing tells.
    """
    if own is None:
        return summary
    counts, sizes = dict(summary.class_counts), dict(summary.sizes)
    if own.part == HOLDOUT:
        sizes[TRAIN] = sizes[HOLDOUT]
        counts |= {TRAIN: counts[HOLDOUT]} if HOLDOUT in counts else {}
    else:
        sizes[TRAIN] = _num_rows(data, summary, own)
        counts |= {TRAIN: _class_counts(data, summary, own)} if TRAIN in counts else {}
    sizes.pop(HOLDOUT, None)
    counts.pop(HOLDOUT, None)
    return summary._replace(sizes=sizes, class_counts=counts, shares={}, own=own)


def _num_rows(data: Data, summary: DataSummary, own: OwnRows) -> int:
    shares = plan_shares(
        data.expert_shares,
        _names(own),
        rows=summary.sizes[TRAIN],
        num_classes=len(summary.classes),
        class_counts=None if ALL in summary.class_counts else summary.class_counts[TRAIN],
        seed=data.split.seed,
    )
    rows = shares[str(own.share)].rows
    if rows is None:
        raise ValueError("only the drawing tells how many rows the share has")
    return rows


def _class_counts(data: Data, summary: DataSummary, own: OwnRows) -> tuple[int, ...]:
    counts = summary.class_counts[TRAIN]
    if data.expert_shares == "iid":
        return tuple(fold_counts(counts, own.of, own.share))
    seen = plan_shares(
        data.expert_shares,
        _names(own),
        rows=summary.sizes[TRAIN],
        num_classes=len(counts),
        class_counts=counts,
        seed=data.split.seed,
    )[str(own.share)].classes
    return tuple(count if label in seen else 0 for label, count in enumerate(counts))


def own_rows(
    data: Data,
    taken: Mapping[str, Taken],
    labels: Mapping[str, Integers],
    own: OwnRows | None,
    num_classes: int,
) -> dict[str, Taken]:
    """The parts of a data set, the training part narrowed; `narrowed` tells the same numbers.

    Args:
        data: the recipe's section.
        taken: which rows of what was loaded make up each part.
        labels: class indices of what was loaded.
        own: what the run trains on; None: all of the training part.
        num_classes: C.
    """
    import numpy as np

    parts = {part: rows for part, rows in taken.items() if part != HOLDOUT}
    if own is None:
        return dict(taken)
    if own.part == HOLDOUT:
        return {**parts, TRAIN: taken[HOLDOUT]}
    loaded, rows = taken[TRAIN]
    rows = np.arange(len(labels[loaded])) if rows is None else rows
    shares = share_rows(
        data.expert_shares,
        _names(own),
        labels[loaded][rows],
        num_classes=num_classes,
        seed=data.split.seed,
    )
    return {**parts, TRAIN: Taken(loaded, rows[shares[str(own.share)]])}


def _names(own: OwnRows) -> list[str]:
    """Stand-ins for the experts: a share goes by their number alone."""
    return [str(number) for number in range(own.of)]
