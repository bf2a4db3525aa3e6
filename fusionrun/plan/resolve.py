"""Recipe → Plan: put a number, and its reason, in every place that a recipe leaves open.

Pure but for reading the data's header and the headers of weights that experts start from.
Each function settles one group of leaves and may rely on those called before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from fusionrun import rules, schedules
from fusionrun.blueprint import (
    Tensor,
    expert_component,
    fusion_component,
    global_head_component,
    head_component,
    num_parameters,
)
from fusionrun.data.header import DataSummary
from fusionrun.plan.augmentation import settle_augmentation
from fusionrun.plan.checks import check_experts, check_recipe, read_data
from fusionrun.plan.engine import settle_engine
from fusionrun.plan.ledger import Ledger
from fusionrun.plan.plan import ComponentPlan, Memory, Plan, Steps, Weights, component_names
from fusionrun.plan.rates import Facts, facts_of, settle_rates
from fusionrun.plan.rows import settle_data, with_shares
from fusionrun.plan.schedule import scheduler, settle_floors, settle_schedulers, with_floor
from fusionrun.plan.spread import Spread, mup_words, spreads
from fusionrun.plan.warn import warnings_of
from fusionrun.presets import PRESETS, Preset
from fusionrun.recipe.read import Source
from fusionrun.schema.experts import Until
from fusionrun.schema.fusions import Fusion
from fusionrun.schema.recipe import Recipe

MOMENTS = {"SGD": 1, "Adam": 2, "AdamW": 2}
FLOAT_BYTES = 4


def make_plan(source: Source, runs_dir: Path) -> Plan:
    """Resolve a recipe.

    Args:
        source: the recipe and its text.
        runs_dir: where `weights: run:ID#…` looks for runs.

    Raises:
        RecipeError: values that do not fit each other or the data, all of them at once.
        DataError: the data cannot be read.
        NotYetError: the data source is for a later version.
    """
    if source.recipe.stages:
        from fusionrun.plan.stages import make_plans  # most recipes have none

        return make_plans(source, runs_dir).plan
    return resolve(source, with_shares(source, read_data(source)), runs_dir)


def resolve(
    source: Source, summary: DataSummary, runs_dir: Path, pretrained: Collection[str] = ()
) -> Plan:
    """Resolve a recipe as one stage, for data that has been looked at already.

    Args:
        source: the recipe and its text.
        summary: of its data: what the run trains on is the training part.
        runs_dir: where `weights: run:ID#…` looks for runs.
        pretrained: experts that have been trained before, besides those with `weights:`.

    Raises:
        RecipeError: values that do not fit each other or the data, all of them at once.
    """
    recipe = source.recipe
    check_experts(source, summary)
    ledger = Ledger(source, pretrained)
    preset = PRESETS[recipe.preset]
    input_dims = {n: e.input_dim(summary.views[e.view]) for n, e in recipe.experts.items()}
    settle_data(ledger, summary)
    _settle_epochs(ledger, recipe)
    settle_augmentation(ledger, recipe.fusion.type)
    _settle_transfer(ledger, recipe)
    _settle_preset(ledger, preset)
    _settle_fusion(ledger, input_dims)
    _settle_optimizer(ledger, preset, recipe)
    facts = facts_of(ledger, recipe, input_dims)
    applied = settle_rates(ledger, preset, recipe, facts)
    settle_schedulers(ledger, preset)
    check_recipe(source, ledger)
    spread = spreads(recipe, summary, ledger, facts.by_component)
    blueprints = _blueprints(ledger, recipe, summary, input_dims)
    parameters = {name: num_parameters(b) for name, b in blueprints.items()}
    _settle_machine(ledger, recipe, sum(parameters.values()))
    settle_engine(ledger, recipe, _steps(ledger, summary).fusion_steps)
    weights = _weights(source, summary, blueprints, runs_dir)
    frozen = _frozen_epochs(ledger, recipe)
    components = {
        name: _component(
            name,
            ledger,
            preset,
            parameters[name],
            facts,
            applied,
            spread,
            weights.get(name),
            frozen.get(name, 0),
        )
        for name in component_names(recipe.experts)
    }
    settle_floors(ledger, components)
    plan = Plan(
        values=ledger.values(),
        components=components,
        data=summary,
        steps=_steps(ledger, summary),
        memory=_memory(components.values(), ledger),
    )
    return replace(plan, warnings=warnings_of(plan))


def _settle_epochs(ledger: Ledger, recipe: Recipe) -> None:
    """Stages say how long they are."""
    own = [stage for stage in recipe.stages if stage.stage != "pretrain"]
    if own:
        words = " + ".join(f"{stage.stage} {stage.epochs}" for stage in own)
        total = sum(stage.epochs for stage in own)
        ledger.follow("training.epochs", total, f"the stages of the fused run: {words}")


def _settle_preset(ledger: Ledger, preset: Preset) -> None:
    for key, value in preset.values.items():
        if key in ledger:
            ledger.settle(key, value, "preset", f"preset {preset.name}: {preset.source}")


def _settle_transfer(ledger: Ledger, recipe: Recipe) -> None:
    key = "knowledge_transfer.knowledge_distillation_weight"
    if len(recipe.experts) == 1:
        ledger.settle(key, 0.0, "rule", "one expert has nobody to learn from")
    kind = recipe.fusion.type
    attends = kind == "TransformerBase"
    why = f"{'true for' if attends else 'only for'} TransformerBase; fusion type is {kind}"
    ledger.settle("knowledge_transfer.cross_expert_attention", attends, "rule", why)
    key = "knowledge_transfer.log_variance_lr"
    if recipe.knowledge_transfer.loss_weighting == "uncertainty":
        ledger.settle(key, rules.LOG_VARIANCE_RATE, "default", rules.LOG_VARIANCE_WHY)
    else:
        ledger.settle(key, None, "rule", "only for loss_weighting uncertainty")


def _settle_fusion(ledger: Ledger, input_dims: Mapping[str, int]) -> None:
    if "fusion.dim" not in ledger:
        return
    widest = max(input_dims, key=lambda name: input_dims[name])
    dim = rules.fusion_dim(tuple(input_dims.values()))
    ledger.settle("fusion.dim", dim, "rule", f"the largest input_dim: {dim} of expert {widest}")
    dim = ledger["fusion.dim"]
    ledger.settle("fusion.hidden_dim", rules.hidden_dim(dim), "rule", f"as wide as dim: {dim}")
    if "fusion.num_heads" in ledger:
        why = f"eight, or the most that divide dim {dim}"
        ledger.settle("fusion.num_heads", rules.num_heads(dim), "rule", why)


def _settle_optimizer(ledger: Ledger, preset: Preset, recipe: Recipe) -> None:
    prefix = "training.optimizer."
    kind = ledger[f"{prefix}type"]
    momentum, why = (0.9, "the origin's SGD") if kind == "SGD" else (0.0, f"not used by {kind}")
    ledger.settle(f"{prefix}momentum", momentum, "default", why)
    ledger.settle(f"{prefix}nesterov", ledger[f"{prefix}momentum"] > 0, "default", why)
    why = "not used by SGD" if kind == "SGD" else f"as in torch.optim.{kind}"
    ledger.settle(f"{prefix}betas", (0.9, 0.999), "default", why)
    ledger.settle(f"{prefix}eps", 1e-8, "default", why)
    decay = preset.rates_for(recipe.fusion.type).weight_decay
    why = f"preset {preset.name}: {preset.source}, weight decay of {recipe.fusion.type}"
    ledger.settle(f"{prefix}weight_decay", decay, "preset", why)


def _blueprints(
    ledger: Ledger, recipe: Recipe, summary: DataSummary, input_dims: Mapping[str, int]
) -> dict[str, dict[str, Tensor]]:
    classes = len(summary.classes)
    norm = ledger["fusion.feature_norm"]
    fusion = resolved_fusion(ledger, recipe)
    attends = ledger["knowledge_transfer.cross_expert_attention"]
    widths = tuple(input_dims.values())
    experts = {
        f"experts.{name}": expert_component(expert, summary.views[expert.view], norm)
        for name, expert in recipe.experts.items()
    }
    heads = {f"heads.{name}": head_component(w, classes) for name, w in input_dims.items()}
    return {
        **experts,
        **heads,
        "fusion": fusion_component(fusion, widths, classes, attends),
        "global_head": global_head_component(fusion, classes),
    }


def resolved_fusion(ledger: Ledger, recipe: Recipe) -> Fusion:
    """The fusion's section with every value resolved."""
    return type(recipe.fusion).model_construct(**ledger.section("fusion"))


def _settle_machine(ledger: Ledger, recipe: Recipe, parameters: int) -> None:
    """How a step is carried out; only the device is left to the machine that trains."""
    where = "decided where it trains: CUDA where there is a device, else CPU"
    ledger.settle("training.device", "auto", "default", where)
    threads = rules.num_threads(parameters)
    why = f"{parameters:,} parameters: " + (
        "one below two million" if threads else "torch's choice"
    )
    ledger.settle("training.threads", threads or "auto", "rule", why)
    convolves = [name for name, expert in recipe.experts.items() if expert.convolves]
    why = f"convolutional: {', '.join(convolves)}" if convolves else "no expert convolves"
    ledger.settle("training.memory_format", rules.memory_format(bool(convolves)), "rule", why)


def _weights(
    source: Source,
    summary: DataSummary,
    blueprints: Mapping[str, Mapping[str, Tensor]],
    runs_dir: Path,
) -> dict[str, Weights]:
    if all(expert.weights is None for expert in source.recipe.experts.values()):
        return {}
    from fusionrun.plan.starts import starting_weights  # reads files, which most plans need not

    return starting_weights(source, summary, blueprints, runs_dir)


def _component(
    name: str,
    ledger: Ledger,
    preset: Preset,
    parameters: int,
    facts: Facts,
    applied: Mapping[str, tuple[rules.Applied, ...]],
    spread: Mapping[str, Spread],
    weights: Weights | None,
    frozen: int,
) -> ComponentPlan:
    owner = name.replace("heads.", "experts.")
    path = "expert" if owner.startswith("experts.") else "fusion"
    part = "experts" if path == "expert" else name
    lr = ledger[f"learning_rates.{owner}"]
    schedule = with_floor(ledger.section(f"schedulers.{part}"), preset.floor_factor, lr)
    k = ledger["knowledge_transfer.expert_gradient_accumulation"] if path == "expert" else 1
    rates = schedules.rates(scheduler(schedule), lr, ledger["training.epochs"])
    own = spread[owner] if owner == name else spread[owner]._replace(layer_decay=1.0, num_layers=0)
    in_words = [f"× {rule.factor:g} ({rule.because})" for rule in applied[owner]]
    if own.base_width is not None:
        kind = ledger["training.optimizer.type"]
        in_words.append(mup_words(name, kind, facts[name], own.base_width))
    return ComponentPlan(
        name=name,
        input_dim=int(facts[name]["input_dim"]),
        parameters=parameters,
        lr=lr,
        rates=(0.0,) * frozen + rates[frozen:] if frozen else rates,
        rules=tuple(in_words),
        schedule=schedule,
        optimizer=ledger["training.optimizer.type"],
        weight_decay=ledger["training.optimizer.weight_decay"],
        clip=ledger[f"knowledge_transfer.{path}_gradient_clipping"],
        accumulation=k,
        weights=weights,
        frozen_epochs=frozen,
        **own._asdict(),
    )


def _frozen_epochs(ledger: Ledger, recipe: Recipe) -> dict[str, int]:
    """How many epochs each frozen expert stays so, by component name."""
    epochs = ledger["training.epochs"]
    warmup = sum(stage.epochs for stage in recipe.stages if stage.stage == "warmup")
    found = {}
    for name, expert in recipe.experts.items():
        frozen = epochs if expert.freeze else warmup
        if isinstance(expert.freeze, Until):
            frozen = min(max(expert.freeze.until.epochs, warmup), epochs)
        if frozen:
            found[f"experts.{name}"] = frozen
    return found


def _steps(ledger: Ledger, summary: DataSummary) -> Steps:
    batch, epochs = ledger["training.batch_size"], ledger["training.epochs"]
    full, rest = divmod(summary.sizes["train"], batch)
    batches = full + (rest > 0)
    window = ledger["knowledge_transfer.expert_gradient_accumulation"]
    return Steps(
        batches_per_epoch=batches,
        last_batch=rest or batch,
        fusion_steps=epochs * batches,
        expert_steps=epochs * -(-batches // window),
    )


def _memory(components: Iterable[ComponentPlan], ledger: Ledger) -> Memory:
    """What never trains has neither gradients nor moments; paths kept apart have one each."""
    components = tuple(components)
    size = FLOAT_BYTES * sum(c.parameters for c in components)
    trained = FLOAT_BYTES * sum(c.parameters for c in components if not c.never_trains)
    gradients = 1 if ledger["knowledge_transfer.gradient_combination"] == "sum" else 3
    moments = MOMENTS[ledger["training.optimizer.type"]]
    return Memory(parameters=size, gradients=trained * gradients, optimizer=trained * moments)
