"""Π (1 + tanh(W_i f_i)). Shapes: B batch, E experts, D width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fusionrun.models.fusions.base import FeatureFusion, fill, product

__all__ = ["BoundedProduct"]


class BoundedProduct(FeatureFusion):
    """A product of factors between 0 and 2; a missing view is a factor of 1.

    Arguments as in `FeatureFusion`. All W_i are one parameter of (E, D, D), so that they are one
    batched product.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        dim: int,
        hidden_dim: int,
        dropout: float,
        cross_expert_attention: bool,
    ) -> None:
        super().__init__(
            widths=widths,
            dim=dim,
            hidden_dim=hidden_dim,
            dropout=dropout,
            cross_expert_attention=cross_expert_attention,
        )
        self.factors = nn.Parameter(torch.empty(len(widths), dim, dim))
        bound = dim**-0.5  # as in nn.Linear
        nn.init.uniform_(self.factors, -bound, bound)

    def join(self, tokens: Tensor, missing: Tensor | None) -> Tensor:
        """(B, E, D) to (B, D)."""
        turned = torch.bmm(tokens.transpose(0, 1), self.factors.mT).transpose(0, 1)
        return product(1 + fill(torch.tanh(turned), missing, 0))
