"""The whole network: experts, their heads, the fusion and the global head, as components.

Owns how the components are wired and what they are called. How they are sized is for
`fusionrun.models.build`, what they learn from for `fusionrun.train`.

Shapes: B batch, E experts, C classes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from fusionrun.models.experts import Expert
from fusionrun.models.stacked import Stack

__all__ = ["FusionNetwork", "Outputs"]


class Outputs(NamedTuple):
    """What a batch gives.

    Attributes:
        expert_logits: (E, B, C), each head's. Where a view is missing they are finite and say
            nothing: they come from the training split's mean.
        global_logits: (B, C).
    """

    expert_logits: Tensor
    global_logits: Tensor


class FusionNetwork(nn.Module):
    """Both paths: each expert to its own head, and all of them through the fusion.

    Args:
        experts: by name, in the recipe's order.
        heads: by the same names: (B, F_i) to (B, C).
        fusion: joins features, or the heads' logits where its `uses_features` is False.
        global_head: reads what the fusion gives.

    Raises:
        ValueError: heads and experts do not have the same names in the same order.
    """

    def __init__(
        self,
        experts: Mapping[str, Expert],
        heads: Mapping[str, nn.Module],
        fusion: nn.Module,
        global_head: nn.Module,
    ) -> None:
        super().__init__()
        if list(experts) != list(heads):
            raise ValueError(f"heads: got {list(heads)}, expected {list(experts)}, as the experts")
        self.names = tuple(experts)
        # Lists, not ModuleDicts: those refuse names such as `keys` and `train`.
        self.experts = nn.ModuleList(experts.values())
        self.heads = nn.ModuleList(heads.values())
        self.fusion = fusion
        self.global_head = global_head
        # Experts that are computed together, with their heads: see `models.stacked`.
        self.stacks = nn.ModuleList()
        self._frozen: frozenset[str] = frozenset()

    def components(self) -> dict[str, nn.Module]:
        """The parts that are trained and saved by themselves, in the contract's order."""
        experts = zip(self.names, self.experts, strict=True)
        heads = zip(self.names, self.heads, strict=True)
        return {
            **{f"experts.{name}": expert for name, expert in experts},
            **{f"heads.{name}": head for name, head in heads},
            "fusion": self.fusion,
            "global_head": self.global_head,
        }

    def freeze(self, names: Collection[str]) -> None:
        """Keep these experts as they are from now on, and train all others.

        A frozen expert gives its features as in evaluation, BatchNorm's running statistics
        included, and no gradient reaches its parameters.
        """
        if self._frozen != frozenset(names):
            self._frozen = frozenset(names)
            self.train(self.training)

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the experts that stay as they are."""
        return self._frozen

    def train(self, mode: bool = True) -> Self:
        """As of every module, but frozen experts stay in evaluation mode."""
        super().train(mode)
        for name, expert in self.experts_by_name.items():
            if name in self._frozen:
                expert.eval()
        return self

    def scale(self, raw: Sequence[Tensor]) -> list[Tensor]:
        """Each expert's raw view, (B, *view), as `forward` takes it."""
        return [expert.scale(view) for expert, view in zip(self._experts, raw, strict=True)]

    def forward(
        self,
        scaled: Sequence[Tensor],
        present: Tensor | None = None,
        known: Mapping[str, Tensor] | None = None,
    ) -> Outputs:
        """Both paths on a batch.

        Args:
            scaled: what `Expert.scale` gives, for each expert: (B, *input_shape).
            present: (B, E), bool: which views a sample has; None: all of them. What stands in a
                missing view changes nothing.
            known: (B, F), features that these experts are known to give for the batch.
        """
        known = known or {}
        if present is not None:
            scaled = [_without(x, ~present[:, i]) for i, x in enumerate(scaled)]
        found = self._stacked(scaled)
        for name, head, x in zip(self.names, self.heads, scaled, strict=True):
            if name not in found:
                own = known[name] if name in known else self.encode(name, x)
                found[name] = (own, head(own))
        features, logits = zip(*(found[name] for name in self.names), strict=True)
        expert_logits = torch.stack(logits)
        uses_features = self.fusion.uses_features
        fused = self.fusion(features if uses_features else expert_logits, present)
        return Outputs(expert_logits, self.global_head(fused))

    def _stacked(self, scaled: Sequence[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """Features and logits of the experts that are computed together, by name."""
        inputs = dict(zip(self.names, scaled, strict=True))
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for stack in self.stacked:
            features = stack.encode([inputs[name] for name in stack.names])
            pairs = zip(features.unbind(), stack.judge(features).unbind(), strict=True)
            found |= dict(zip(stack.names, pairs, strict=True))
        return found

    def encode(self, name: str, scaled: Tensor) -> Tensor:
        """One expert's features (B, F) of its scaled view; no gradient enters a frozen one."""
        expert = self.experts_by_name[name]
        if name not in self._frozen:
            return expert.encode(scaled)
        with torch.no_grad():
            return expert.encode(scaled)

    @property
    def experts_by_name(self) -> dict[str, Expert]:
        """The experts, in order."""
        return dict(zip(self.names, self._experts, strict=True))

    @property
    def stacked(self) -> list[Stack]:
        """The experts that are computed together."""
        return list(self.stacks)  # type: ignore[arg-type]

    @property
    def _experts(self) -> list[Expert]:
        return list(self.experts)  # type: ignore[arg-type]


def _without(scaled: Tensor, missing: Tensor) -> Tensor:
    """Zero, the training split's mean, where a view is missing (B,).

    Already here, since a BatchNorm inside the backbone would spread it over the batch.
    """
    return scaled.masked_fill(missing.view(-1, *[1] * (scaled.ndim - 1)), 0)
