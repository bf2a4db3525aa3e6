"""The plan as a concise screen: what will be trained, at which rates, for how long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fusionrun.plan.augmentation import in_words
from fusionrun.plan.plan import ComponentPlan, Plan, Weights
from fusionrun.plan.sparkline import sparkline
from fusionrun.plan.text import Row, columns, counted, fits, flow, labelled, size, wrapped
from fusionrun.schema.fusions import FUSIONS

SPARK_WIDTH = 20
# Keys that say where data is; the first one that a source has.
_WHERE = ("data.path", "data.name")
_TWO_PASSES = "two backward passes a batch, over one forward"
_WEIGHTING = {
    "static": "",
    "uncertainty": ";  each CE's weight is learned (uncertainty), and begins there",
    "dwa": ";  a CE that falls slower weighs more, from the third epoch on (dwa)",
}


def screen(plan: Plan, run_id: str, states: Mapping[str, str] | None = None) -> str:
    """The concise screen: what will be trained, at which rates, for how long.

    Args:
        plan: of the run.
        run_id: the run's.
        states: how each expert's pretraining stands, where there is one.
    """
    parts = [
        _headline(plan, run_id),
        "",
        *_components(plan),
        "",
        *_stages(plan),
        *labelled(list(_facts(plan, states or {}))),
    ]
    if plan.warnings:
        parts += ["", *labelled([("warning", f"{w.message} [{w.code}]") for w in plan.warnings])]
    return "\n".join(parts)


def _headline(plan: Plan, run_id: str) -> str:
    parts = (plan.name, f"preset {plan['preset']}", f"seed {plan.seed}", f"run {run_id}")
    line = "  ·  ".join(parts)
    return line if fits([line]) else "\n".join(wrapped(" · ".join(parts), "  "))


def _components(plan: Plan) -> Sequence[str]:
    """A table; where it is too wide without its rules, too, lines below each other."""
    over = f"rate over {counted(plan['training.epochs'], 'epoch')}"
    size_, ends = "parameters + head", "first → last"
    header = ("component", "input_dim", size_, "base rate", over, ends, "rules")
    rows = [header, *(_component_row(name, plan) for name in plan.owners)]
    for table in (rows, [row[:-1] for row in rows]):
        lines = list(columns(table, right=(1, 2, 3)))
        if fits(lines):
            return lines
    return list(_stacked(rows))


def _stacked(rows: Sequence[Row]) -> Iterator[str]:
    """Each of the table's rows as a line or two: its sizes and rules, its rates."""
    rates = columns([row[3:-1] for row in rows], right=(0,))
    for (name, input_dim, parameters, *_, rules), line in zip(rows, rates, strict=True):
        yield from wrapped(f"{name}: {input_dim}, {parameters}{rules and f'; {rules}'}", "  ")
        if line:
            yield f"  {line}"


def _component_row(name: str, plan: Plan) -> Row:
    c = plan.components[name]
    head = plan.components.get(name.replace("experts.", "heads."), c)
    if not c.parameters:
        return (name, str(c.input_dim), "0", "", "", "", "nothing to train")
    return (
        name,
        str(c.input_dim),
        f"{c.parameters:,}" + (f" + {head.parameters:,}" if head is not c else ""),
        f"{c.lr:g}",
        sparkline(c.rates, SPARK_WIDTH),
        _ends(c),
        " ".join(rule.partition(" (")[0] for rule in c.rules),
    )


def _ends(component: ComponentPlan) -> str:
    """The first and the last rate; before them, for how long it is frozen."""
    if component.never_trains:
        return "frozen"
    frozen, rates = component.frozen_epochs, component.rates
    until = f"frozen for {frozen}, " if frozen else ""
    return f"{until}{rates[frozen]:.3g} → {rates[-1]:.3g}"


def _stages(plan: Plan) -> Iterator[str]:
    if plan.stages:
        from fusionrun.plan.stage_screen import stage_table  # most plans have none

        yield from (*stage_table(plan), "")


def _facts(plan: Plan, states: Mapping[str, str]) -> Iterator[Row]:
    if plan.pretraining:
        from fusionrun.plan.stage_screen import stage_facts

        yield from stage_facts(plan, states)
    trained = (c for c in plan.components.values() if c.parameters)
    if applied := dict.fromkeys(rule for c in trained for rule in c.rules):
        yield ("rules", ", ".join(applied))
    for name, component in plan.components.items():
        if component.weights:
            yield ("weights", f"{name} starts from {_start(component.weights)}")
    if frozen := [c for c in plan.components.values() if c.frozen_epochs]:
        heads = "Their heads train" if len(frozen) > 1 else "Its head trains"
        yield ("frozen", f"{'; '.join(_frozen(c, plan) for c in frozen)}. {heads}")
    for component in plan.components.values():
        if component.num_layers:
            yield ("layers", _layers(component))
    yield ("data", _data(plan))
    if plan.data.shares:
        yield ("shares", _shares(plan))
    yield ("fusion", _fusion(plan))
    yield ("losses", _losses(plan))
    if augmentation := in_words(plan):
        yield ("augmentation", augmentation)
    yield ("updates", _updates(plan))
    if (combination := plan["knowledge_transfer.gradient_combination"]) != "sum":
        yield ("gradients", f"{combination} joins both paths' on each expert: {_TWO_PASSES}")
    yield ("steps", _steps(plan))
    memory = plan.memory
    yield (
        "memory",
        f"{size(memory.total)}: parameters {size(memory.parameters)}, gradients "
        f"{size(memory.gradients)}, optimizer {size(memory.optimizer)}; activations not counted",
    )
    if "slurm.nodes" in plan:
        yield ("slurm", _slurm(plan))
    if any(key.startswith("sweep.") for key in plan.values):
        yield (
            "sweep",
            "this is the recipe without it; 'fusionrun submit --dry-run' shows every point, "
            "'fusionrun submit' queues them, 'fusionrun train' trains them here",
        )


def _start(weights: Weights) -> str:
    """What an expert starts from, and what of it is not taken."""
    if not weights.prefix:
        return weights.given
    words = f"{weights.given}, its backbone alone: scaling is fitted here"
    if weights.left_out:
        words += f", the classifier ({', '.join(weights.left_out)}) is replaced by a new head"
    return words


def _frozen(component: ComponentPlan, plan: Plan) -> str:
    """For how long an expert stays as it is, and how often it steps then."""
    if component.never_trains:
        return f"{component.name} throughout"
    epochs, left = len(component.rates), len(component.rates) - component.frozen_epochs
    steps = counted(plan.steps.expert_steps // epochs * left, "step")
    return f"{component.name} for {component.frozen_epochs} of {epochs} epochs, then {steps}"


def _layers(component: ComponentPlan) -> str:
    """The rates of a backbone's last layer and of its first."""
    decay, layers = component.layer_decay, component.num_layers
    first = component.lr * decay ** (layers - 1)
    return (
        f"{component.name}: × {decay:g} for each of {counted(layers, 'layer')} from the output "
        f"back: {component.lr:g} at the last, {first:.3g} at the first"
    )


def _slurm(plan: Plan) -> str:
    where = plan["slurm.partition"] or "default"
    return (
        f"{counted(plan['slurm.nodes'], 'node')}, partition {where}, "
        f"time {plan['slurm.time'] or 'default'}; 'fusionrun submit --dry-run' asks the scheduler"
    )


def _data(plan: Plan) -> str:
    data = plan.data
    sizes = ", ".join(f"{name} {count:,}" for name, count in data.sizes.items())
    where = next((plan[key] for key in _WHERE if plan.get(key)), "files named by split")
    return (
        f"{where} ({plan['data.source']}): {counted(data.rows, 'row')}, "
        f"{counted(len(data.classes), 'class', 'classes')}; {sizes}"
    )


def _shares(plan: Plan) -> str:
    """What each expert's pretraining sees; the classes where it is not all of them."""
    classes = plan.data.classes
    parts = []
    for expert, share in plan.data.shares.items():
        rows = "drawn when it trains" if share.rows is None else counted(share.rows, "row")
        own = ", ".join(str(classes[c]) for c in share.classes)
        of = f" of {own}" if len(share.classes) < len(classes) else ""
        parts.append(f"{expert} {rows}{of}")
    return f"{plan['data.expert_shares']}, for pretraining: {'; '.join(parts)}"


def _fusion(plan: Plan) -> str:
    kind = FUSIONS.find(plan["fusion.type"])
    rest = {k: v.value for k, v in plan.values.items() if k.startswith("fusion.")}
    words = ", ".join(
        f"{key.removeprefix('fusion.')} {value}"
        for key, value in rest.items()
        if key != "fusion.type" and value is not None
    )
    attends = plan["knowledge_transfer.cross_expert_attention"]
    # The usual is not said: an encoder over the experts attends by itself, nothing else does.
    if attends != (plan["fusion.type"] == "TransformerBase"):
        words += f", cross_expert_attention {flow(attends)}"
    return f"{plan['fusion.type']}  {kind.formula if kind else ''};  {words}"


def _losses(plan: Plan) -> str:
    if plan.stages:
        from fusionrun.plan.stage_screen import stage_losses

        return stage_losses(plan)
    return losses_in_words(plan, plan.losses[0])


def losses_in_words(plan: Plan, weights: Mapping[str, float]) -> str:
    """The terms of the loss with their weights."""
    prefix = "knowledge_transfer."
    parts = ["CE(global)", f"{weights['lambda_loss']:g} · Σ CE(expert)"]
    if weight := weights["knowledge_distillation_weight"]:
        teacher, temperature = plan[f"{prefix}teacher"], plan[f"{prefix}temperature"]
        parts.append(f"{weight:g} · Σ KD(teacher {teacher}, T {temperature:g})")
    return " + ".join(parts) + _WEIGHTING[plan[f"{prefix}loss_weighting"]]


def _updates(plan: Plan) -> str:
    prefix = "knowledge_transfer."
    k = plan[f"{prefix}expert_gradient_accumulation"]
    every = "every batch" if k == 1 else f"every {k} batches"
    clips = (plan[f"{prefix}{path}_gradient_clipping"] for path in ("expert", "fusion"))
    expert, fusion = (f"clip {clip:g}" if clip else "no clip" for clip in clips)
    optimizer = "training.optimizer."
    return (
        f"{plan[f'{optimizer}type']}, weight decay {plan[f'{optimizer}weight_decay']:g};  "
        f"experts step {every}, {expert};  fusion and global head every batch, {fusion}"
    )


def _steps(plan: Plan) -> str:
    steps, batch_size = plan.steps, plan["training.batch_size"]
    last = "" if steps.last_batch == batch_size else f" (the last of {steps.last_batch})"
    return (
        f"{counted(plan['training.epochs'], 'epoch')} × "
        f"{counted(steps.batches_per_epoch, 'batch', 'batches')} of {batch_size}{last} = "
        f"{steps.fusion_steps:,};  experts step {counted(steps.expert_steps, 'time')}"
    )
