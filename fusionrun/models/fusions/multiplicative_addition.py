"""Π f_i + Σ f_i. Shapes: B batch, E experts, D width."""

from __future__ import annotations

from torch import Tensor

from fusionrun.models.fusions.base import FeatureFusion, fill, product

__all__ = ["MultiplicativeAddition"]


class MultiplicativeAddition(FeatureFusion):
    """The product of the features plus their sum; a missing view is 1 in one, 0 in the other."""

    def join(self, tokens: Tensor, missing: Tensor | None) -> Tensor:
        """(B, E, D) to (B, D)."""
        return product(fill(tokens, missing, 1)) + fill(tokens, missing, 0).sum(1)
