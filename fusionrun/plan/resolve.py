"""Recipe → Plan: put a number, and its reason, in every place that a recipe leaves open.

Pure but for reading the data's header and the headers of weights that experts start from.
Each function settles one group of leaves and may rely on those called before it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
from fusionrun.plan.rows import settle_data, with_shares
from fusionrun.plan.spread import Spread, mup_words, spreads
from fusionrun.plan.warn import warnings_of
from fusionrun.presets import PRESETS, Preset
from fusionrun.recipe.read import Source
from fusionrun.schema.base import AUTO, plain
from fusionrun.schema.experts import Until
from fusionrun.schema.fusions import Fusion
from fusionrun.schema.recipe import Recipe
from fusionrun.schema.schedulers import SCHEDULERS, Scheduler, Warmup

MOMENTS = {"SGD": 1, "Adam": 2, "AdamW": 2}
FLOAT_BYTES = 4
# Lengths that a schedule may leave at auto: the default, and its formula in words.
_SPANS: Mapping[str, tuple[Callable[[int], Any], str]] = {
    "T_max": (schedules.default_total, "all"),
    "T_0": (schedules.default_T_0, "a quarter, max(1, epochs // 4),"),
    "step_size": (schedules.default_step_size, "a third, max(1, epochs // 3),"),
    "milestones": (schedules.default_milestones, "half and three quarters"),
    "total_iters": (schedules.default_total, "all"),
    "total_steps": (schedules.default_total, "all"),
}


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
    facts = _facts(ledger, recipe, input_dims)
    applied = _settle_rates(ledger, preset, recipe, facts)
    _settle_schedulers(ledger, preset)
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
    _settle_floors(ledger, components)
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


@dataclass(frozen=True)
class _Facts:
    """What rules may ask of a component, by component name; a head is its expert."""

    by_component: Mapping[str, Mapping[str, rules.Fact]]

    def __getitem__(self, component: str) -> Mapping[str, rules.Fact]:
        return self.by_component[component.replace("heads.", "experts.")]


def _facts(ledger: Ledger, recipe: Recipe, input_dims: Mapping[str, int]) -> _Facts:
    common: dict[str, rules.Fact] = {
        "fusion_type": recipe.fusion.type,
        "num_experts": len(recipe.experts),
        "batch_size": recipe.training.batch_size,
    }
    pretrained = {n: ledger.is_pretrained(n, expert) for n, expert in recipe.experts.items()}
    dim = ledger.get("fusion.dim", rules.fusion_dim(tuple(input_dims.values())))
    joint = {**common, "input_dim": dim, "pretrained": all(pretrained.values())}
    experts = {
        f"experts.{name}": {**common, "input_dim": width, "pretrained": pretrained[name]}
        for name, width in input_dims.items()
    }
    return _Facts({**experts, "fusion": joint, "global_head": joint})


def _settle_rates(
    ledger: Ledger, preset: Preset, recipe: Recipe, facts: _Facts
) -> dict[str, tuple[rules.Applied, ...]]:
    """Settle both base rates and each component's; returns the rules that shaped each."""
    _settle_rules(ledger, preset)
    ledger.open_names("learning_rates.experts", tuple(recipe.experts))
    table = preset.rates_for(recipe.fusion.type)
    base = {"base_lr": table.base_lr, "head_lr": table.head_lr}
    chains = _Chains(ledger, preset, recipe, base)
    chains.settle_bases()
    keys = {f"experts.{name}": "base_lr" for name in recipe.experts}
    keys |= {"fusion": "head_lr", "global_head": "head_lr"}
    return {name: chains.settle(name, rate, facts[name]) for name, rate in keys.items()}


def _settle_rules(ledger: Ledger, preset: Preset) -> None:
    written = plain(preset.rules)
    why = f"preset {preset.name}: {preset.source}"
    ledger.settle("learning_rates.rules", written, "preset", why)


class _Chains:
    """The chain behind each rate: number, then rule by rule, unless the user gave the rate."""

    def __init__(
        self, ledger: Ledger, preset: Preset, recipe: Recipe, base: Mapping[str, float]
    ) -> None:
        self._ledger = ledger
        self._base = base
        self._table = f"preset {preset.name}: {preset.source}, {{}} of {recipe.fusion.type}"
        own = recipe.learning_rates.rules
        self._rules = preset.rules if own == AUTO else own
        self._rules_from = f"preset {preset.name}" if own == AUTO else "recipe"
        self._final = {rate for rate in base if ledger.given_number(f"learning_rates.{rate}")}

    def settle_bases(self) -> None:
        """The two base rates, before any rule."""
        for rate, number in self._base.items():
            why = self._table.format(rate) + ", before the rules"
            self._ledger.settle(f"learning_rates.{rate}", number, "preset", why)

    def settle(
        self, component: str, rate: str, facts: Mapping[str, rules.Fact]
    ) -> tuple[rules.Applied, ...]:
        """One component's rate; returns the rules that applied to it."""
        key = f"learning_rates.{component}"
        if self._ledger.given_number(key):
            return ()
        base = self._ledger[f"learning_rates.{rate}"]
        if rate in self._final:
            place = self._ledger.place(f"learning_rates.{rate}")
            why = f"{rate} at {place}: a given rate is final, no rule touches it"
            self._ledger.settle(key, base, self._ledger.entry(f"learning_rates.{rate}").source, why)
            return ()
        applied = rules.applied_rules(self._rules, rate, facts)
        number = base
        for rule in applied:
            number = rules.times(number, rule.factor)
        self._ledger.settle(
            key,
            number,
            "rule",
            self._why(rate, base, applied),
            self._steps(rate, base, applied, number),
        )
        return applied

    def _why(self, rate: str, base: float, applied: tuple[rules.Applied, ...]) -> str:
        factors = "".join(f" × {rule.factor:g} ({rule.because})" for rule in applied)
        return f"{rate} {base:g}{factors or ', no rule applies'}"

    def _steps(
        self, rate: str, base: float, applied: tuple[rules.Applied, ...], number: float
    ) -> tuple[str, ...]:
        rows = [f"  {base:<8g} {self._table.format(rate)}"]
        rows += [f"× {r.factor:<8g} {self._rule_place(r.number)}: {r.because}" for r in applied]
        return (*rows, f"= {number:g}")

    def _rule_place(self, number: int) -> str:
        if self._rules_from == "recipe":
            place = self._ledger.document.place(("learning_rates", "rules", number - 1))
            return f"rule {number} at {place}"
        return f"rule {number} of {self._rules_from}"


def _settle_schedulers(ledger: Ledger, preset: Preset) -> None:
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
    facts: _Facts,
    applied: Mapping[str, tuple[rules.Applied, ...]],
    spread: Mapping[str, Spread],
    weights: Weights | None,
    frozen: int,
) -> ComponentPlan:
    owner = name.replace("heads.", "experts.")
    path = "expert" if owner.startswith("experts.") else "fusion"
    part = "experts" if path == "expert" else name
    lr = ledger[f"learning_rates.{owner}"]
    schedule = _with_floor(ledger.section(f"schedulers.{part}"), preset.floor_factor, lr)
    k = ledger["knowledge_transfer.expert_gradient_accumulation"] if path == "expert" else 1
    rates = schedules.rates(_scheduler(schedule), lr, ledger["training.epochs"])
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


def _with_floor(schedule: Mapping[str, Any], factor: float, lr: float) -> dict[str, Any]:
    if schedule.get("eta_min") == "auto":
        return {**schedule, "eta_min": rules.times(lr, factor)}
    return dict(schedule)


def _scheduler(schedule: Mapping[str, Any]) -> Scheduler:
    kind = SCHEDULERS.choose(schedule)
    if kind is None:
        raise TypeError(f"no scheduler kind for {schedule}")
    warmup = schedule.get("warmup")
    built = Warmup.model_construct(**warmup) if warmup else None
    # Constructed, not validated: its parts were, one by one, and a validator takes long to build.
    return kind.model_construct(**{**schedule, "warmup": built})


def _settle_floors(ledger: Ledger, components: Mapping[str, ComponentPlan]) -> None:
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
