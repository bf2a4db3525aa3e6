"""An encoder over the experts as tokens, mean-pooled.

Shapes: B batch, E experts, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionrun.models.fusions.attention import ExpertAttention, OwnAttention
from fusionrun.models.fusions.base import FeatureFusion, fill

__all__ = ["EncoderLayer", "TransformerBase"]

EXPANSION = 4
"""Width of the feed-forward layer over D. Source: Vaswani et al., 2017."""
EMBEDDING_STD = 0.02
"""Initial deviation of the experts' embeddings. Source: BERT (Devlin et al., 2019)."""


class EncoderLayer(nn.Module):
    """A pre-norm encoder layer: x + attention(norm(x)), then x + feed-forward(norm(x)).

    Pre-norm, because schedules begin at the full rate, and a post-norm encoder wants a warm-up
    (Xiong et al., 2020). Dropout on both branches.

    Args:
        dim: D.
        num_heads: attention heads; they divide D.
        dropout: on each branch, before it is added.
        cross_expert_attention: whether a token sees the others, or only itself.
    """

    def __init__(
        self, dim: int, num_heads: int, dropout: float, cross_expert_attention: bool
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = (
            ExpertAttention(dim, num_heads) if cross_expert_attention else OwnAttention(dim)
        )
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, EXPANSION * dim)
        self.contract = nn.Linear(EXPANSION * dim, dim)

    def forward(self, tokens: Tensor, missing: Tensor | None) -> Tensor:
        """(B, E, D) to the same; `missing` is (B, E, 1) or None."""
        tokens = tokens + self._drop(self.attention(self.attention_norm(tokens), missing))
        hidden = F.relu(self.expand(self.feed_forward_norm(tokens)))
        return tokens + self._drop(self.contract(hidden))

    def _drop(self, branch: Tensor) -> Tensor:
        return F.dropout(branch, self.dropout, self.training)


class TransformerBase(FeatureFusion):
    """Experts as tokens through an encoder, then the mean over the tokens.

    A learned embedding tells the experts apart. A missing view is no key to any other token, and
    has no part in the mean; without any view the mean is zero.

    Args:
        num_heads: attention heads; they divide `dim`.
        num_layers: encoder layers.
        cross_expert_attention: whether a token sees the others, or only itself.

    The rest as in `FeatureFusion`.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        dim: int,
        hidden_dim: int,
        dropout: float,
        cross_expert_attention: bool,
        num_heads: int,
        num_layers: int,
    ) -> None:
        super().__init__(
            widths=widths,
            dim=dim,
            hidden_dim=hidden_dim,
            dropout=dropout,
            cross_expert_attention=False,  # the encoder's layers attend themselves
        )
        self.embedding = nn.Parameter(torch.empty(len(widths), dim))
        nn.init.normal_(self.embedding, std=EMBEDDING_STD)
        self.layers = nn.ModuleList(
            EncoderLayer(dim, num_heads, dropout, cross_expert_attention) for _ in range(num_layers)
        )
        self.encoder_norm = nn.LayerNorm(dim)

    def join(self, tokens: Tensor, missing: Tensor | None) -> Tensor:
        """(B, E, D) to (B, D)."""
        tokens = self.encode(tokens, missing)
        if missing is None:
            return tokens.mean(1)
        num_present = (~missing).sum(1).clamp(min=1)
        return fill(tokens, missing, 0).sum(1) / num_present

    def encode(self, tokens: Tensor, missing: Tensor | None) -> Tensor:
        """The tokens as the pooling sees them: (B, E, D) to the same."""
        tokens = tokens + self.embedding
        for layer in self.layers:
            tokens = layer(tokens, missing)
        normed: Tensor = self.encoder_norm(tokens)
        return normed
