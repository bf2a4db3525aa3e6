"""How good a split's predictions are, path by path: accuracy, macro-F1, NLL, ECE.

Everything is computed in float64 on the CPU, once a split; a training step never comes here.

Shapes: N rows, E experts, C classes, P paths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

__all__ = ["GLOBAL", "MEAN_OF_EXPERTS", "Metrics", "metrics", "path_metrics"]

Metrics = dict[str, float]
"""`accuracy`, `macro_f1` and `ece` between 0 and 1, `nll` in nats."""

GLOBAL: Final = "global"
MEAN_OF_EXPERTS: Final = "mean_of_experts"
ECE_BINS: Final = 15
"""As in Guo et al., "On Calibration of Modern Neural Networks" (2017)."""


@torch.no_grad()
def path_metrics(
    expert_logits: Tensor,
    global_logits: Tensor,
    labels: Tensor,
    experts: Sequence[str],
    heads_trained: bool,
) -> dict[str, Metrics]:
    """The metrics of every path that can predict.

    Args:
        expert_logits: (E, N, C), on any device.
        global_logits: (N, C).
        labels: (N,) class indices.
        experts: the experts' names, in the order of `expert_logits`.
        heads_trained: where False only the global path is judged, for what untrained heads say
            means nothing.

    Returns:
        Metrics under `global`, each expert's name, and `mean_of_experts`: the mean of the
        experts' probabilities.

    Raises:
        ValueError: there are no rows, or names and logits do not match.
    """
    rows = [_log_probs(global_logits).unsqueeze(0)]
    names = [GLOBAL]
    if heads_trained:
        log_probs = _log_probs(expert_logits)
        # The logarithm of the mean of probabilities, without leaving the logarithms.
        mean = log_probs.logsumexp(0, keepdim=True) - math.log(len(experts))
        rows += [log_probs, mean]
        names += [*experts, MEAN_OF_EXPERTS]
    if len(set(names)) != sum(map(len, rows)):
        raise ValueError(f"experts: the names must differ, also from the paths', got {experts}")
    return dict(zip(names, _of_all(torch.cat(rows), labels.cpu()), strict=True))


def metrics(log_probs: Tensor, labels: Tensor) -> Metrics:
    """The metrics of one path.

    Args:
        log_probs: (N, C) log-probabilities; float64 on the CPU.
        labels: (N,) class indices, likewise on the CPU.

    Raises:
        ValueError: there are no rows.
    """
    return _of_all(log_probs.unsqueeze(0), labels)[0]


def _of_all(log_probs: Tensor, labels: Tensor) -> list[Metrics]:
    """The metrics of several paths (P, N, C) at once: with few rows a call costs more than its
    arithmetic.
    """
    if not len(labels):
        raise ValueError("metrics: expected at least one row, got none")
    confidence, predicted = log_probs.max(-1)
    hits = predicted == labels
    truth = labels.expand_as(predicted).unsqueeze(-1)
    found = {
        "accuracy": hits.double().mean(-1),
        "macro_f1": _macro_f1(predicted, labels, log_probs.shape[-1]),
        "nll": -log_probs.gather(-1, truth).squeeze(-1).mean(-1),
        "ece": _calibration_error(confidence.exp(), hits),
    }
    columns = (values.tolist() for values in found.values())
    return [dict(zip(found, row, strict=True)) for row in zip(*columns, strict=True)]


def _log_probs(logits: Tensor) -> Tensor:
    return logits.to("cpu", torch.float64).log_softmax(-1)


def _macro_f1(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The mean of each class's F1 over all C classes, (P,).

    A class that is neither there nor predicted counts as 0, as in scikit-learn's
    `f1_score(labels=range(C), average="macro", zero_division=0)`.
    """
    right = _counted(predicted, num_classes, (predicted == labels).double())
    seen = labels.bincount(minlength=num_classes) + _counted(predicted, num_classes)
    return (2 * right / seen.clamp_min(1)).mean(-1)


def _calibration_error(confidence: Tensor, hits: Tensor) -> Tensor:
    """Expected calibration error of the top label, bins (i/15, (i+1)/15] of equal width, (P,).

    Args:
        confidence: (P, N) the top label's probability.
        hits: (P, N) whether it is right.
    """
    edges = torch.linspace(0, 1, ECE_BINS + 1, dtype=confidence.dtype)[1:-1]
    # |Σ hits - Σ confidence| of a bin is its size times the gap of its means.
    gaps = _counted(torch.bucketize(confidence, edges), ECE_BINS, hits.double() - confidence)
    return gaps.abs().sum(-1) / hits.shape[-1]


def _counted(numbers: Tensor, size: int, weights: Tensor | None = None) -> Tensor:
    """How often, or with what weight, each path (P, N) has each number: (P, size)."""
    paths = len(numbers)
    apart = numbers + size * torch.arange(paths).unsqueeze(-1)
    flat = None if weights is None else weights.flatten()
    return apart.flatten().bincount(flat, minlength=paths * size).view(paths, size)
