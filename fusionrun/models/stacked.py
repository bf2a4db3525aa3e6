"""Experts of one architecture as one batched product: for who trains many small ones.

A stack owns no numbers. Its parameters are views, across experts, of memory in which the experts
and their heads lie one behind the other in equal strides; the experts' own parameters stay views
of the same memory, so that saving, loading and evaluating see what the stack has learned.

Only MLPs are stacked: grouped convolutions are slower than one after the other (measured).

Shapes: S experts of the stack, B batch, F features, C classes; W_l and V_l the widths of a layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionrun.models.experts import MLP, Expert

__all__ = ["Stack", "stacks_of"]

# From a parameter of the first expert or head to the same one of all of them, (S, *shape).
Across = Callable[[Tensor], nn.Parameter]


class Stack(nn.Module):
    """Equal experts with their heads, computed together.

    Args:
        names: of the experts, in the order of their memory.
        expert: the first of them; says how many layers there are, and what lies between.
        head: its head.
        across: gives the same parameter of all of them.
    """

    def __init__(
        self, names: Sequence[str], expert: Expert, head: nn.Linear, across: Across
    ) -> None:
        super().__init__()
        backbone = expert.backbone
        assert isinstance(backbone, MLP)
        self.names = tuple(names)
        self.activation, self.dropout = backbone.activation, backbone.dropout
        linears = [cast(nn.Linear, layer) for layer in backbone.layers]
        self.weights = nn.ParameterList([across(linear.weight) for linear in linears])
        self.biases = nn.ParameterList([across(linear.bias) for linear in linears])
        self.norm_weight = None if expert.norm is None else across(expert.norm.weight)
        self.norm_bias = None if expert.norm is None else across(expert.norm.bias)
        self.head_weight, self.head_bias = across(head.weight), across(head.bias)

    @property
    def components(self) -> tuple[str, ...]:
        """Names of all that the stack computes."""
        return tuple(f"{part}.{name}" for name in self.names for part in ("experts", "heads"))

    def encode(self, inputs: Sequence[Tensor]) -> Tensor:
        """Each expert's scaled input (B, W_0) to all their features (S, B, F)."""
        x = torch.stack(list(inputs))
        last = len(self.weights) - 1
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = self.activation(_linear(x, weight, bias))
            if self.dropout and number < last:
                x = F.dropout(x, self.dropout, self.training)
        if self.norm_weight is None or self.norm_bias is None:
            return x
        normal = F.layer_norm(x, x.shape[-1:])
        return torch.addcmul(self.norm_bias.unsqueeze(1), normal, self.norm_weight.unsqueeze(1))

    def judge(self, features: Tensor) -> Tensor:
        """Features (S, B, F) to the logits of each one's head (S, B, C)."""
        return _linear(features, self.head_weight, self.head_bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(S, B, V) by (S, W, V) and (S, W) to (S, B, W)."""
    return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


def stacks_of(
    experts: Mapping[str, Expert], heads: Mapping[str, nn.Module]
) -> list[tuple[str, ...]]:
    """Names of the experts that can be computed together, two at least of each kind.

    MLPs of the same layers, activation, dropout and norm, all of whose parameters train, and
    whose heads do too.
    """
    kinds: dict[Any, list[str]] = {}
    for name, expert in experts.items():
        parameters = [*expert.parameters(), *heads[name].parameters()]
        if isinstance(expert.backbone, MLP) and all(p.requires_grad for p in parameters):
            kinds.setdefault(_kind(expert, heads[name]), []).append(name)
    return [tuple(names) for names in kinds.values() if len(names) > 1]


def _kind(expert: Expert, head: nn.Module) -> Any:
    backbone = expert.backbone
    assert isinstance(backbone, MLP)
    shapes = [tuple(p.shape) for module in (expert, head) for p in module.parameters()]
    return (tuple(shapes), backbone.activation, backbone.dropout, expert.norm is None)
