"""How one step moves weights, as arithmetic on whole stretches: what a compiled step is made of.

`train.optimizer` calls torch's own kernels, one after the other; here the same formulas are
written out, so that a compiler can make one pass over memory of clipping, moments and weights.
They equal `torch.optim` to rounding.

Shapes: R rows of a piece of the memory, P numbers of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fusionrun.train.optimizer import OptimizerSettings

__all__ = ["Scales", "moved", "scales_of"]


class Scales(NamedTuple):
    """What a step is scaled by, in the weights' type.

    Attributes:
        rate: the learning rate.
        length: Adam's and AdamW's: the rate over the first moment's bias correction.
        root: likewise, the root of the second moment's.
    """

    rate: Tensor
    length: Tensor
    root: Tensor


def scales_of(settings: OptimizerSettings, rates: Tensor, steps: Tensor, like: Tensor) -> Tensor:
    """The scales of all spans, (3, K) in `like`'s type, worked out in float64.

    Outside of the compiled step: inside it a power would be taken for every single number.

    Args:
        settings: of the optimizer.
        rates: (K,), float64.
        steps: (K,), which step it is for each, from 1.
        like: a tensor of the weights' type.
    """
    if not settings.counts_steps:
        return rates.to(like).expand(3, -1)
    bias1, bias2 = (1 - beta ** steps.double() for beta in settings.betas)
    return torch.stack([rates, rates / bias1, bias2.sqrt()]).to(like)


def moved(
    settings: OptimizerSettings,
    weights: Tensor,
    grad: Tensor,
    moments: Sequence[Tensor],
    scales: Scales,
    weight_decay: float | Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """One step of a piece.

    Args:
        settings: of the optimizer.
        weights: (R, P).
        grad: (R, P), clipped.
        moments: (R, P) each, in the order of `settings.moments`.
        scales: of this step, (R, 1) each.
        weight_decay: decoupled for AdamW, part of the gradient else; (R, 1) if not of all rows.

    Returns:
        Weights and moments after the step. What came in stays as it was.
    """
    if settings.type == "AdamW":
        weights = weights - scales.rate * weight_decay * weights
    elif isinstance(weight_decay, Tensor) or weight_decay:
        grad = grad + weight_decay * weights
    if settings.type == "SGD":
        return _sgd(settings, weights, grad, moments, scales.rate)
    beta1, beta2 = settings.betas
    exp_avg, exp_avg_sq = moments
    exp_avg = exp_avg + (grad - exp_avg) * (1 - beta1)
    exp_avg_sq = exp_avg_sq * beta2 + grad * grad * (1 - beta2)
    denominator = exp_avg_sq.sqrt() / scales.root + settings.eps
    weights = weights - scales.length * exp_avg / denominator
    return weights, [exp_avg, exp_avg_sq]


def _sgd(
    settings: OptimizerSettings,
    weights: Tensor,
    grad: Tensor,
    moments: Sequence[Tensor],
    lr: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    if not moments:
        return weights - lr * grad, []
    # A buffer of zeros is what an absent one amounts to: dampening is 0.
    buffer = moments[0] * settings.momentum + grad
    direction = grad + buffer * settings.momentum if settings.nesterov else buffer
    return weights - lr * direction, [buffer]
