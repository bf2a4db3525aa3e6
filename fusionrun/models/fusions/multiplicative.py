"""Π f_i. Shapes: B batch, E experts, D width."""

from __future__ import annotations

from torch import Tensor

from fusionrun.models.fusions.base import FeatureFusion, fill, product

__all__ = ["Multiplicative"]


class Multiplicative(FeatureFusion):
    """The product of the features; a missing view is a factor of 1."""

    def join(self, tokens: Tensor, missing: Tensor | None) -> Tensor:
        """(B, E, D) to (B, D)."""
        return product(fill(tokens, missing, 1))
