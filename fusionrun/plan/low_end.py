"""What would let a component's rate end low. Each change is tried on the closed forms before it is
named, so no advice is given that would not help.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from fusionrun.plan.plan import ComponentPlan
from fusionrun.schedules import default_T_max, of_section, rate

HIGH_FINAL_FACTOR = 0.2
"""A last epoch above this share of the base rate is no end of a fall. Source: assumed."""
SAFE_FLOOR_FACTOR = 0.1
"""The origin's floor, below which every cosine gets low within a few epochs."""
COSINE = "CosineAnnealingLR"
# The key that says how long one fall is, where a schedule is one fall.
_SPANS = {COSINE: "T_max", "OneCycleLR": "total_steps"}


def ends_high(component: ComponentPlan) -> bool:
    """Whether a run of several epochs ends where the weights cannot settle."""
    return len(component.rates) > 1 and component.rates[-1] > HIGH_FINAL_FACTOR * component.lr


def changes(component: ComponentPlan, floor: float) -> str:
    """What brings a rate that ends high down, in words: "a lower eta_min and at least 5 epochs".

    Args:
        component: one that `ends_high`.
        floor: `eta_min` where the schedule leaves it to the preset.
    """
    epochs, words = len(component.rates), []
    schedule = {"eta_min": floor, **component.schedule}
    if schedule["eta_min"] / component.lr > SAFE_FLOOR_FACTOR + 1e-9:
        schedule["eta_min"] = 0.0
        words.append("a lower eta_min")
        if _ends_low(schedule, component.lr, epochs):
            return words[0]
    fall = _whole_fall(schedule, epochs)
    if not _ends_low(fall, component.lr, epochs):
        fall = _whole_fall({**schedule, "type": COSINE}, epochs)
    if other := _difference(schedule, fall, component.lr, epochs):
        words.append(other)
    if _warmup(fall) >= epochs:
        words.append("a shorter warmup")
    elif not _ends_low(fall, component.lr, epochs):
        words.append(f"at least {_fewest_epochs(fall, component.lr, epochs)} epochs")
    return " and ".join(words)


def _whole_fall(schedule: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """The schedule as one fall over all epochs: its own kind, where that is one, or a cosine."""
    kind = schedule["type"] if schedule["type"] in _SPANS else COSINE
    left = default_T_max(epochs, _warmup(schedule))
    if kind == schedule["type"]:
        return {**schedule, _SPANS[kind]: left}
    common = {"eta_min": schedule["eta_min"], "warmup": schedule.get("warmup")}
    return {"type": kind, "T_max": left, **common}


def _difference(
    schedule: Mapping[str, Any], fall: Mapping[str, Any], lr: float, epochs: int
) -> str:
    if schedule["type"] != fall["type"]:
        return COSINE + _or_waves(schedule, lr, epochs)
    span = _SPANS[fall["type"]]
    return f"{span}: auto" if schedule[span] != fall[span] else ""


def _or_waves(schedule: Mapping[str, Any], lr: float, epochs: int) -> str:
    """A first wave of the restarts for which the run ends with a wave, if there is one."""
    if schedule["type"] != "CosineAnnealingWarmRestarts":
        return ""
    left = default_T_max(epochs, _warmup(schedule))
    for waves in (2, 3):
        lengths = sum(schedule["T_mult"] ** wave for wave in range(waves))
        whole = {**schedule, "T_0": max(1, left // lengths)}
        if left % lengths == 0 and _ends_low(whole, lr, epochs):
            return f" or T_0: {whole['T_0']}"
    return ""


def _fewest_epochs(fall: Mapping[str, Any], lr: float, epochs: int) -> int:
    """Found within a few epochs, for the warm-up is over and the floor is a safe one."""
    candidates = count(epochs + 1)
    return next(n for n in candidates if _ends_low(_whole_fall(fall, n), lr, n))


def _warmup(schedule: Mapping[str, Any]) -> int:
    return int(schedule["warmup"]["epochs"]) if schedule.get("warmup") else 0


def _ends_low(schedule: Mapping[str, Any], lr: float, epochs: int) -> bool:
    return rate(of_section(schedule), lr, epochs - 1) <= HIGH_FINAL_FACTOR * lr
