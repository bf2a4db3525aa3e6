"""BatchNorm by the statistics of the whole batch, wherever its rows are.

With several ranks each has a part of a batch's rows. Normalised by its own, every rank would train
another network than one rank with the whole batch does; here means and variances are those of all
rows, in the forward pass and in its gradient, on gloo and nccl alike, and the running statistics
are the same on all ranks to the bit. A rank without rows takes part with a row that counts for
nothing. What torch itself offers, SyncBatchNorm, has no CPU version and needs rows on every rank.

It acts where BatchNorm is called, `torch.nn.functional.batch_norm`, so that a network of any
library is trained alike and its modules stay what they are.

Shapes: B rows, C channels; x is (B, C, …).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from fusionrun.train.ranks import Ranks

__all__ = ["OneRow", "WholeBatch", "has_batch_norm"]

_EPS: Final = 1e-5
_MOMENTUM: Final = 0.1


def has_batch_norm(network: nn.Module) -> bool:
    """Whether any module of a network normalises by the batch."""
    return any(isinstance(module, _BatchNorm) for module in network.modules())


class _Norm(NamedTuple):
    """The arguments of `torch.nn.functional.batch_norm`."""

    x: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = _MOMENTUM
    eps: float = _EPS


class _TakesBatchNorm(TorchFunctionMode):
    """A context in which BatchNorm goes by `_batch_norm`, and all else by torch."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Every call of torch comes by here; only that one is taken."""
        if func is F.batch_norm:
            return self._batch_norm(_Norm(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))

    def _batch_norm(self, own: _Norm) -> Tensor:
        raise NotImplementedError


class WholeBatch(_TakesBatchNorm):
    """A context in which BatchNorm in training mode normalises by the whole batch.

    Also for a batch of a single value a channel, which torch refuses: its deviation is 0, and the
    running statistics, of which it can say nothing, stay.

    Args:
        ranks: all of them go through the same forward and backward pass.
        rows: of this rank that count: 0 for one that only takes part.
        passed: rows of this rank that go through the network: 1 where none counts.
        batch_rows: of the whole batch.
    """

    def __init__(self, ranks: Ranks, rows: int, passed: int, batch_rows: int) -> None:
        super().__init__()
        self._sum = ranks.sum_
        self._share = rows / passed
        self._rows = batch_rows / passed

    def _batch_norm(self, own: _Norm) -> Tensor:
        """What is not training is torch's own."""
        if not own.training:
            return F.batch_norm(*own)
        x, running_mean, running_var = own.x, own.running_mean, own.running_var
        count = round(x.numel() / x.shape[1] * self._rows)
        normed: Tensor
        normed, mean, var = _Normalise.apply(x, count, self._share, own.eps, self._sum)  # type: ignore[no-untyped-call]
        if running_mean is not None and running_var is not None and count > 1:
            running_mean.lerp_(mean.to(running_mean.dtype), own.momentum)
            unbiased = var * (count / (count - 1))
            running_var.lerp_(unbiased.to(running_var.dtype), own.momentum)
        return _scaled(normed, own.weight, own.bias)


class OneRow(_TakesBatchNorm):
    """A context for a batch of one row in one process: what `WholeBatch` says of a single value a
    channel, in operations of torch that a step's function can be differentiated through.
    """

    def _batch_norm(self, own: _Norm) -> Tensor:
        """Of single values the shift, and no gradient passes; all else is torch's own."""
        if own.training and own.x.numel() == own.x.shape[1]:
            return _scaled(own.x - own.x, own.weight, own.bias)
        return F.batch_norm(*own)


def _scaled(normed: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """By a BatchNorm's own weight and bias, where it has any."""
    shape = _beside(normed)
    if weight is not None:
        normed = normed * weight.to(normed.dtype).view(shape)
    return normed if bias is None else normed + bias.to(normed.dtype).view(shape)


class _Normalise(torch.autograd.Function):
    """(x - mean) / deviation over all rows of all ranks, without scale and shift.

    The ranks' statistics are joined in float64: each rank's own mean, and its squares about that,
    so that little is lost where a mean is large beside its deviation.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        count: int,
        share: float,
        eps: float,
        sum_: Callable[[Tensor], None],
    ) -> tuple[Tensor, Tensor, Tensor]:
        dims = [0, *range(2, x.ndim)]
        wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
        own_var, own_mean = torch.var_mean(wide, dims, correction=0)
        own_var, own_mean = own_var.double(), own_mean.double()
        own_count = share * x.numel() / x.shape[1]
        moments = torch.stack(
            [own_mean * own_count, own_var * own_count, own_mean.square() * own_count]
        )
        sum_(moments)
        mean = moments[0] / count
        var = (moments[1] + moments[2]) / count - mean.square()
        var = var.clamp_(min=0)
        inverse = (var + eps).rsqrt()
        shape = _beside(x)
        normed = (wide - mean.to(wide.dtype).view(shape)) * inverse.to(wide.dtype).view(shape)
        ctx.save_for_backward(normed, inverse)
        ctx.count, ctx.sum_, ctx.share = count, sum_, share
        ctx.mark_non_differentiable(mean, var)
        return normed.to(x.dtype), mean, var

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        normed, inverse = ctx.saved_tensors
        wide = grad.to(normed.dtype)
        dims = [0, *range(2, grad.ndim)]
        sums = torch.stack([wide.sum(dims).double(), (wide * normed).sum(dims).double()])
        ctx.sum_(sums)
        shape = _beside(grad)
        mean, along = (part.to(wide.dtype).view(shape) for part in sums / ctx.count)
        # A row that counts for nothing has no part in the statistics, nor their gradient in it.
        through = (mean + normed * along) * ctx.share
        own = (wide - through) * inverse.to(wide.dtype).view(shape)
        return own.to(grad.dtype), None, None, None, None


def _beside(x: Tensor) -> list[int]:
    """The shape in which a number a channel stands beside x."""
    return [1, -1, *[1] * (x.ndim - 2)]
