"""[f_1, …, f_E]. Shapes: B batch, E experts, D width."""

from __future__ import annotations

from torch import Tensor

from fusionrun.models.fusions.base import FeatureFusion, fill

__all__ = ["Concatenation"]


class Concatenation(FeatureFusion):
    """The features side by side; a missing view is D zeros."""

    @staticmethod
    def joined_dim(num_experts: int, dim: int) -> int:
        """E · D."""
        return num_experts * dim

    def join(self, tokens: Tensor, missing: Tensor | None) -> Tensor:
        """(B, E, D) to (B, E · D)."""
        return fill(tokens, missing, 0).flatten(1)
