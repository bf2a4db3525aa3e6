"""How good a split's predictions are, path by path: accuracy, macro-F1, NLL, ECE.

Everything is computed in float64 on the CPU, once a split; a training step never comes here.

Shapes: N rows, E experts, C classes.
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
    truth = labels.cpu()
    paths = {GLOBAL: _log_probs(global_logits)}
    if heads_trained:
        log_probs = _log_probs(expert_logits)
        paths |= dict(zip(experts, log_probs, strict=True))
        # The logarithm of the mean of probabilities, without leaving the logarithms.
        paths[MEAN_OF_EXPERTS] = log_probs.logsumexp(0) - math.log(len(experts))
        if len(paths) != len(experts) + 2:
            raise ValueError(f"experts: the names must differ, also from the paths', got {experts}")
    return {path: metrics(log_probs, truth) for path, log_probs in paths.items()}


def metrics(log_probs: Tensor, labels: Tensor) -> Metrics:
    """The metrics of one path.

    Args:
        log_probs: (N, C) log-probabilities; float64 on the CPU.
        labels: (N,) class indices, likewise on the CPU.

    Raises:
        ValueError: there are no rows.
    """
    if not len(labels):
        raise ValueError("metrics: expected at least one row, got none")
    confidence, predicted = log_probs.max(-1)
    hits = predicted == labels
    return {
        "accuracy": hits.double().mean().item(),
        "macro_f1": _macro_f1(predicted, labels, log_probs.shape[-1]),
        "nll": -log_probs.gather(-1, labels.unsqueeze(-1)).mean().item(),
        "ece": _calibration_error(confidence.exp(), hits),
    }


def _log_probs(logits: Tensor) -> Tensor:
    return logits.to("cpu", torch.float64).log_softmax(-1)


def _macro_f1(predicted: Tensor, labels: Tensor, num_classes: int) -> float:
    """The mean of each class's F1 over all C classes.

    A class that is neither there nor predicted counts as 0, as in scikit-learn's
    `f1_score(labels=range(C), average="macro", zero_division=0)`.
    """
    right = labels[predicted == labels].bincount(minlength=num_classes)
    seen = labels.bincount(minlength=num_classes) + predicted.bincount(minlength=num_classes)
    return (2 * right.double() / seen.clamp_min(1)).mean().item()


def _calibration_error(confidence: Tensor, hits: Tensor) -> float:
    """Expected calibration error of the top label, bins (i/15, (i+1)/15] of equal width.

    Args:
        confidence: (N,) the top label's probability.
        hits: (N,) whether it is right.
    """
    edges = torch.linspace(0, 1, ECE_BINS + 1, dtype=confidence.dtype)[1:-1]
    # |Σ hits - Σ confidence| of a bin is its size times the gap of its means.
    bins = torch.bucketize(confidence, edges)
    gaps = bins.bincount(hits.double() - confidence, minlength=ECE_BINS)
    return gaps.abs().sum().item() / len(hits)
