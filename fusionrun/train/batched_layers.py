"""Layers of several runs as one, whose backward adds to the gradients where they are.

Autograd by itself makes a gradient of every parameter and then adds it: a pass over all of them
more, out of a cache that one run's would stay in. Here the product itself does.

Shapes: R runs, B rows, V and W a layer's widths.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

__all__ = ["Layer", "linear", "norm"]


class Layer(NamedTuple):
    """A layer's parameters in all runs, and their gradients.

    Attributes:
        weight: (R, W, V) of a Linear, (R, W) of a norm; `weight_grad` likewise.
        bias: (R, W); `bias_grad` likewise.
    """

    weight: Tensor
    bias: Tensor
    weight_grad: Tensor
    bias_grad: Tensor

    def of(self, expert: int) -> Layer:
        """Of a layer with one place for each expert, (R, E, W), that of one: (R, W)."""
        return Layer(*(tensor[:, expert] for tensor in self))


def linear(x: Tensor, layer: Layer) -> Tensor:
    """(R, B, V) to (R, B, W)."""
    found: Tensor = _Linear.apply(x, *layer)  # type: ignore[no-untyped-call]
    return found


def norm(x: Tensor, layer: Layer, eps: float) -> Tensor:
    """LayerNorm over the last of (R, B, W)."""
    found: Tensor = _Norm.apply(x, *layer, eps)  # type: ignore[no-untyped-call]
    return found


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        layer = Layer(*parameters)
        ctx.save_for_backward(x)
        ctx.layer = layer
        return torch.baddbmm(layer.bias.unsqueeze(1), x, layer.weight.mT)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (slope,), layer = ctx.saved_tensors, slopes, ctx.layer
        layer.weight_grad.baddbmm_(slope.mT, x)
        layer.bias_grad.add_(slope.sum(1))
        back = torch.bmm(slope, layer.weight) if ctx.needs_input_grad[0] else None
        return back, None, None, None, None


class _Norm(Function):
    """Run after run: torch's kernel knows one weight, and a run's rows stay in the cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *given: Any) -> Tensor:
        *parameters, eps = given
        layer, width = Layer(*parameters), x.shape[-1:]
        rows = zip(x, layer.weight, layer.bias, strict=True)
        found = [torch.native_layer_norm(own, width, w, b, eps) for own, w, b in rows]
        normed, means, scales = zip(*found, strict=True)
        ctx.save_for_backward(x)
        ctx.layer, ctx.statistics = layer, list(zip(means, scales, strict=True))
        return torch.stack(normed)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (slope,), layer = ctx.saved_tensors, slopes, ctx.layer
        back = []
        for own, rows, of_it, (w, b, w_grad, b_grad) in zip(
            slope, x, ctx.statistics, zip(*layer, strict=True), strict=True
        ):
            to_rows, to_weight, to_bias = torch.ops.aten.native_layer_norm_backward(
                own, rows, rows.shape[-1:], *of_it, w, b, [True, True, True]
            )
            w_grad.add_(to_weight)
            b_grad.add_(to_bias)
            back.append(to_rows)
        return torch.stack(back), None, None, None, None, None
