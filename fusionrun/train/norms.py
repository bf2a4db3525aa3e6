"""Gradient norms: what a step leaves on the device, and what an epoch of them comes to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

__all__ = ["NO_STEP", "NormSummary", "StepRecord", "by_group", "summary"]


class StepRecord(NamedTuple):
    """One step: which clip groups took it, and their norms before clipping.

    Attributes:
        groups: names of the clip groups that stepped.
        norms: (len(groups),), still on the device; after division by the window's batches.
    """

    groups: tuple[str, ...]
    norms: Tensor


NO_STEP: Final = StepRecord((), torch.zeros(0))
"""What a batch leaves after which no group steps."""


class NormSummary(NamedTuple):
    """A clip group's steps of an epoch.

    Attributes:
        steps: how many there were.
        mean: the mean norm before clipping, over the finite ones.
        largest: the largest of those.
        clipped_share: the share of all steps whose norm lay above the limit.
        nonfinite: how many steps were taken with a norm that was infinite or not a number.
        skipped: how many were left out for that, and the run went on.
    """

    steps: int
    mean: float
    largest: float
    clipped_share: float
    nonfinite: int
    skipped: int


def by_group(records: Iterable[StepRecord]) -> dict[str, list[float]]:
    """The norms of many steps by clip group. Reads from the device, once."""
    kept = list(records)
    norms: dict[str, list[float]] = {}
    if kept:
        values = torch.cat([record.norms for record in kept]).tolist()
        names = [name for record in kept for name in record.groups]
        for name, value in zip(names, values, strict=True):
            norms.setdefault(name, []).append(value)
    return norms


def summary(norms: Sequence[float], limit: float | None, skips: bool) -> NormSummary:
    """What the norms of one clip group come to.

    Args:
        norms: of each step of an epoch.
        limit: what they were clipped to, or None.
        skips: whether a step with a norm that is not finite was left out.
    """
    finite = [norm for norm in norms if math.isfinite(norm)]
    clipped = 0 if limit is None else sum(norm + 1e-6 > limit for norm in finite)
    return NormSummary(
        steps=len(norms),
        mean=math.fsum(finite) / len(finite) if finite else math.nan,
        largest=max(finite, default=math.nan),
        clipped_share=clipped / len(norms),
        nonfinite=0 if skips else len(norms) - len(finite),
        skipped=len(norms) - len(finite) if skips else 0,
    )
