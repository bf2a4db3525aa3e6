"""Π (1 + f_i). Shapes: B batch, E experts, D width."""

from __future__ import annotations

from torch import Tensor

from fusionrun.models.fusions.base import FeatureFusion, fill, product

__all__ = ["MultiplicativeShifted"]


class MultiplicativeShifted(FeatureFusion):
    """The product of one plus each feature; a missing view is a factor of 1."""

    def join(self, tokens: Tensor, missing: Tensor | None) -> Tensor:
        """(B, E, D) to (B, D)."""
        return product(1 + fill(tokens, missing, 0))
