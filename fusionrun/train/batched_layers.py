"""Layers of several runs as one, whose backward leaves the gradients where they belong.

Autograd by itself makes a gradient of every parameter and then adds it: a pass over all of them
more, out of a cache that one run's would stay in. Here the product itself does; and where every
batch ends with a step it need not even add, so that nobody makes zeros beforehand.

Shapes: R runs, B rows, V and W a layer's widths.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function

from fusionrun.train.buffers import ALIGNMENT_BYTES

__all__ = ["Layer", "linear", "norm"]

_ROWS: Final = [True, False, False]
"""What torch's backward is asked for: the gradient of the rows, not of a weight or a bias."""
_NOTHING: Final = (None,) * 5
"""What autograd is given for a layer: it has its gradients already."""


class Layer(NamedTuple):
    """A layer's parameters in all runs, and their gradients.

    Attributes:
        weight: (R, W, V) of a Linear, (R, W) of a norm; `weight_grad` likewise.
        bias: (R, W); `bias_grad` likewise.
        adds: whether backward adds to the gradients; else it overwrites them.
    """

    weight: Tensor
    bias: Tensor
    weight_grad: Tensor
    bias_grad: Tensor
    adds: bool

    def of(self, expert: int) -> Layer:
        """Of a layer with one place for each expert, (R, E, W), that of one: (R, W)."""
        weight, bias, weight_grad, bias_grad = (tensor[:, expert] for tensor in self[:4])
        return Layer(weight, bias, weight_grad, bias_grad, self.adds)


def linear(x: Tensor, layer: Layer) -> Tensor:
    """(R, B, V) to (R, B, W)."""
    found: Tensor = _Linear.apply(x, *layer)  # type: ignore[no-untyped-call]
    return found


def norm(x: Tensor, layer: Layer, eps: float) -> Tensor:
    """LayerNorm over the last of (R, B, W)."""
    found: Tensor = _Norm.apply(x, *layer, eps)  # type: ignore[no-untyped-call]
    return found


def _aligned(x: Tensor) -> Tensor:
    """(R, B, V), each run's rows on such a boundary as they are on where it is by itself: BLAS
    chooses by that how it adds up, and bits must not depend on who else is there.
    """
    if len(x) == 1 or x.stride(0) % (ALIGNMENT_BYTES // x.element_size()) == 0:
        return x
    return _room(x).copy_(x)


def _room(like: Tensor) -> Tensor:
    """Memory in the shape of (R, B, V), aligned so."""
    runs, rows, width = like.shape
    step = ALIGNMENT_BYTES // like.element_size()
    size = -(-rows * width // step) * step
    return like.new_empty(runs, size)[:, : rows * width].view(runs, rows, width)


class _Linear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *given: Any) -> Tensor:
        layer = Layer(*given)
        x = _aligned(x)
        ctx.save_for_backward(x)
        ctx.layer = layer
        return torch.baddbmm(layer.bias.unsqueeze(1), x, layer.weight.mT)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (slope,), layer = ctx.saved_tensors, slopes, ctx.layer
        if layer.adds:
            layer.weight_grad.baddbmm_(slope.mT, x)
            layer.bias_grad.add_(slope.sum(1))
        else:
            torch.bmm(slope.mT, x, out=layer.weight_grad)
            torch.sum(slope, 1, out=layer.bias_grad)
        back = _room(x) if ctx.needs_input_grad[0] else None
        if back is not None:
            torch.bmm(slope, layer.weight, out=back)
        return back, *_NOTHING


class _Norm(Function):
    """The weight, each run's own, behind torch's kernel, which knows one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *given: Any) -> Tensor:
        *own, eps = given
        layer = Layer(*own)
        # With a weight and a bias that do nothing it takes half the time (measured, CPU).
        width = x.shape[-1]
        nothing = x.new_ones(width), x.new_zeros(width)
        normed, mean, scale = torch.native_layer_norm(x, [width], *nothing, eps)
        ctx.save_for_backward(x, normed, mean, scale)
        ctx.layer = layer
        return torch.addcmul(layer.bias.unsqueeze(1), normed, layer.weight.unsqueeze(1))

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (x, normed, mean, scale), (slope,), layer = ctx.saved_tensors, slopes, ctx.layer
        product = slope * normed
        if layer.adds:
            layer.weight_grad.add_(product.sum(1))
            layer.bias_grad.add_(slope.sum(1))
        else:
            torch.sum(product, 1, out=layer.weight_grad)
            torch.sum(slope, 1, out=layer.bias_grad)
        back = torch.ops.aten.native_layer_norm_backward(
            slope * layer.weight.unsqueeze(1), x, x.shape[-1:], mean, scale, None, None, _ROWS
        )
        return back[0], *_NOTHING, None
