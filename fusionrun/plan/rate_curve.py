"""What a rate range test has measured, and which rates follow from it. Pure numbers and text.

The test (Smith, "Cyclical Learning Rates", arXiv 1506.01186) trains for some steps at rates that
grow from very small to too large, and looks where the loss falls and where it breaks out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from fusionrun.plan.plan import Plan

__all__ = ["Point", "RateCurve", "Suggestion", "reference", "smoothed", "suggestions", "written"]

SMOOTHING: Final = 0.95
"""Share of the past in the moving mean of the losses. fastai has 0.98 over the same 100 steps,
which shows the minimum half a decade late. Source: seen on the shipped digits."""
TENTH: Final = 10.0
"""How far below the minimum a rate is safe. Source: fastai's `minimum`."""
LEAST_FALL: Final = 0.02
"""Share of its start by which the loss must fall before anything is concluded. Source: assumed."""


class Point(NamedTuple):
    """One step.

    Attributes:
        rate: of the component with the highest one.
        loss: the whole loss of the batch, before the step.
    """

    rate: float
    loss: float


class Suggestion(NamedTuple):
    """A rate, and why.

    Attributes:
        how: in words.
        rate: of the component with the highest one.
        factor: on every rate of the plan.
    """

    how: str
    rate: float
    factor: float


@dataclass(frozen=True)
class RateCurve:
    """A finished test.

    Attributes:
        component: the one with the highest rate, which the points tell; the others keep their
            ratio to it.
        base: its rate in the plan.
        points: in order, all of them finite.
        ended: why no more steps were made.
    """

    component: str
    base: float
    points: tuple[Point, ...]
    ended: str

    def to_json(self, plan: Plan) -> dict[str, Any]:
        """Plain JSON, with what each suggestion is in a recipe of `plan`."""
        means = smoothed([point.loss for point in self.points])
        rows = zip(self.points, means, strict=True)
        return {
            "component": self.component,
            "base_rate": self.base,
            "ended": self.ended,
            "points": [{**point._asdict(), "smoothed": mean} for point, mean in rows],
            "suggestions": [
                {**s._asdict(), "learning_rates": written(plan, s.factor)}
                for s in suggestions(self)
            ],
        }

    def to_csv(self) -> str:
        """A line a step: rate, loss, and the smoothed loss."""
        means = smoothed([point.loss for point in self.points])
        rows = (f"{p.rate!r},{p.loss!r},{m!r}\n" for p, m in zip(self.points, means, strict=True))
        return "rate,loss,smoothed\n" + "".join(rows)


def reference(plan: Plan) -> tuple[str, float]:
    """The component with the highest base rate among those that train, and that rate."""
    trained = [c for c in plan.components.values() if c.parameters and not c.never_trains]
    top = max(trained, key=lambda c: c.lr)
    return top.name, top.lr


def smoothed(losses: Sequence[float]) -> list[float]:
    """The exponential moving mean, corrected for its start at nothing."""
    mean, means = 0.0, []
    for count, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        means.append(mean / (1 - SMOOTHING**count))
    return means


def suggestions(curve: RateCurve) -> list[Suggestion]:
    """Where the smoothed loss falls steepest, and a tenth of where it is least.

    Empty where it does not fall: then the range begins too high, or nothing learns.
    """
    means = smoothed([point.loss for point in curve.points])
    least = min(range(len(means)), key=lambda n: means[n])
    if least < 2 or means[0] - means[least] < LEAST_FALL * abs(means[0]):
        return []
    slopes = list(_slopes(curve.points, means))[: least + 1]
    steepest = min(range(len(slopes)), key=lambda n: slopes[n])
    found = {
        "steepest descent": curve.points[steepest].rate,
        "a tenth of the rate of the least loss": curve.points[least].rate / TENTH,
    }
    rates = {how: float(f"{rate:.1e}") for how, rate in found.items()}
    return [Suggestion(how, rate, rate / curve.base) for how, rate in rates.items()]


def _slopes(points: Sequence[Point], means: Sequence[float]) -> Iterator[float]:
    """Change of the loss over the logarithm of the rate, by the neighbours on both sides."""
    last = len(points) - 1
    for n in range(last + 1):
        low, high = max(n - 1, 0), min(n + 1, last)
        width = math.log(points[high].rate) - math.log(points[low].rate)
        yield (means[high] - means[low]) / width


def written(plan: Plan, factor: float) -> Mapping[str, Any]:
    """The section `learning_rates` that multiplies every rate of a plan by a factor."""
    rates = {name: float(f"{plan.components[name].lr * factor:.3g}") for name in plan.owners}
    experts = {n.removeprefix("experts."): r for n, r in rates.items() if "." in n}
    same = len(set(experts.values())) == 1
    own: dict[str, Any] = (
        {"base_lr": next(iter(experts.values()))} if same else {"experts": experts}
    )
    if rates["fusion"] == rates["global_head"]:
        return {**own, "head_lr": rates["fusion"]}
    return {**own, "fusion": rates["fusion"], "global_head": rates["global_head"]}
