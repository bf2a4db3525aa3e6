"""The plan written back as a recipe: every value in its place, its reason beside it.

What comes out is a recipe that resolves to the same plan, whatever defaults change later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from fusionrun.plan.checks import unused_by
from fusionrun.plan.leaves import nest
from fusionrun.plan.plan import Plan, Value
from fusionrun.plan.screen import comment

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS = {"true", "false", "null", "auto", "yes", "no", "on", "off", "y", "n"}


def as_recipe(plan: Plan) -> str:
    """YAML text, one leaf a line with its source as a comment."""
    lines = list(_mapping(nest(dict(_writable(plan))), 0))
    return "\n".join([f"# resolved by fusionrun: plan {plan.hash[:8]}", *lines, ""])


def _writable(plan: Plan) -> Iterator[tuple[str, Value]]:
    unused = {f"training.optimizer.{k}" for k in unused_by(plan["training.optimizer.type"])}
    for key, value in plan.values.items():
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
            yield f"{indent}{_scalar(key)}: {flow(item.value)}  # {reason}"
        else:
            yield f"{indent}{_scalar(key)}:"
            yield from _mapping(item, depth + 1)


def flow(value: Any) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(k)}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str) and (
        value == "auto" or (_PLAIN.fullmatch(value) and value.lower() not in _WORDS)
    ):
        return value
    printable = isinstance(value, str) and value.isprintable()
    return json.dumps(value, ensure_ascii=not printable)
