"""Σ f_i. Shapes: B batch, E experts, D width."""

from __future__ import annotations

from torch import Tensor

from fusionrun.models.fusions.base import FeatureFusion, fill

__all__ = ["SimpleAddition"]


class SimpleAddition(FeatureFusion):
    """The sum of the features; a missing view is a term of 0."""

    def join(self, tokens: Tensor, missing: Tensor | None) -> Tensor:
        """(B, E, D) to (B, D)."""
        return fill(tokens, missing, 0).sum(1)
