"""What the fusions of features share: projections, norms, and the layers behind the join.

A type is a subclass that says `join`. Few, large operations matter here: with small experts a
step's cost is its number of operations, so all experts are one tensor from the norm on.

Shapes: B batch, E experts, D width, F_i features of expert i, K width of what the join gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionrun.models.fusions.attention import ExpertAttention
from fusionrun.rules import num_heads

__all__ = ["EPS", "ExpertNorm", "FeatureFusion", "fill", "product"]

EPS: Final = 1e-5
"""Of the norms, as in torch's own."""


def fill(tokens: Tensor, missing: Tensor | None, neutral: float) -> Tensor:
    """Put the neutral element where a view is missing: nothing that came from it is left.

    Filled, not multiplied by a mask: NaN times zero is NaN, and so is its gradient.

    Args:
        tokens: (B, E, D).
        missing: (B, E, 1), bool; None when no view is missing.
        neutral: 0 in a sum, 1 in a product.
    """
    return tokens if missing is None else tokens.masked_fill(missing, neutral)


def product(tokens: Tensor) -> Tensor:
    """The product over the experts: (B, E, D) to (B, D).

    Not `prod`: its backward reads the number of zeros back from the device, and so makes a GPU
    wait and forbids CUDA graphs.
    """
    return reduce(torch.mul, tokens.unbind(1))


class ExpertNorm(nn.Module):
    """A LayerNorm for each expert, all of them in two operations.

    Args:
        num_experts: E.
        dim: D.
    """

    def __init__(self, num_experts: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_experts, dim))
        self.bias = nn.Parameter(torch.zeros(num_experts, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, E, D) to the same."""
        normed = F.layer_norm(tokens, tokens.shape[-1:], eps=EPS)
        return torch.addcmul(self.bias, normed, self.weight)


class FeatureFusion(nn.Module):
    """Features of all experts to one vector of D.

    A missing view's features change neither the output nor any gradient, whatever is in them,
    NaN included; a sample without any view gives a finite vector.

    Args:
        widths: F_i of each expert; where it is not `dim`, a Linear projects it.
        dim: D.
        hidden_dim: width of the hidden layer behind the join.
        dropout: behind the join, and inside a type's own layers.
        cross_expert_attention: one residual attention layer between the experts before the join,
            with as many heads as `fusionrun.rules.num_heads` gives.
    """

    uses_features: ClassVar[bool] = True

    def __init__(
        self,
        *,
        widths: Sequence[int],
        dim: int,
        hidden_dim: int,
        dropout: float,
        cross_expert_attention: bool,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.dropout = dropout
        self.projections = nn.ModuleDict(
            {str(i): nn.Linear(width, dim) for i, width in enumerate(widths) if width != dim}
        )
        self.norm = ExpertNorm(len(widths), dim)
        heads = num_heads(dim)
        self.attention = ExpertAttention(dim, heads) if cross_expert_attention else None
        self.hidden = nn.Linear(self.joined_dim(len(widths), dim), hidden_dim)
        self.output = nn.Linear(hidden_dim, dim)

    @staticmethod
    def joined_dim(num_experts: int, dim: int) -> int:
        """K: D, unless a type says otherwise."""
        return dim

    def join(self, tokens: Tensor, missing: Tensor | None) -> Tensor:
        """Join normalised features; a missing view counts as the join's neutral element.

        Args:
            tokens: (B, E, D); finite, and meaningless, where a view is missing.
            missing: (B, E, 1), bool; None when no view is missing.

        Returns:
            (B, K).
        """
        raise NotImplementedError

    def forward(self, features: Sequence[Tensor], present: Tensor | None = None) -> Tensor:
        """Fuse a batch.

        Args:
            features: (B, F_i) for each expert.
            present: (B, E), bool: which views a sample has; None: all of them.

        Returns:
            (B, D).
        """
        missing = None if present is None else ~present.unsqueeze(-1)
        tokens = self.norm(self._tokens(features, missing))
        if self.attention is not None:
            tokens = tokens + self.attention(tokens, missing)
        hidden = F.relu(self.hidden(self.join(tokens, missing)))
        fused: Tensor = self.output(F.dropout(hidden, self.dropout, self.training))
        return fused

    def _tokens(self, features: Sequence[Tensor], missing: Tensor | None) -> Tensor:
        """All features in one tensor of width D, zero where a view is missing: (B, E, D)."""
        rows = list(features)
        for key, projection in self.projections.items():
            i = int(key)
            # Before the projection too: 0 · NaN in its weight's gradient is NaN.
            rows[i] = projection(fill(rows[i], None if missing is None else missing[:, i], 0))
        return fill(torch.stack(rows, 1), missing, 0)
