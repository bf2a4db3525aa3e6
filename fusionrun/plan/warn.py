"""What a plan allows and will probably disappoint: said before the run, with what was measured."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from fusionrun.plan import low_end
from fusionrun.plan.plan import ComponentPlan, Plan, Warn
from fusionrun.plan.warn_data import channels_last, class_missing_in_split
from fusionrun.presets import PRESETS
from fusionrun.schema.fusions import FUSIONS

# Rules of thumb: torch's own defaults are a thousandth (SGD) and a hundredth (Adam) of these.
HIGHEST_RATES = {"SGD": 1.0, "Adam": 0.1, "AdamW": 0.1}
# No gradient norm of these models was ever seen near it: a clip above does nothing.
HUGE_NORM = 1e4
SMALL_SGD_RATE = 5e-3
# A variable that holds a secret, and not where one is (HF_TOKEN_PATH, TOKENIZERS_PARALLELISM).
SECRET_VARIABLE = re.compile(
    r"(?!.*_(PATH|FILE|DIR)$).*"
    r"(TOKEN(?!I[SZ])|SECRET|PASSWORD|PASSWD|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY)",
    re.IGNORECASE,
)


def warnings_of(plan: Plan) -> tuple[Warn, ...]:
    """All warnings of a plan that is otherwise complete."""
    checks = (
        _sgd_from_scratch,
        _frozen_from_scratch,
        _half_on_cpu,
        _high_rate,
        _high_final_rate,
        _floor_above_base,
        _idle_clip,
        _idle_distillation,
        _idle_weighting,
        _heads_untrained,
        _long_window,
        _nothing_to_choose_on,
        class_missing_in_split,
        channels_last,
        _secret_written_down,
    )
    return tuple(warning for check in checks for warning in check(plan))


def _secret_written_down(plan: Plan) -> Iterator[Warn]:
    start = "slurm.env."
    names = [key.removeprefix(start) for key in plan.values if key.startswith(start)]
    if secret := [name for name in names if SECRET_VARIABLE.match(name)]:
        yield Warn(
            "secret_written_down",
            f"slurm.env sets {_listed(secret)}, whose name says that it holds a secret: its value "
            "stands in the recipe and in the run's recipe.yaml, plan.json and job.sbatch. "
            "Fix: leave it out and export it in the shell that submits, which the job inherits",
        )


def _sgd_from_scratch(plan: Plan) -> Iterator[Warn]:
    fresh = [
        name.removeprefix("experts.")
        for name, c in plan.components.items()
        if name.startswith("experts.") and c.optimizer == "SGD" and _is_fresh(c, plan)
        if c.lr < SMALL_SGD_RATE and not c.never_trains
    ]
    if fresh:
        rate = max(plan.components[f"experts.{name}"].lr for name in fresh)
        yield Warn(
            "sgd_from_scratch",
            f"SGD at {rate:g} starts {_listed(fresh)} from scratch. The origin's rates were "
            "AdamW's: on the shipped digits its multiplicative recipe reached 28 ± 6 % this way "
            "(60 epochs, seeds 0 to 2), preset tuned 98.5 ± 0.2 % (60 epochs, seeds 0 to 4). "
            "Fix: 'preset: tuned', or 'weights:' for each expert",
        )


def _is_fresh(component: ComponentPlan, plan: Plan) -> bool:
    """Whether an expert starts from random numbers."""
    return not component.weights and component.name.removeprefix("experts.") not in plan.pretraining


def _frozen_from_scratch(plan: Plan) -> Iterator[Warn]:
    parts = plan.components.values()
    random = [c.name for c in parts if c.never_trains and _is_fresh(c, plan)]
    if random:
        several = "are frozen throughout and have no weights to start from: their"
        one = "is frozen throughout and has no weights: its"
        yield Warn(
            "frozen_from_scratch",
            f"{_listed(random)} {several if len(random) > 1 else one} features stay those of "
            "random numbers. Fix: 'weights:', or 'freeze: false'",
        )


def _half_on_cpu(plan: Plan) -> Iterator[Warn]:
    precision = plan["training.precision"]
    if precision != "float32" and plan["training.device"] == "cpu":
        yield Warn(
            "half_on_cpu",
            f"precision {precision} is for GPUs: on a CPU it rounds as it does there, and most are "
            "slower with it. Fix: precision float32, or another device",
        )


def _high_rate(plan: Plan) -> Iterator[Warn]:
    kind = plan["training.optimizer.type"]
    most = HIGHEST_RATES[kind]
    high = {name: f"{c.lr:g}" for name, c in _with_rates(plan) if c.lr > most}
    if high:
        yield Warn(
            "high_rate",
            f"the base rate is {_by_value(high, plan)}; above {most:g} training with {kind} "
            "seldom holds (a rule of thumb). Fix: a lower rate in learning_rates",
        )


def _high_final_rate(plan: Plan) -> Iterator[Warn]:
    high = {name: c for name, c in _with_rates(plan) if low_end.ends_high(c)}
    if high:
        factor = PRESETS[plan["preset"]].floor_factor
        shares = {name: f"{c.rates[-1] / c.lr:.0%}" for name, c in high.items()}
        fixes = {name: low_end.changes(c, factor * c.lr) for name, c in high.items()}
        alike = len(set(fixes.values())) == 1
        fix = next(iter(fixes.values())) if alike else _by_value(fixes, plan, "; ")
        yield Warn(
            "high_final_rate",
            "the last epoch's share of the base rate is still "
            f"{_by_value(shares, plan)}: the weights do not settle. Fix: {fix}",
        )


def _floor_above_base(plan: Plan) -> Iterator[Warn]:
    owners = {name: plan.components[name] for name in plan.owners}
    held = {
        name: c.schedule["eta_min"]
        for name, c in owners.items()
        if c.schedule.get("eta_min", 0.0) > c.lr
    }
    for floor in dict.fromkeys(held.values()):
        names = [name for name in held if held[name] == floor]
        bases = {f"{plan.components[name].lr:g}": None for name in names}
        yield Warn(
            "floor_above_base",
            f"eta_min {floor:g} is above the base rate {_listed(list(bases))} of {_listed(names)}, "
            "which is held at the base throughout. Fix: a lower eta_min, or auto",
        )


def _idle_clip(plan: Plan) -> Iterator[Warn]:
    clips = {
        "knowledge_transfer.fusion_gradient_clipping": ("fusion", "global_head"),
        "knowledge_transfer.expert_gradient_clipping": ("experts", "heads"),
    }
    for full, parts in clips.items():
        clip = plan[full]
        parameters = sum(
            c.parameters for name, c in plan.components.items() if name.split(".")[0] in parts
        )
        if clip is not None and _chosen(plan, full) and not parameters:
            nothing = f"{' and '.join(parts)} have no parameters with {plan['fusion.type']}"
            yield Warn("idle_clip", f"{full} {clip:g} cannot act: {nothing}. Fix: remove it")
        elif clip is not None and parameters and clip >= HUGE_NORM:
            yield Warn(
                "idle_clip",
                f"{full} {clip:g} cannot act: no gradient comes near it. Fix: null turns it off",
            )


def _idle_distillation(plan: Plan) -> Iterator[Warn]:
    prefix = "knowledge_transfer."
    weight = plan[f"{prefix}knowledge_distillation_weight"]
    given = [key for key in ("temperature", "teacher") if _chosen(plan, f"{prefix}{key}")]
    if weight == 0 and given:
        yield Warn(
            "idle_distillation",
            f"{' and '.join(given)} cannot act: knowledge_distillation_weight is 0. "
            "Fix: a weight above 0 (the origin's is 0.1)",
        )
    teacher = plan[f"{prefix}teacher"]
    if weight > 0 and plan[f"{prefix}lambda_loss"] == 0 and teacher != "global":
        yield Warn(
            "idle_distillation",
            f"with lambda_loss 0 no head learns the labels, so teacher {teacher} has "
            "nothing to teach. Fix: a lambda_loss above 0, or teacher: global",
        )


def _idle_weighting(plan: Plan) -> Iterator[Warn]:
    epochs = plan["training.epochs"]
    if plan["knowledge_transfer.loss_weighting"] == "dwa" and epochs < 3:
        yield Warn(
            "idle_weighting",
            f"loss_weighting dwa weighs from the third epoch on, and there are {epochs}. "
            "Fix: more epochs, or static",
        )


def _heads_untrained(plan: Plan) -> Iterator[Warn]:
    fusion = FUSIONS.find(plan["fusion.type"])
    if plan["knowledge_transfer.lambda_loss"] > 0 or (fusion and not fusion.uses_features):
        return
    wants = plan["training.selection.path"]
    asked = f"training.selection.path {wants!r} and " if wants != "global" else ""
    yield Warn(
        "heads_untrained",
        f"lambda_loss 0 leaves the experts' heads untrained: {asked}the table's experts, "
        "mean_of_experts and fusion gain will be missing. Fix: a lambda_loss above 0",
    )


def _long_window(plan: Plan) -> Iterator[Warn]:
    window = plan["knowledge_transfer.expert_gradient_accumulation"]
    batches = plan.steps.batches_per_epoch
    if window > batches:
        yield Warn(
            "long_window",
            f"expert_gradient_accumulation {window} is longer than an epoch of "
            f"{batches} batch{'es' * (batches > 1)}: experts step once an epoch. "
            "Fix: a shorter window, or smaller batches",
        )


def _nothing_to_choose_on(plan: Plan) -> Iterator[Warn]:
    if not plan.data.sizes.get("val"):
        yield Warn(
            "no_validation",
            "there is no validation split: 'best' is the last epoch. Fix: data.split.val",
        )


def _with_rates(plan: Plan) -> Iterator[tuple[str, ComponentPlan]]:
    """What is trained; a head's rate is its expert's."""
    for name in plan.owners:
        if (component := plan.components[name]).parameters:
            yield name, component


def _by_value(texts: Mapping[str, str], plan: Plan, between: str = ", ") -> str:
    """Components that share a text, told together: "91% for the experts, 55% for fusion"."""
    groups: dict[str, list[str]] = {}
    for name, text in texts.items():
        groups.setdefault(text, []).append(name)
    return between.join(f"{text} for {_named(names, plan)}" for text, names in groups.items())


def _named(names: list[str], plan: Plan) -> str:
    """Components in a row; the experts in a word, where it is all of several."""
    experts = [name for name in plan.components if name.startswith("experts.")]
    if len(experts) > 1 and set(experts) <= set(names):
        names = ["the experts", *(name for name in names if name not in experts)]
    return _listed(names)


def _chosen(plan: Plan, key: str) -> bool:
    """Whether the user wrote a value, and another one than would stand there anyway."""
    value = plan.values[key]
    default = PRESETS[plan["preset"]].values[key]
    return value.source in {"recipe", "set"} and value.value != default


def _listed(names: list[str]) -> str:
    return (
        ", ".join(names) if len(names) < 5 else f"{', '.join(names[:3])} and {len(names) - 3} more"
    )
