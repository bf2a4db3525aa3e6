"""Mixup and cutmix: what a batch mixes, decided once for all of its samples.

As torchvision's MixUp and CutMix: each sample's partner is the one before it in the batch, which
a shuffled batch makes a random one, and the weight is drawn once a batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fusionrun.schema.training import Augmentation
from fusionrun.train.pixels import pasted

__all__ = ["Box", "Mixture", "drawn_mixture", "soft"]

Box = tuple[int, int, int, int]


class Mixture(NamedTuple):
    """How samples are mixed with their partners.

    Attributes:
        own: λ, the share of a sample's own target; the partner's is the rest.
        box: what of the partner's image is put over the own one; None: both are added up.
    """

    own: float
    box: Box | None

    def inputs(self, own: Tensor, partners: Tensor) -> Tensor:
        """(B, …) and (B, …) to the same; images (B, C, H, W) where there is a box."""
        if self.box is not None:
            return pasted(own, partners, self.box)
        return torch.lerp(partners, own, self.own)

    def targets(self, own: Tensor, partners: Tensor) -> Tensor:
        """(B, C) and (B, C) to the same."""
        return torch.lerp(partners, own, self.own)

    def labels(self, own: Tensor, partners: Tensor) -> Tensor:
        """The label with the larger share, (B,); the own one of equals."""
        return own if self.own >= 0.5 else partners


def drawn_mixture(
    settings: Augmentation, numbers: np.random.Generator, size: tuple[int, int] | None
) -> Mixture | None:
    """What this batch mixes, if anything; of mixup and cutmix one at even odds where both come up.

    Args:
        settings: of the run.
        numbers: this step's.
        size: height and width of the images; None: there are none, and no cutmix.
    """
    coins = numbers.random(3)
    mixup, cutmix = settings.mixup, settings.cutmix
    kinds = [
        (mixup, False) if mixup and coins[0] < mixup.probability else None,
        (cutmix, True) if cutmix and size and coins[1] < cutmix.probability else None,
    ]
    if not (chosen := [kind for kind in kinds if kind]):
        return None
    mix, boxed = chosen[int(coins[2] * len(chosen))]
    own = float(numbers.beta(mix.alpha, mix.alpha))
    return _boxed(own, numbers, size) if boxed and size else Mixture(own, None)


def _boxed(own: float, numbers: np.random.Generator, size: tuple[int, int]) -> Mixture:
    """A box of 1 - λ of the image, cut at its edges; λ is then what it really leaves."""
    height, width = size
    half = 0.5 * (1.0 - own) ** 0.5
    row, column = int(numbers.integers(height)), int(numbers.integers(width))
    tall, wide = int(half * height), int(half * width)
    top, bottom = max(row - tall, 0), min(row + tall, height)
    left, right = max(column - wide, 0), min(column + wide, width)
    area = (bottom - top) * (right - left)
    return Mixture(1.0 - area / (height * width), (top, left, bottom, right))


def soft(labels: Tensor, num_classes: int, smoothing: float, dtype: torch.dtype) -> Tensor:
    """Labels (B,) as probabilities (B, C), `smoothing` of each spread over all classes."""
    least = smoothing / num_classes
    # Not a scatter: comparing is deterministic on every device, and checks nothing on the host.
    own = torch.arange(num_classes, device=labels.device) == labels.unsqueeze(1)
    return own.to(dtype) * (1.0 - smoothing) + least
