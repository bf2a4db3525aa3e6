"""The schedule of each component: what a preset writes, its lengths in epochs, and its floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fusionrun import rules, schedules
from fusionrun.plan.ledger import Ledger
from fusionrun.plan.plan import ComponentPlan
from fusionrun.presets import Preset
from fusionrun.schema.schedulers import SCHEDULERS, Scheduler, Warmup

# Lengths that a schedule may leave at auto: the default, and its formula in words.
_SPANS: Mapping[str, tuple[Callable[[int], Any], str]] = {
    "T_max": (schedules.default_total, "all"),
    "T_0": (schedules.default_T_0, "a quarter, max(1, epochs // 4),"),
    "step_size": (schedules.default_step_size, "a third, max(1, epochs // 3),"),
    "milestones": (schedules.default_milestones, "half and three quarters"),
    "total_iters": (schedules.default_total, "all"),
    "total_steps": (schedules.default_total, "all"),
}


def settle_schedulers(ledger: Ledger, preset: Preset) -> None:
    """The preset's schedules where the recipe gives none, and how long each part of one lasts."""
    for part, default in preset.schedulers.items():
        key = f"schedulers.{part}"
        if ledger.pending(key):
            ledger.expand(key, default, "preset", f"preset {preset.name}: {preset.source}")
        _settle_spans(ledger, key)


def _settle_spans(ledger: Ledger, key: str) -> None:
    """Lengths of a schedule, in epochs, from the epochs that its warm-up leaves."""
    epochs = ledger["training.epochs"]
    warmup = ledger.get(f"{key}.warmup.epochs", 0)
    left = schedules.default_T_max(epochs, warmup)
    less = f"{epochs} epochs" + (f" less {warmup} of warm-up" if warmup else "")
    for name, (length_of, formula) in _SPANS.items():
        if ledger.pending(f"{key}.{name}"):
            ledger.settle(f"{key}.{name}", length_of(left), "rule", f"{formula} of {less}")


def with_floor(schedule: Mapping[str, Any], factor: float, lr: float) -> dict[str, Any]:
    """A schedule whose rate ends at `factor` of its base rate, unless it says where."""
    if schedule.get("eta_min") == "auto":
        return {**schedule, "eta_min": rules.times(lr, factor)}
    return dict(schedule)


def scheduler(schedule: Mapping[str, Any]) -> Scheduler:
    """The kind of scheduler that a resolved section describes.

    Constructed, not validated: its parts were, one by one, and a validator takes long to build.
    """
    kind = SCHEDULERS.choose(schedule)
    if kind is None:
        raise TypeError(f"no scheduler kind for {schedule}")
    warmup = schedule.get("warmup")
    built = Warmup.model_construct(**warmup) if warmup else None
    return kind.model_construct(**{**schedule, "warmup": built})


def settle_floors(ledger: Ledger, components: Mapping[str, ComponentPlan]) -> None:
    """Write down the floors that the components have, one for all where they are the same."""
    for part in ("experts", "fusion", "global_head"):
        key = f"schedulers.{part}.eta_min"
        if not ledger.pending(key):
            continue
        own = {n: c for n, c in components.items() if n.split(".")[0] == part}
        floors = {n.rpartition(".")[2]: c.schedule["eta_min"] for n, c in own.items()}
        lr = next(iter(own.values())).lr
        factor = next(iter(floors.values())) / lr
        value = floors if len(set(floors.values())) > 1 else next(iter(floors.values()))
        ledger.settle(key, value, "rule", f"{factor:g} × the component's base rate")
