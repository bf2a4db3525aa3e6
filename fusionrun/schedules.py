"""The learning rate of a component at an epoch, as closed forms. No torch, no numpy.

Every form gives what torch's scheduler of the same name gives when it is stepped once an epoch;
the tests compare the two. A schedule is a section of `fusionrun.schema.schedulers` in which no
`auto` is left. Rates are those of the optimizer, unitless; epochs count from 0.

No rate ever exceeds its base rate: a floor (`eta_min`) above the base counts as the base, which
holds the rate there. And no valid section raises: a OneCycleLR that is over keeps its final rate,
and one whose top is epoch 0 starts there, where torch raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, singledispatch
from math import cos, pi
from typing import Any

from fusionrun.schema.schedulers import (
    SCHEDULERS,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    Scheduler,
    StepLR,
    WarmableScheduler,
    Warmup,
)


def of_section(section: Mapping[str, Any]) -> Scheduler:
    """The schedule that a resolved, valid section of plain values means.

    Constructed, not validated: a validator takes long to build.

    Raises:
        TypeError: the section's `type` is no scheduler's.
    """
    kind = SCHEDULERS.choose(section)
    if kind is None:
        raise TypeError(f"no scheduler kind for {section}")
    warmup = section.get("warmup")
    built = Warmup.model_construct(**warmup) if warmup else None
    return kind.model_construct(**{**section, "warmup": built})


@lru_cache(maxsize=64)
def rates(schedule: Scheduler, base: float, epochs: int) -> tuple[float, ...]:
    """The rate of each epoch of a run: `epochs` numbers. See `rate`.

    Remembered, for a head and its expert have the same, and so have most experts: with a hundred
    thousand epochs making them is all that a plan waits for.
    """
    return tuple(rate(schedule, base, epoch) for epoch in range(epochs))


def rate(schedule: Scheduler, base: float, epoch: int) -> float:
    """The rate of one epoch, between 0 and `base`.

    With a warm-up of w epochs this is torch's
    `SequentialLR([LinearLR(start_factor, total_iters=w), schedule], milestones=[w])`.

    Args:
        schedule: a resolved section.
        base: the component's base rate, greater than 0.
        epoch: counted from 0.
    """
    warmup = _warmup(schedule)
    if warmup is None:
        return _main(schedule, base, epoch)
    if epoch < warmup.epochs:
        return base * _between(warmup.start_factor, 1.0, epoch / warmup.epochs)
    return _main(schedule, base, epoch - warmup.epochs)


def _warmup(schedule: Scheduler) -> Warmup | None:
    return schedule.warmup if isinstance(schedule, WarmableScheduler) else None


# The closed forms: η is the rate, η₀ the base rate, t the epoch after the warm-up.


@singledispatch
def _main(schedule: Scheduler, base: float, epoch: int) -> float:
    raise TypeError(f"no closed form is registered for {type(schedule).__name__}")


@_main.register(CosineAnnealingLR)
def _cosine(schedule: CosineAnnealingLR, base: float, epoch: int) -> float:
    """η = η_min + (η₀ - η_min) · (1 + cos(π t / T_max)) / 2. torch: CosineAnnealingLR."""
    floor = min(schedule.eta_min, base)
    return _between(floor, base, _half_wave(epoch / schedule.T_max))


@_main.register(CosineAnnealingWarmRestarts)
def _warm_restarts(schedule: CosineAnnealingWarmRestarts, base: float, epoch: int) -> float:
    """η = η_min + (η₀ - η_min) · (1 + cos(π t_i / T_i)) / 2. torch: CosineAnnealingWarmRestarts.

    t_i counts from the last restart, and T_i = T_0 · T_mult^i.
    """
    since, length = _wave(schedule.T_0, schedule.T_mult, epoch)
    floor = min(schedule.eta_min, base)
    return _between(floor, base, _half_wave(since / length))


@_main.register(StepLR)
def _step(schedule: StepLR, base: float, epoch: int) -> float:
    """η = η₀ · γ^⌊t / step_size⌋. torch: StepLR."""
    return float(base * schedule.gamma ** (epoch // schedule.step_size))


@_main.register(MultiStepLR)
def _multi_step(schedule: MultiStepLR, base: float, epoch: int) -> float:
    """η = η₀ · γ^(number of milestones ≤ t). torch: MultiStepLR."""
    drops = sum(milestone <= epoch for milestone in schedule.milestones)
    return float(base * schedule.gamma**drops)


@_main.register(ExponentialLR)
def _exponential(schedule: ExponentialLR, base: float, epoch: int) -> float:
    """η = η₀ · γ^t. torch: ExponentialLR."""
    return float(base * schedule.gamma**epoch)


@_main.register(PolynomialLR)
def _polynomial(schedule: PolynomialLR, base: float, epoch: int) -> float:
    """η = η₀ · (1 - min(t, T) / T)^power, T = total_iters. torch: PolynomialLR."""
    left = 1.0 - min(epoch, schedule.total_iters) / schedule.total_iters
    return float(base * left**schedule.power)


@_main.register(ConstantLR)
def _constant(schedule: ConstantLR, base: float, epoch: int) -> float:
    """η = η₀ · factor while t < total_iters, then η₀. torch: ConstantLR."""
    return base * schedule.factor if epoch < schedule.total_iters else base


@_main.register(LinearLR)
def _linear(schedule: LinearLR, base: float, epoch: int) -> float:
    """η = η₀ · (start + (end - start) · min(t, T) / T), T = total_iters. torch: LinearLR."""
    progress = min(epoch, schedule.total_iters) / schedule.total_iters
    return base * _between(schedule.start_factor, schedule.end_factor, progress)


@_main.register(OneCycleLR)
def _one_cycle(schedule: OneCycleLR, base: float, epoch: int) -> float:
    """Up from peak / div_factor to peak = η₀ · `peak`, then down. torch: OneCycleLR.

    The top lies at t = pct_start · total_steps - 1: between two epochs as a rule, and before
    epoch 0 in a very short run, which then only falls. Source: Smith and Topin, 2018, in the
    two phases of torch (`three_phase=False`).
    """
    peak = schedule.peak * base
    start = peak / schedule.div_factor
    final = start / schedule.final_div_factor
    last = schedule.total_steps - 1
    top = schedule.pct_start * schedule.total_steps - 1
    epoch = min(epoch, last)
    if epoch > top:
        return _anneal(schedule, peak, final, (epoch - top) / (last - top))
    # Where epoch 0 is the top there is no rise to be part of; torch divides by zero there.
    return _anneal(schedule, start, peak, epoch / top if top else 1.0)


def _anneal(schedule: OneCycleLR, first: float, last: float, progress: float) -> float:
    if schedule.anneal_strategy == "linear":
        return _between(first, last, progress)
    return _between(last, first, _half_wave(progress))


def _half_wave(progress: float) -> float:
    """From 1 at progress 0 to 0 at progress 1, along a cosine."""
    return (1.0 + cos(pi * progress)) / 2.0


def _between(first: float, last: float, weight: float) -> float:
    """The number that lies `weight` (0 to 1) of the way from first to last.

    Exact at both ends and never beyond them, rounding included: so no rate exceeds its base.
    """
    return last if weight == 1.0 else first + (last - first) * weight


def _wave(first: int, factor: int, epoch: int) -> tuple[int, int]:
    """Epochs since the last restart, and the length of the present wave.

    Whole numbers throughout: a logarithm, the closed form, is off by one wave at some restarts.
    """
    if factor == 1:
        return epoch % first, first
    length = first
    while epoch >= length:
        epoch -= length
        length *= factor
    return epoch, length


# Defaults of what a recipe leaves at `auto`. The resolver calls them with the epochs that the
# schedule proper has: the run's, less its warm-up. Only the first of them subtracts by itself.


def default_T_max(epochs: int, warmup: int) -> int:
    """Fall of the cosine: max(1, epochs - warmup), in epochs; `warmup` is 0 where there is none.

    Source: the origin (`T_max = epochs`); less the warm-up, so that the fall ends with the run.
    """
    return max(1, epochs - warmup)


def default_T_0(epochs: int) -> int:
    """First wave of the warm restarts: max(1, epochs // 4), in epochs. Source: the origin."""
    return max(1, epochs // 4)


def default_step_size(epochs: int) -> int:
    """Distance of StepLR's drops: max(1, epochs // 3), in epochs. Source: assumed (two drops)."""
    return max(1, epochs // 3)


def default_milestones(epochs: int) -> tuple[int, ...]:
    """Drops of MultiStepLR: at 50 % and 75 % of the epochs, rounded down, at least 1, each once.

    Source: He et al., 2016 (ResNet on CIFAR-10: 32k and 48k of 64k iterations).
    """
    halfway, late = max(1, epochs // 2), max(1, epochs * 3 // 4)
    return (halfway,) if late == halfway else (halfway, late)


def default_total(epochs: int) -> int:
    """Length of a schedule that spans the run: max(1, epochs), in epochs. Source: by definition."""
    return max(1, epochs)
