"""The plan as text: the concise screen, every value with its reason, and the chain of one key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fusionrun.errors import UserError
from fusionrun.plan.plan import ComponentPlan, Plan, Value
from fusionrun.plan.sparkline import sparkline
from fusionrun.recipe.problems import shown
from fusionrun.recipe.suggest import nearest
from fusionrun.schema.base import plain

SPARK_WIDTH = 24
Row = tuple[str, ...]


def columns(rows: Sequence[Row], right: Sequence[int] = (), gap: str = "  ") -> Iterator[str]:
    """Rows as aligned lines; the columns numbered in `right` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield gap.join(cells).rstrip()


def screen(plan: Plan, run_id: str) -> str:
    """The concise screen: what will be trained, at which rates, for how long."""
    parts = [
        f"{plan.name}  ·  preset {plan.values['preset'].value}  ·  seed {plan.seed}  ·  run {run_id}",
        "",
        *_components(plan),
        "",
        *columns(list(_facts(plan))),
    ]
    if plan.warnings:
        parts += ["", *(f"warning  {w.message}  [{w.code}]" for w in plan.warnings)]
    return "\n".join(parts)


def _components(plan: Plan) -> Iterator[str]:
    epochs = plan.settings.training.epochs
    header = ("component", "input_dim", "parameters", "base rate", f"rate over {epochs} epochs")
    rows: list[Row] = [(*header, "first → last", "rules")]
    for name, component in plan.components.items():
        if name.startswith("heads."):
            continue
        rows.append(_component_row(name, component, plan))
    yield from columns(rows, right=(1, 2, 3))


def _component_row(name: str, c: ComponentPlan, plan: Plan) -> Row:
    head = plan.components.get(name.replace("experts.", "heads.")) if "." in name else None
    count = f"{c.parameters:,}" + (f" + {head.parameters:,}" if head else "")
    if not c.parameters:
        return (name, str(c.input_dim), "0", "", "", "", "nothing to train")
    return (
        f"{name} + head" if head else name,
        str(c.input_dim),
        count,
        f"{c.lr:g}",
        sparkline(c.rates, SPARK_WIDTH),
        f"{c.rates[0]:.3g} → {c.rates[-1]:.3g}",
        " ".join(c.rules) + (f" from {c.weights.given}" if c.weights else ""),
    )


def _facts(plan: Plan) -> Iterator[Row]:
    yield ("data", _data(plan))
    yield ("fusion", _fusion(plan))
    yield ("losses", _losses(plan))
    yield ("updates", _updates(plan))
    yield ("steps", _steps(plan))
    memory = plan.memory
    yield (
        "memory",
        f"{size(memory.total)}: parameters {size(memory.parameters)}, gradients "
        f"{size(memory.gradients)}, optimizer {size(memory.optimizer)}; activations not counted",
    )
    if plan.settings.slurm is not None:
        slurm = plan.settings.slurm
        yield (
            "slurm",
            f"{slurm.nodes} node{'s' * (slurm.nodes > 1)}, partition {slurm.partition or 'default'}, "
            f"time {slurm.time or 'default'}; checked, and queued by a later version",
        )


def _data(plan: Plan) -> str:
    data, settings = plan.data, plan.settings.data
    sizes = ", ".join(f"{name} {count:,}" for name, count in data.sizes.items())
    return (
        f"{getattr(settings, 'path', None) or 'files named by split'} ({settings.source}): {data.rows:,} rows, "
        f"{len(data.classes)} classes; {sizes}"
    )


def _fusion(plan: Plan) -> str:
    fusion = plan.settings.fusion
    rest = {k: v for k, v in plain(fusion).items() if k != "type" and v is not None}
    words = ", ".join(f"{key} {value}" for key, value in rest.items())
    return f"{fusion.type}  {fusion.formula};  {words}"


def _losses(plan: Plan) -> str:
    t = plan.settings.knowledge_transfer
    parts = ["CE(global)", f"{t.lambda_loss:g} · Σ CE(expert)"]
    if t.knowledge_distillation_weight:
        parts.append(
            f"{t.knowledge_distillation_weight:g} · Σ KD(teacher {t.teacher}, T {t.temperature:g})"
        )
    return " + ".join(parts)


def _updates(plan: Plan) -> str:
    t, optimizer = plan.settings.knowledge_transfer, plan.settings.training.optimizer
    k = t.expert_gradient_accumulation
    every = "every batch" if k == 1 else f"every {k} batches"
    clips = (t.expert_gradient_clipping, t.fusion_gradient_clipping)
    expert, fusion = (f"clip {c:g}" if c else "no clip" for c in clips)
    return (
        f"{optimizer.type}, weight decay {optimizer.weight_decay:g};  experts step {every}, "
        f"{expert};  fusion and global head every batch, {fusion}"
    )


def _steps(plan: Plan) -> str:
    steps, training = plan.steps, plan.settings.training
    last = "" if steps.last_batch == training.batch_size else f" (the last of {steps.last_batch})"
    return (
        f"{training.epochs} epochs × {steps.batches_per_epoch} batches of {training.batch_size}{last}"
        f" = {steps.fusion_steps:,};  experts step {steps.expert_steps:,} times"
    )


def size(num_bytes: int) -> str:
    """Bytes in a unit that reads well."""
    amount, units = float(num_bytes), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.3g} {units[0]}"


def every_value(plan: Plan) -> str:
    """Each resolved value with its source and reason."""
    rows = [
        (k, literal(v.value), v.source, "" if v.why == v.source else v.why)
        for k, v in plan.values.items()
    ]
    return "\n".join(columns([("key", "value", "source", "why"), *rows]))


def literal(value: Any) -> str:
    """A value as YAML's flow style writes it, cut at sixty characters."""
    if isinstance(value, dict):
        text = "{" + ", ".join(f"{k}: {literal(v)}" for k, v in value.items()) + "}"
    elif isinstance(value, bool) or value is None:
        text = {True: "true", False: "false", None: "null"}[value]
    elif isinstance(value, float):
        text = f"{value:g}"
    else:
        text = value if isinstance(value, str) else shown(value)
    return text if len(text) <= 60 else text[:59] + "…"


def why(plan: Plan, key: str) -> str:
    """The chain behind one value.

    Raises:
        UserError: the plan has no such key; names the nearest.
    """
    full = _find_key(plan, key)
    value = plan.values[full]
    lines = [f"{full} = {literal(value.value)}", f"  {value.source}: {value.why}"]
    lines += [f"    {step}" for step in value.steps]
    return "\n".join(lines)


def _find_key(plan: Plan, key: str) -> str:
    aliases = {f"{name}.lr": f"learning_rates.{name}" for name in _owners(plan)}
    aliases |= {name: f"learning_rates.{name}" for name in _owners(plan)}
    key = aliases.get(key.replace("heads.", "experts."), key)
    if key in plan.values:
        return key
    below = [full for full in plan.values if full.startswith(f"{key}.")]
    if below:
        raise UserError(f"{key!r} is a section; ask for one of {', '.join(below)}")
    found = nearest(key, tuple(plan.values))
    hint = f"; did you mean {found!r}?" if found else ""
    raise UserError(f"the plan has no value {key!r}{hint}\n--full lists all of them")


def _owners(plan: Plan) -> tuple[str, ...]:
    return tuple(name for name in plan.components if not name.startswith("heads."))


def comment(value: Value) -> str:
    """The reason behind a value as a YAML comment."""
    return f"{value.source}: {value.why}" if value.why != value.source else value.source
