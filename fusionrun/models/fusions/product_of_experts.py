"""Σ log softmax(z_i). Shapes: B batch, E experts, C classes."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

__all__ = ["ProductOfExperts"]


class ProductOfExperts(nn.Module):
    """The sum of the heads' log-probabilities: the global logits, without any parameter.

    A missing view is a term of 0; a sample without any view has equal logits.
    """

    uses_features: ClassVar[bool] = False

    def forward(self, expert_logits: Tensor, present: Tensor | None = None) -> Tensor:
        """Join logits.

        Args:
            expert_logits: (E, B, C).
            present: (B, E), bool: which views a sample has; None: all of them.

        Returns:
            (B, C).
        """
        if present is None:
            return expert_logits.log_softmax(-1).sum(0)
        missing = ~present.T.unsqueeze(-1)
        # Before the softmax too, so that its backward meets no NaN of a missing view.
        log_probs = expert_logits.masked_fill(missing, 0).log_softmax(-1)
        return log_probs.masked_fill(missing, 0).sum(0)
