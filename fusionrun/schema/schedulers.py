"""Schedulers: how a component's learning rate moves over the epochs. Names as in torch.

Shapes and bounds only; `fusionrun.schedules` turns a resolved section into rates. The bounds
keep every schedule at or below the base rate, so a recipe's base rate is the highest ever used.
"""

from typing import Annotated, Literal

from pydantic import Field

from fusionrun.schema.base import AUTO, Count, Factor, NonNegative, OrAuto, Positive, Section
from fusionrun.schema.kinds import Kinds

EpochsOrAuto = Annotated[Count, OrAuto()]
Floor = Annotated[NonNegative, OrAuto()]
Divisor = Annotated[float, Field(ge=1)]


class Warmup(Section):
    """A linear rise to the full rate, before the schedule proper begins."""

    type: Literal["LinearLR"] = "LinearLR"
    """As in torch.optim.lr_scheduler."""
    epochs: Count
    """Epochs below the full rate; the schedule proper starts after them, at its own epoch 0."""
    start_factor: Factor = 1 / 3
    """Rate of the first epoch, as a factor on the base rate."""


class Scheduler(Section):
    """Base of every scheduler. Epochs count from 0, and a rate holds for a whole epoch."""

    type: str
    """As in torch.optim.lr_scheduler."""


class WarmableScheduler(Scheduler):
    """Base of the schedulers that may be preceded by a warm-up."""

    warmup: Warmup | None = None
    """A linear rise before it; null: none."""


class CosineAnnealingLR(WarmableScheduler):
    """Half a cosine wave down from the base rate, and up again after T_max."""

    type: Literal["CosineAnnealingLR"]
    """As in torch.optim.lr_scheduler."""
    T_max: EpochsOrAuto = AUTO
    """Epochs until the lowest rate; auto: all after the warm-up."""
    eta_min: Floor = AUTO
    """Lowest rate; auto: the preset's factor on the component's base rate."""


class CosineAnnealingWarmRestarts(WarmableScheduler):
    """Half a cosine wave down from the base rate, again and again."""

    type: Literal["CosineAnnealingWarmRestarts"]
    """As in torch.optim.lr_scheduler."""
    T_0: EpochsOrAuto = AUTO
    """Epochs until the first restart; auto: a quarter of those after the warm-up."""
    T_mult: Count = 2
    """Factor on the length of each further wave."""
    eta_min: Floor = AUTO
    """Lowest rate; auto: the preset's factor on the component's base rate."""


class StepLR(WarmableScheduler):
    """A drop at regular distances."""

    type: Literal["StepLR"]
    """As in torch.optim.lr_scheduler."""
    step_size: EpochsOrAuto = AUTO
    """Epochs between two drops; auto: a third of those after the warm-up."""
    gamma: Factor = 0.1
    """Factor on the rate at each drop."""


class MultiStepLR(WarmableScheduler):
    """A drop at each milestone."""

    type: Literal["MultiStepLR"]
    """As in torch.optim.lr_scheduler."""
    milestones: Annotated[tuple[Count, ...], OrAuto()] = AUTO
    """Epochs that begin with a drop, in any order; auto: half and three quarters of the way."""
    gamma: Factor = 0.1
    """Factor on the rate at each drop; an epoch named twice drops twice."""


class ExponentialLR(WarmableScheduler):
    """A drop at every epoch."""

    type: Literal["ExponentialLR"]
    """As in torch.optim.lr_scheduler."""
    gamma: Factor = 0.95
    """Factor on the rate at each epoch."""


class PolynomialLR(WarmableScheduler):
    """Down to zero along a power of the epochs that are left."""

    type: Literal["PolynomialLR"]
    """As in torch.optim.lr_scheduler."""
    total_iters: EpochsOrAuto = AUTO
    """Epochs until zero; auto: all after the warm-up."""
    power: Positive = 1.0
    """Exponent; 1 is a straight line."""


class ConstantLR(WarmableScheduler):
    """A reduced rate at first, then the base rate; with factor 1, the base rate throughout."""

    type: Literal["ConstantLR"]
    """As in torch.optim.lr_scheduler."""
    factor: Factor = 1 / 3
    """Factor on the rate in the first epochs."""
    total_iters: Count = 5
    """How many epochs that is."""


class LinearLR(Scheduler):
    """A straight line between two rates, then the second one."""

    type: Literal["LinearLR"]
    """As in torch.optim.lr_scheduler."""
    start_factor: Factor = 1 / 3
    """Factor on the rate at epoch 0."""
    end_factor: Factor = 1.0
    """Factor on the rate from epoch total_iters on."""
    total_iters: Count = 5
    """Epochs between the two."""


class OneCycleLR(Scheduler):
    """One rise and one long fall (Smith and Topin, 2018) in two phases; leaves momentum alone."""

    type: Literal["OneCycleLR"]
    """As in torch.optim.lr_scheduler."""
    peak: Factor = 1.0
    """Highest rate, as a factor on the base rate."""
    pct_start: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the epochs that rise."""
    div_factor: Divisor = 25.0
    """Highest rate over the rate of epoch 0."""
    final_div_factor: Divisor = 1e4
    """Rate of epoch 0 over the final rate."""
    total_steps: EpochsOrAuto = AUTO
    """Epochs of the cycle; auto: the run's. Later epochs keep the final rate."""
    anneal_strategy: Literal["cos", "linear"] = "cos"
    """Form of rise and fall."""


SCHEDULERS: Kinds[Scheduler] = Kinds(
    "type",
    {
        "CosineAnnealingLR": CosineAnnealingLR,
        "CosineAnnealingWarmRestarts": CosineAnnealingWarmRestarts,
        "StepLR": StepLR,
        "MultiStepLR": MultiStepLR,
        "ExponentialLR": ExponentialLR,
        "PolynomialLR": PolynomialLR,
        "ConstantLR": ConstantLR,
        "LinearLR": LinearLR,
        "OneCycleLR": OneCycleLR,
    },
)

SchedulerOrAuto = Annotated[Scheduler, SCHEDULERS, OrAuto()]


class Schedulers(Section):
    """The schedule of each component; a head follows its expert."""

    experts: SchedulerOrAuto = AUTO
    """Of every expert and its head; auto: the preset's."""
    fusion: SchedulerOrAuto = AUTO
    """Of the fusion; auto: the preset's."""
    global_head: SchedulerOrAuto = AUTO
    """Of the global head; auto: the preset's."""
