"""RandAugment and TrivialAugment: which operation each sample gets, how strong, and all at once.

Written here, for libraries draw for a whole batch: torchvision v2 one operation and amount for all
of its images, kornia one list of operations, and for images of floats alone. Sample by sample in a
loop torchvision's RandAugment takes 134 ms of a CPU core for 128 images of 3 × 32 × 32, this 20 ms.

Here every sample has draws of its own: the batch is put in the order of its operations, so that
each works on one stretch of it, and the five that move pixels share one call. What is drawn is
drawn on the host, by seed and step, so that no device is waited for.

Operations, ranges and the meaning of a magnitude are torchvision's (`RandAugment`,
`TrivialAugmentWide`), of 31 magnitudes each.

Shapes: B images of this rank, N rows of the whole batch, C channels, H height, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionrun.schema.training import Augmentation
from fusionrun.train.operations import COLOURS, moved

__all__ = [
    "OPERATIONS",
    "Policy",
    "Round",
    "changed",
    "policy_of",
    "randaugment",
    "trivialaugment",
]

MOST: Final = 30
"""The largest magnitude. Source: torchvision's 31 bins, and RandAugment's paper."""

MOVES: Final = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
OPERATIONS: Final = ("Identity", *MOVES, *COLOURS)


class Amounts(NamedTuple):
    """What an operation's magnitudes mean: from `first` at 0 in even steps to `last` at 30."""

    first: float
    last: float
    signed: bool = False


Ranges = Mapping[str, Amounts]
NOTHING: Final = Amounts(0.0, 0.0)


class Round(NamedTuple):
    """One operation for each row of the whole batch.

    Attributes:
        operations: (N,), places in `OPERATIONS`.
        amounts: (N,): tangent of a shear, pixels, degrees, a factor less 1, bits, share of white.
    """

    operations: NDArray[np.int64]
    amounts: NDArray[np.float64]

    def of(self, places: NDArray[np.int64]) -> Round:
        """That of some rows."""
        return Round(self.operations[places], self.amounts[places])


class Policy(NamedTuple):
    """How rounds are drawn.

    Attributes:
        ranges: of each operation that has an amount.
        rounds: operations a sample gets, one after the other.
        magnitude: of all of them; None: drawn for each.
    """

    ranges: Ranges
    rounds: int
    magnitude: int | None

    def drawn(self, numbers: np.random.Generator, rows: int) -> Iterator[Round]:
        """The rounds of a batch of so many rows."""
        ranges = [self.ranges.get(name, NOTHING) for name in OPERATIONS]
        first, last, signed = (np.array(column) for column in zip(*ranges, strict=True))
        bits = OPERATIONS.index("Posterize")
        for _ in range(self.rounds):
            chosen = numbers.integers(len(OPERATIONS), size=rows)
            drawn = numbers.integers(MOST + 1, size=rows)
            signs = np.where(signed[chosen] & (numbers.random(rows) < 0.5), -1.0, 1.0)
            share = (drawn if self.magnitude is None else self.magnitude) / MOST
            amounts = first[chosen] + (last - first)[chosen] * share
            amounts = np.where(chosen == bits, amounts.round(), amounts)
            yield Round(chosen, amounts * signs)


def policy_of(settings: Augmentation, size: Sequence[int]) -> Policy | None:
    """The policy of a run for images of (height, width), if it has one."""
    if settings.randaugment is not None:
        height, width = size
        own = settings.randaugment
        return randaugment(own.num_ops, own.magnitude, (height, width))
    return trivialaugment() if settings.trivialaugment else None


def randaugment(num_ops: int, magnitude: int, size: tuple[int, int]) -> Policy:
    """RandAugment (Cubuk et al., arXiv 1909.13719) on images of (height, width)."""
    height, width = size
    ranges = {
        "ShearX": Amounts(0.0, 0.3, True),
        "ShearY": Amounts(0.0, 0.3, True),
        "TranslateX": Amounts(0.0, 150 / 331 * width, True),
        "TranslateY": Amounts(0.0, 150 / 331 * height, True),
        "Rotate": Amounts(0.0, 30.0, True),
        **_colours(0.9, bits=4),
    }
    return Policy(ranges, num_ops, magnitude)


def trivialaugment() -> Policy:
    """TrivialAugment, the wide one (Müller and Hutter, arXiv 2103.10158)."""
    ranges = {
        "ShearX": Amounts(0.0, 0.99, True),
        "ShearY": Amounts(0.0, 0.99, True),
        "TranslateX": Amounts(0.0, 32.0, True),
        "TranslateY": Amounts(0.0, 32.0, True),
        "Rotate": Amounts(0.0, 135.0, True),
        **_colours(0.99, bits=2),
    }
    return Policy(ranges, 1, None)


def _colours(most: float, bits: int) -> Ranges:
    factors = ("Brightness", "Color", "Contrast", "Sharpness")
    return {
        **{name: Amounts(0.0, most, True) for name in factors},
        "Posterize": Amounts(8.0, float(bits)),
        "Solarize": Amounts(1.0, 0.0),
    }


def changed(images: Tensor, wanted: Round) -> Tensor:
    """Each image as its own operation leaves it.

    Args:
        images: (B, C, H, W), whole numbers from 0 to 255 as float32.
        wanted: for these B.
    """
    order = np.argsort(wanted.operations, kind="stable")
    wanted = wanted.of(order)
    there = torch.from_numpy(order).to(images.device)
    back = torch.from_numpy(np.argsort(order)).to(images.device)
    ends = np.searchsorted(wanted.operations, np.arange(len(OPERATIONS)), side="right").tolist()
    result = images.index_select(0, there)
    _move(result, wanted, slice(ends[0], ends[len(MOVES)]))
    amounts = torch.from_numpy(wanted.amounts).to(images.device, images.dtype).view(-1, 1, 1, 1)
    for place, operation in enumerate(COLOURS.values(), 1 + len(MOVES)):
        if (start := ends[place - 1]) < (end := ends[place]):
            result[start:end] = operation(result[start:end], amounts[start:end])
    return result.index_select(0, back)


def _move(images: Tensor, wanted: Round, rows: slice) -> None:
    """Moves the pixels of those images in place."""
    if rows.start == rows.stop:
        return
    pairs = zip(wanted.operations[rows], wanted.amounts[rows], strict=True)
    matrices = [_matrix(OPERATIONS[kind], amount, images.shape[2:]) for kind, amount in pairs]
    wide = torch.tensor(matrices, dtype=images.dtype).to(images.device)
    images[rows] = moved(images[rows], wide)


Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]


def _matrix(operation: str, amount: float, size: torch.Size) -> Matrix:
    """Where a pixel is taken from, in pixels from the middle; see `operations.moved`."""
    height, width = size
    match operation:
        case "ShearX":  # (about the upper left corner, as in the papers)
            return (1.0, amount, amount * height / 2), (0.0, 1.0, 0.0)
        case "ShearY":
            return (1.0, 0.0, 0.0), (amount, 1.0, amount * width / 2)
        case "TranslateX":
            return (1.0, 0.0, -float(int(amount))), (0.0, 1.0, 0.0)
        case "TranslateY":
            return (1.0, 0.0, 0.0), (0.0, 1.0, -float(int(amount)))
    cos, sin = math.cos(math.radians(amount)), math.sin(math.radians(amount))
    return (cos, -sin, 0.0), (sin, cos, 0.0)
