"""The plan written back as a recipe: every value in its place, its reason beside it.

What comes out is a recipe that resolves to the same plan, whatever defaults change later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fusionrun.plan.checks import unused_by
from fusionrun.plan.leaves import nest
from fusionrun.plan.plan import Plan, Value
from fusionrun.plan.reasons import comment
from fusionrun.recipe.flow import flow, scalar

# (What a user wrote holds for every stage, but for what the stage itself says.)
_GIVEN = ("recipe", "set", "site")


def as_recipe(plan: Plan) -> str:
    """YAML text, one leaf a line with its source as a comment."""
    lines = list(_mapping(nest(dict(_writable(plan))), 0))
    return "\n".join([f"# resolved by fusionrun: plan {plan.hash[:8]}", *lines, ""])


def _writable(plan: Plan) -> Iterator[tuple[str, Value]]:
    unused = {f"training.optimizer.{k}" for k in unused_by(plan["training.optimizer.type"])}
    by_stage = {key for stage in plan.stages for key in stage.values}
    by_stage |= {key for own in plan.pretraining.values() for key in own.values}
    if any(key.startswith("learning_rates.") for key in by_stage):
        # A base rate that is given is final: written down, it would leave no rule its say.
        by_stage |= {f"learning_rates.{rate}" for rate in ("base_lr", "head_lr")}
    for key, value in plan.values.items():
        if key in by_stage and value.source not in _GIVEN:
            yield key, Value("auto", value.source, f"{value.why}; by stage")
            continue
        if key.endswith(".eta_min") and isinstance(value.value, Mapping):
            yield key, Value("auto", value.source, f"{value.why}: {flow(value.value)}")
        elif key in unused:
            yield key, Value("auto", value.source, value.why)
        elif value.value is not None or not _optional(key):
            yield key, value


def _optional(key: str) -> bool:
    """Null means absent everywhere but for the clips, where it says "no clipping"."""
    return not key.endswith("_clipping")


def _mapping(content: Mapping[str, Any], depth: int) -> Iterator[str]:
    indent = "  " * depth
    for key, item in content.items():
        if isinstance(item, Value):
            reason = " ".join(comment(item).split())
            yield f"{indent}{scalar(key)}: {flow(item.value)}  # {reason}"
        else:
            yield f"{indent}{scalar(key)}:"
            yield from _mapping(item, depth + 1)
