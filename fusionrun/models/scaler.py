"""Normalisation of a raw view, kept with the expert that reads it. B batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Scaler"]


class Scaler(nn.Module):
    """(x - mean) / std, element by element; it starts as the identity and is never trained.

    Args:
        shape: of one sample's statistics: (features,) for vectors, (channels, 1, 1) for images.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def forward(self, raw: Tensor) -> Tensor:
        """(B, *view) of any number type to float32 of the same shape."""
        return (raw.to(self.mean.dtype) - self.mean) / self.std

    def raw(self, scaled: Tensor) -> Tensor:
        """The other way round, to rounding."""
        return scaled * self.std + self.mean
