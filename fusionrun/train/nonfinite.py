"""What to say of numbers that are not finite: which they are, when it was, and what may help."""

from __future__ import annotations

from collections.abc import Sequence

from fusionrun.errors import TrainingError
from fusionrun.plan.plan import Plan

__all__ = ["bad_epoch", "bad_outputs", "bad_step"]

_SHOWN = 3
"""Where one number is not finite, so are soon all."""


def bad_step(
    plan: Plan, step: int, losses: Sequence[str], groups: Sequence[str], allowed: int
) -> TrainingError:
    """A step that was left out, after as many as may be."""
    bad = [_listed("loss", losses)] * bool(losses) + [_listed("gradient of", groups)] * bool(groups)
    how_many = f"the {allowed} steps that may be left out are used up; " if allowed else ""
    what = f"step {step}: not finite: {'; '.join(bad)}; {how_many}the weights are those before it"
    more = () if allowed else ("training.max_skipped_steps to leave such steps out",)
    return _error(plan, what, more)


def bad_epoch(plan: Plan, losses: Sequence[str], steps: int) -> TrainingError:
    """Mean losses of an epoch."""
    ended = f"the epoch that ended at step {steps}"
    return _error(plan, f"not finite in {ended}: {_listed('loss', losses)}")


def bad_outputs(plan: Plan, paths: Sequence[str]) -> TrainingError:
    """What the network says of a split."""
    return _error(plan, f"the network's outputs are not finite: {_listed('', paths)}")


def _listed(what: str, names: Sequence[str]) -> str:
    shown = f"{what} {', '.join(names[:_SHOWN])}".strip()
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _error(plan: Plan, what: str, more: Sequence[str] = ()) -> TrainingError:
    *first, last = ["a lower learning rate", *_not_yet_tried(plan), *more]
    ways = f"{', '.join(first)}{',' * (len(first) > 1)} or {last}" if first else last
    fix = f"try {ways}. The changed recipe is another run; this one, resumed, would come to the "
    return TrainingError(what, f"{fix}same end", repeats=True)


def _not_yet_tried(plan: Plan) -> list[str]:
    unclipped = any(component.clip is None for component in plan.components.values())
    precision = plan.settings.training.precision
    return ["a gradient clip"] * unclipped + ["precision float32"] * (precision != "float32")
