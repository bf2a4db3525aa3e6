"""A rate range test: some steps at growing rates, from the first weights of a plan's run.

Nothing is kept of it but the curve: no run directory is made, no weights are written. The same
plan gives the same curve on one machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from fusionrun.data.load import load_data
from fusionrun.errors import TrainingError
from fusionrun.models.network import FusionNetwork
from fusionrun.plan.plan import Plan
from fusionrun.plan.rate_curve import Point, RateCurve, reference, smoothed
from fusionrun.train.assemble import (
    choose_device,
    loss_settings,
    make_network,
    make_updater,
    prepare_process,
)
from fusionrun.train.augment import BatchPart, augmenter_of, batches_of
from fusionrun.train.step import Step
from fusionrun.train.tables import Batch, Table, epoch_order, spans

__all__ = ["rate_range"]

Labelled = tuple[Batch, bool]

DIVERGED: Final = 4.0
"""Times the least smoothed loss: beyond it the test ends. Source: fastai's lr_find."""


def rate_range(plan: Plan, low: float, high: float, steps: int) -> RateCurve:
    """Train for at most so many steps while the rates grow by equal factors.

    Args:
        plan: of a run that could begin; its schedules and epochs have no say.
        low: rate of the fastest component at the first step; the others keep their ratio to it.
        high: likewise at the last step.
        steps: at least 2; an epoch may end in between.

    Raises:
        TrainingError: the first step's loss is not finite.
        DataError: the data cannot be read.
    """
    settings = plan.settings.training
    device = choose_device(settings.device)
    prepare_process(plan, device)
    rows = load_data(plan.settings.data, plan.data)["train"]
    network = make_network(plan, rows).to(device)
    frozen = [n for n in network.names if plan.components[f"experts.{n}"].is_frozen(0)]
    updater = make_updater(_never_halting(plan, steps), network, device)
    step = Step(network, updater, loss_settings(plan), settings.precision, device)
    network.freeze(frozen)
    views = {name: expert.view for name, expert in plan.settings.experts.items()}
    table = Table(rows, network.experts_by_name, views, device)
    torch.manual_seed(plan.seed)
    component, base = reference(plan)
    rates = [low * (high / low) ** (n / (steps - 1)) for n in range(steps)]
    points, ended = _steps(plan, step, _batches(plan, table, network), rates, base)
    if not points:
        raise TrainingError(
            f"the loss is not finite at the first step, at a rate of {low:g}: a lower rate mends "
            "nothing. Fix: look at the data, or precision float32"
        )
    return RateCurve(component, base, tuple(points), ended)


def _never_halting(plan: Plan, steps: int) -> Plan:
    """The test ends by the loss, never by a gradient that is not finite."""
    key = "training.max_skipped_steps"
    return replace(plan, values={**plan.values, key: plan.values[key]._replace(value=steps)})


def _steps(
    plan: Plan, step: Step, batches: Iterator[Labelled], rates: list[float], base: float
) -> tuple[list[Point], str]:
    points: list[Point] = []
    for rate, (batch, closes) in zip(rates, batches, strict=False):
        step.updater.set_rates(_rates(plan, rate / base))
        loss = float(step(batch, closes).terms[0])
        if not math.isfinite(loss):
            return points, f"the loss was not finite at {rate:.2g}"
        points.append(Point(rate, loss))
        means = smoothed([point.loss for point in points])
        if means[-1] > DIVERGED * min(means):
            return points, f"the loss was {DIVERGED:g} times its least at {rate:.2g}"
    return points, "all steps were made"


def _rates(plan: Plan, factor: float) -> dict[str, float | None]:
    return {n: None if c.is_frozen(0) else c.lr * factor for n, c in plan.components.items()}


def _batches(plan: Plan, table: Table, network: FusionNetwork) -> Iterator[Labelled]:
    """The training batches without an end, augmented, and whether each is its epoch's last."""
    augmenter = augmenter_of(plan, table, network.experts_by_name)
    parts_of = spans(len(table), plan.settings.training.batch_size)
    epoch = 0
    while True:
        order: Tensor = epoch_order(len(table), plan.seed, epoch, table.labels.device)
        parts = [BatchPart(epoch * len(parts_of) + n, *s, *s) for n, s in enumerate(parts_of)]
        for part, batch in zip(parts, batches_of(table, order, parts, augmenter), strict=True):
            yield batch, part.stop == len(table)
        epoch += 1
