"""The plan's values as text: each with its reason, and the chain of one key."""

from __future__ import annotations

from collections.abc import Iterator

from fusionrun.errors import UserError
from fusionrun.nearest import nearest
from fusionrun.plan.plan import Plan, Value
from fusionrun.plan.text import LINE_WIDTH, columns, flow, line_width, literal, wrapped


def every_value(plan: Plan) -> str:
    """Each resolved value with its source and reason: a table, or below each other if narrow."""
    if line_width() < LINE_WIDTH:
        return "\n".join(_every_value_stacked(plan))
    rows = [
        (k, literal(v.value), v.source, "" if v.why == v.source else v.why)
        for k, v in plan.values.items()
    ]
    return "\n".join(columns([("key", "value", "source", "why"), *rows]))


def _every_value_stacked(plan: Plan) -> Iterator[str]:
    for key, value in plan.values.items():
        yield from wrapped(f"{key} = {literal(value.value)}  # {comment(value)}", "    ")


def why(plan: Plan, key: str) -> str:
    """The chain behind one value.

    Raises:
        UserError: the plan has no such key; names the nearest.
    """
    full = find_key(plan, key)
    value = plan.values[full]
    lines = [f"{full} = {flow(value.value)}", f"  {comment(value)}"]
    lines += [f"    {step}" for step in value.steps]
    if plan.stages:
        from fusionrun.plan.stage_screen import why_by_stage

        lines += why_by_stage(plan, full)
    return "\n".join(lines)


def find_key(plan: Plan, key: str) -> str:
    """The full key that is meant: a component, or its `.lr`, stands for its base rate.

    Raises:
        UserError: the plan has no such key; names the nearest.
    """
    aliases = {f"{name}.lr": f"learning_rates.{name}" for name in plan.owners}
    aliases |= {name: f"learning_rates.{name}" for name in plan.owners}
    key = aliases.get(key.replace("heads.", "experts."), key)
    if key in plan.values:
        return key
    below = [full for full in plan.values if full.startswith(f"{key}.")]
    if below:
        listed = "\n".join(f"  {full}" for full in below)
        raise UserError(f"{key!r} is a section; ask for one of\n{listed}")
    found = nearest(key, tuple(plan.values))
    hint = f"; did you mean {found!r}?" if found else ""
    raise UserError(f"the plan has no value {key!r}{hint}\n--full lists all of them")


def comment(value: Value) -> str:
    """The reason behind a value as a YAML comment."""
    return f"{value.source}: {value.why}" if value.why != value.source else value.source
