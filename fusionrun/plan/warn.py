"""What a plan allows and will probably disappoint: said before the run, with what was measured."""

from __future__ import annotations

from collections.abc import Iterator

from fusionrun.plan.plan import Plan, Warn
from fusionrun.presets import PRESETS
from fusionrun.schema.fusions import FUSIONS

HIGH_FINAL_FACTOR = 0.2
# No gradient norm of these models was ever seen near it: a clip above does nothing.
HUGE_NORM = 1e4
SMALL_SGD_RATE = 5e-3


def warnings_of(plan: Plan) -> tuple[Warn, ...]:
    """All warnings of a plan that is otherwise complete."""
    checks = (
        _sgd_from_scratch,
        _high_final_rate,
        _floor_above_base,
        _idle_clip,
        _idle_distillation,
        _heads_untrained,
        _long_window,
        _nothing_to_choose_on,
    )
    return tuple(warning for check in checks for warning in check(plan))


def _sgd_from_scratch(plan: Plan) -> Iterator[Warn]:
    fresh = [
        name.removeprefix("experts.")
        for name, c in plan.components.items()
        if name.startswith("experts.") and c.optimizer == "SGD" and not c.weights
        if c.lr < SMALL_SGD_RATE
    ]
    if fresh:
        rate = max(plan.components[f"experts.{name}"].lr for name in fresh)
        yield Warn(
            "sgd_from_scratch",
            f"SGD at {rate:g} starts {_listed(fresh)} from scratch. The origin's rates were "
            "AdamW's: on the shipped digits its multiplicative recipe reached 28 ± 6 % this way "
            "(60 epochs, seeds 0 to 2), preset tuned 98.5 ± 0.2 % (40 epochs, seeds 0 to 4). "
            "Fix: 'preset: tuned', or 'weights:' for each expert",
        )


def _high_final_rate(plan: Plan) -> Iterator[Warn]:
    ends = {
        name: c.rates[-1] / c.lr
        for name, c in plan.components.items()
        if c.parameters and not name.startswith("heads.")
        if c.rates[-1] / c.lr > HIGH_FINAL_FACTOR and len(c.rates) > 1
    }
    if ends:
        worst = max(ends.values())
        yield Warn(
            "high_final_rate",
            f"the last epoch still runs at {worst:.0%} of the base rate for {_listed(list(ends))}: "
            "the weights do not settle. Fix: a schedule that ends low, such as CosineAnnealingLR, "
            "or epochs that end on a restart",
        )


def _floor_above_base(plan: Plan) -> Iterator[Warn]:
    held = {
        name: c.schedule["eta_min"]
        for name, c in plan.components.items()
        if not name.startswith("heads.") and c.schedule.get("eta_min", 0.0) > c.lr
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
    if window > plan.steps.batches_per_epoch:
        yield Warn(
            "long_window",
            f"expert_gradient_accumulation {window} is longer than an epoch of "
            f"{plan.steps.batches_per_epoch} batches: experts step once an epoch. "
            "Fix: a shorter window, or smaller batches",
        )


def _nothing_to_choose_on(plan: Plan) -> Iterator[Warn]:
    if not plan.data.sizes.get("val"):
        yield Warn(
            "no_validation",
            "there is no validation split: 'best' is the last epoch. Fix: data.split.val",
        )


def _chosen(plan: Plan, key: str) -> bool:
    """Whether the user wrote a value, and another one than would stand there anyway."""
    value = plan.values[key]
    default = PRESETS[plan["preset"]].values[key]
    return value.source in {"recipe", "set"} and value.value != default


def _listed(names: list[str]) -> str:
    return (
        ", ".join(names) if len(names) < 5 else f"{', '.join(names[:3])} and {len(names) - 3} more"
    )
