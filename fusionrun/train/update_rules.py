"""How one step moves weights, as arithmetic on whole stretches: what a compiled step is made of.

`train.optimizer` calls torch's own kernels, one after the other; here the same formulas are
written out, so that a compiler can make one pass over memory of clipping, moments and weights.
They equal `torch.optim` to rounding.

Shapes: N numbers of one component.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fusionrun.train.optimizer import OptimizerSettings

__all__ = ["moved"]


def moved(
    settings: OptimizerSettings,
    weights: Tensor,
    grad: Tensor,
    moments: Sequence[Tensor],
    step: Tensor,
    lr: Tensor,
    weight_decay: float,
) -> tuple[Tensor, list[Tensor]]:
    """One step of one component.

    Args:
        settings: of the optimizer.
        weights: (N,).
        grad: (N,), clipped.
        moments: (N,) each, in the order of `settings.moments`.
        step: (), which step it is, from 1.
        lr: (), the rate, in float64.
        weight_decay: decoupled for AdamW, part of the gradient else.

    Returns:
        Weights and moments after the step. What came in stays as it was.
    """
    if settings.type == "AdamW":
        weights = weights * (1 - lr * weight_decay)
    elif weight_decay:
        grad = grad + weight_decay * weights
    if settings.type == "SGD":
        return _sgd(settings, weights, grad, moments, lr)
    beta1, beta2 = settings.betas
    exp_avg, exp_avg_sq = moments
    exp_avg = exp_avg + (grad - exp_avg) * (1 - beta1)
    exp_avg_sq = exp_avg_sq * beta2 + grad * grad * (1 - beta2)
    # In float64: 1 - 0.999 has few digits left in float32.
    bias1, bias2 = (1 - beta ** step.double() for beta in settings.betas)
    denominator = exp_avg_sq.sqrt() / bias2.sqrt() + settings.eps
    weights = weights - lr / bias1 * exp_avg / denominator
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
