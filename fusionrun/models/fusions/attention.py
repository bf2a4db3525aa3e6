"""Attention between the experts of one sample.

Shapes: B batch, E experts, D width, H heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ExpertAttention", "OwnAttention"]


class ExpertAttention(nn.Module):
    """Multi-head attention of each expert's token over all tokens of its sample.

    Without dropout on the attention weights: with a handful of tokens it would drop whole
    experts, and it costs the fused kernel.

    Args:
        dim: D.
        num_heads: H; divides D.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads: got {num_heads}, expected a number that divides {dim}")
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, missing: Tensor | None) -> Tensor:
        """Attend.

        Args:
            tokens: (B, E, D), finite.
            missing: (B, E, 1), bool: tokens that no other may look at. They look at themselves,
                so that a sample without any view stays finite. None when no view is missing.

        Returns:
            (B, E, D).
        """
        batch, experts, dim = tokens.shape
        split = self.qkv(tokens).view(batch, experts, 3, self.num_heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value, _may_look(missing))
        out: Tensor = self.output(attended.transpose(1, 2).reshape(batch, experts, dim))
        return out


class OwnAttention(nn.Module):
    """Attention of each token over itself alone: what is left is the way of its value.

    Queries and keys would have no effect and no gradient, so there are none.

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, missing: Tensor | None) -> Tensor:
        """(B, E, D) to the same; `missing` has nothing to hide here."""
        out: Tensor = self.output(self.value(tokens))
        return out


def _may_look(missing: Tensor | None) -> Tensor | None:
    """Which token (row) may look at which (column): (B, 1, E, E), or None for all at all."""
    if missing is None:
        return None
    experts = missing.shape[1]
    itself = torch.eye(experts, dtype=torch.bool, device=missing.device)
    return (~missing).view(-1, 1, 1, experts) | itself
