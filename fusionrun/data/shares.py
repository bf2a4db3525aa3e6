"""Which training rows the pretraining of each expert sees: all, an equal part, or some classes.

A share is a function of the labels, the split's seed, the kind and the experts' order, nothing
else. How many rows needs no numpy, so a plan can tell; which ones does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from fusionrun.data.split import by_class, fold_counts, shuffled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

Kind = Literal["shared", "iid", "classes"]

FEWEST_CLASSES: Final = 2
"""An expert that is shown one class has nothing to tell apart."""

_STREAM: Final = 3
"""Second number of the seed: shares have nothing to do with what the split drew."""


class Share(NamedTuple):
    """What one expert sees.

    Attributes:
        rows: how many of the training rows; None where only the drawing tells.
        classes: indices of the classes it sees, ascending.
    """

    rows: int | None
    classes: tuple[int, ...]


def plan_shares(
    kind: Kind,
    experts: Sequence[str],
    *,
    rows: int,
    num_classes: int,
    class_counts: Sequence[int] | None,
    seed: int,
) -> dict[str, Share]:
    """What each expert will see; `share_rows` gives exactly these.

    Args:
        kind: as in the recipe.
        experts: their names, in the recipe's order.
        rows: of the training part.
        num_classes: C.
        class_counts: (C,) training rows of each class; None where only the drawing tells.
        seed: of the split.
    """
    if kind == "classes":
        dealt = deal_classes(num_classes, len(experts), seed)
        counts = class_counts
        return {
            expert: Share(None if counts is None else sum(counts[c] for c in own), own)
            for expert, own in zip(experts, dealt, strict=True)
        }
    num_parts = 1 if kind == "shared" else len(experts)
    shares = {}
    for number, expert in enumerate(experts):
        part = 0 if kind == "shared" else number
        dealt_counts = class_counts and fold_counts(class_counts, num_parts, part)
        seen = tuple(c for c in range(num_classes) if not dealt_counts or dealt_counts[c])
        shares[expert] = Share(fold_counts([rows], num_parts, part)[0], seen)
    return shares


def share_rows(
    kind: Kind, experts: Sequence[str], labels: Integers, *, num_classes: int, seed: int
) -> dict[str, Integers]:
    """The training rows of each expert, ascending; of `iid` and `classes` each row is one's only.

    Args:
        kind: as in the recipe.
        experts: their names, in the recipe's order.
        labels: (N,) class indices of the training part.
        num_classes: C.
        seed: of the split.
    """
    import numpy as np

    if kind == "shared":
        return {expert: np.arange(len(labels)) for expert in experts}
    if kind == "classes":
        dealt = deal_classes(num_classes, len(experts), seed)
        held = {expert: np.isin(labels, own) for expert, own in zip(experts, dealt, strict=True)}
        return {expert: np.flatnonzero(mask) for expert, mask in held.items()}
    # Dealt like cards, class after class: no two experts differ by more than a row of any class.
    cards = np.concatenate(by_class(shuffled(len(labels), seed, _STREAM), labels))
    return {expert: np.sort(cards[number :: len(experts)]) for number, expert in enumerate(experts)}


def deal_classes(num_classes: int, num_experts: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Each expert's classes: shuffled, then dealt in turn.

    The order is that of SHA-256 of seed and class: no generator that a version might change.
    """

    def rank(number: int) -> bytes:
        return hashlib.sha256(f"{seed}:class:{number}".encode()).digest()

    order = sorted(range(num_classes), key=rank)
    return tuple(tuple(sorted(order[e::num_experts])) for e in range(num_experts))


def too_small(shares: Mapping[str, Share]) -> list[str]:
    """The experts whose share is too small to learn from: no row, or a single class."""
    return [
        expert
        for expert, share in shares.items()
        if share.rows == 0 or len(share.classes) < FEWEST_CLASSES
    ]
