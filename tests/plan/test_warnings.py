"""What is allowed and will disappoint: each warning where it belongs, and not elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fusionrun.blueprint import expert_component
from fusionrun.plan.plan import Plan
from fusionrun.plan.screen import screen
from fusionrun.plan.text import LINE_WIDTH
from fusionrun.schema.experts import MLP

PlanOf = Callable[..., Plan]
TUNED = "preset: tuned\nfusion: {type: concatenation}\n"
ORIGIN = "fusion: {type: multiplicative}\n"
BATCHES_OF_16 = "training: {batch_size: 16}\n"

# A code; recipes that have it; the nearest recipe that has not.
CASES = {
    "sgd_from_scratch": (
        [ORIGIN],
        f"{ORIGIN}training: {{optimizer: {{type: AdamW}}}}",
    ),
    "secret_written_down": (
        [f"{TUNED}slurm: {{env: {{HF_TOKEN: x}}}}", f"{TUNED}slurm: {{env: {{my_api_key: x}}}}"],
        f"{TUNED}slurm: {{env: {{TOKENIZERS_PARALLELISM: x, HF_TOKEN_PATH: x, KEY_SIZE: x}}}}",
    ),
    "high_final_rate": (
        [
            f"{TUNED}schedulers: {{fusion: {{type: ExponentialLR, gamma: 0.99}}}}",
            f"{TUNED}schedulers: {{experts: {{type: CosineAnnealingWarmRestarts}}}}",
        ],
        f"{TUNED}schedulers: {{fusion: {{type: ExponentialLR, gamma: 0.9}}}}",
    ),
    "half_on_cpu": (
        [f"{TUNED}training: {{precision: {half}, device: cpu}}" for half in ("bf16", "fp16")],
        f"{TUNED}training: {{precision: bf16, device: cuda}}",
    ),
    "high_rate": (
        [
            f"{ORIGIN}learning_rates: {{base_lr: 50}}",
            f"{ORIGIN}learning_rates: {{fusion: 1.01}}",
            f"{TUNED}learning_rates: {{head_lr: 0.11}}",
            f"{TUNED}learning_rates: {{base_lr: 0.2}}\ntraining: {{optimizer: {{type: Adam}}}}",
        ],
        f"{ORIGIN}learning_rates: {{base_lr: 1, head_lr: 1}}",
    ),
    "floor_above_base": (
        [f"{TUNED}schedulers: {{fusion: {{type: CosineAnnealingLR, eta_min: 0.5}}}}"],
        f"{TUNED}schedulers: {{fusion: {{type: CosineAnnealingLR, eta_min: 1e-3}}}}",
    ),
    "idle_clip": (
        [
            f"{TUNED}knowledge_transfer: {{expert_gradient_clipping: 1e6}}",
            "preset: tuned\nfusion: {type: productOfExperts}\n"
            "knowledge_transfer: {fusion_gradient_clipping: 2.0}",
        ],
        "preset: tuned\nfusion: {type: productOfExperts}",
    ),
    "idle_distillation": (
        [
            f"{TUNED}knowledge_transfer: {{temperature: 2.0}}",
            f"{TUNED}knowledge_transfer: {{teacher: ensemble}}",
            f"{TUNED}knowledge_transfer: {{lambda_loss: 0, knowledge_distillation_weight: 0.5}}",
        ],
        f"{TUNED}knowledge_transfer: {{temperature: 2.0, knowledge_distillation_weight: 0.1}}",
    ),
    "heads_untrained": (
        [f"{TUNED}knowledge_transfer: {{lambda_loss: 0}}"],
        "preset: tuned\nfusion: {type: productOfExperts}\nknowledge_transfer: {lambda_loss: 0}",
    ),
    "long_window": (
        [f"{TUNED}{BATCHES_OF_16}knowledge_transfer: {{expert_gradient_accumulation: 4}}"],
        f"{TUNED}{BATCHES_OF_16}knowledge_transfer: {{expert_gradient_accumulation: 3}}",
    ),
}


def codes(plan: Plan) -> list[str]:
    return [warning.code for warning in plan.warnings]


@pytest.mark.parametrize(
    ("code", "recipe"),
    [(code, recipe) for code, (recipes, _) in CASES.items() for recipe in recipes],
)
def test_a_warning_is_given_once_where_it_belongs(code: str, recipe: str, plan: PlanOf) -> None:
    assert codes(plan(recipe)).count(code) == 1


@pytest.mark.parametrize("code", CASES)
def test_a_warning_is_not_given_where_nothing_is_wrong(code: str, plan: PlanOf) -> None:
    assert code not in codes(plan(CASES[code][1]))


def test_the_tuned_preset_warns_of_nothing(plan: PlanOf) -> None:
    assert codes(plan(TUNED)) == []


def test_no_validation_split_is_warned_of(write: Callable[..., Path], plan: PlanOf) -> None:
    split = "data.split={train: 0.8, val: 0.0, test: 0.2}"
    assert codes(plan(TUNED, split)) == ["no_validation"]


def test_every_warning_says_the_fix(plan: PlanOf) -> None:
    for recipes, _ in CASES.values():
        for recipe in recipes:
            assert all("Fix: " in warning.message for warning in plan(recipe).warnings)


def test_sgd_from_scratch_says_what_was_measured(plan: PlanOf) -> None:
    (warning, *_) = plan(ORIGIN).warnings
    assert warning.message == (
        "SGD at 0.00013 starts one, two from scratch. The origin's rates were AdamW's: on the "
        "shipped digits its multiplicative recipe reached 28 ± 6 % this way (60 epochs, seeds 0 to "
        "2), preset tuned 98.5 ± 0.2 % (60 epochs, seeds 0 to 4). Fix: 'preset: tuned', or "
        "'weights:' for each expert"
    )


def test_pretrained_experts_may_use_the_origins_sgd(plan: PlanOf, folder: Path) -> None:
    for name, view, width in (("one", "a", 4), ("two", "b", 12)):
        blueprint = expert_component(MLP(model="mlp", view=view), (width,), "fusion")
        tensors = {key: torch.zeros(tensor.shape) for key, tensor in blueprint.items()}
        save_file(tensors, folder / f"{name}.safetensors")
    given = [f"experts.{name}.weights={name}.safetensors" for name in ("one", "two")]
    assert "sgd_from_scratch" not in codes(plan(ORIGIN, *given))
    assert "starts two from scratch" in plan(ORIGIN, given[0]).warnings[0].message


def test_a_floor_above_the_base_holds_the_rate_there(plan: PlanOf) -> None:
    made = plan(f"{TUNED}schedulers: {{fusion: {{type: CosineAnnealingLR, eta_min: 0.5}}}}")
    assert set(made.components["fusion"].rates) == {1e-3}
    held = next(w for w in made.warnings if w.code == "floor_above_base")
    assert held.message == (
        "eta_min 0.5 is above the base rate 0.001 of fusion, which is held at the base "
        "throughout. Fix: a lower eta_min, or auto"
    )


def test_a_floor_above_every_experts_base_is_one_warning(plan: PlanOf) -> None:
    made = plan(f"{TUNED}schedulers: {{experts: {{type: CosineAnnealingLR, eta_min: 0.5}}}}")
    assert codes(made).count("floor_above_base") == 1


def test_distillation_values_that_are_the_presets_own_are_no_choice(plan: PlanOf) -> None:
    assert codes(plan(f"{TUNED}knowledge_transfer: {{temperature: 3.0, teacher: peers}}")) == []


def message(plan: Plan, code: str) -> str:
    return next(warning.message for warning in plan.warnings if warning.code == code)


def test_a_high_rate_is_told_with_its_bound_and_where_that_is_from(plan: PlanOf) -> None:
    made = plan(f"{ORIGIN}learning_rates: {{base_lr: 50, head_lr: 2}}")
    assert message(made, "high_rate") == (
        "the base rate is 50 for the experts, 2 for fusion, global_head; above 1 training with SGD "
        "seldom holds (a rule of thumb). Fix: a lower rate in learning_rates"
    )


RESTARTS = "CosineAnnealingWarmRestarts"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            ["training.epochs=2"],
            "100% for the experts, 55% for fusion, global_head: the weights do not settle. Fix: "
            "CosineAnnealingLR and at least 5 epochs for the experts; "
            "at least 5 epochs for fusion, global_head",
        ),
        (
            ["training.epochs=60"],
            "88% for the experts: the weights do not settle. Fix: CosineAnnealingLR or T_0: 20",
        ),
        (
            ["training.epochs=2", "preset=tuned"],
            "50% for the experts, fusion, global_head: "
            "the weights do not settle. Fix: at least 4 epochs",
        ),
        (
            ["preset=tuned", "schedulers.fusion={type: CosineAnnealingLR, T_max: 40}"],
            "46% for fusion: the weights do not settle. Fix: T_max: auto",
        ),
        (
            ["preset=tuned", "schedulers.fusion={type: CosineAnnealingLR, eta_min: 6e-4}"],
            "60% for fusion: the weights do not settle. Fix: a lower eta_min",
        ),
        (
            ["preset=tuned", "schedulers.experts={type: OneCycleLR, total_steps: 100}"],
            "61% for the experts: the weights do not settle. Fix: total_steps: auto",
        ),
        (
            ["preset=tuned", "schedulers.fusion={type: LinearLR}"],
            "100% for fusion: the weights do not settle. Fix: CosineAnnealingLR",
        ),
        (
            ["preset=tuned", "schedulers.fusion={type: CosineAnnealingLR, warmup: {epochs: 60}}"],
            "99% for fusion: the weights do not settle. Fix: a shorter warmup",
        ),
    ],
)
def test_a_high_final_rate_is_told_with_what_would_lower_it(
    settings: list[str], told: str, plan: PlanOf
) -> None:
    start = "the last epoch's share of the base rate is still "
    assert message(plan(ORIGIN, *settings), "high_final_rate") == start + told


@pytest.mark.parametrize(
    "settings", [["training.epochs=5"], [f"schedulers.experts={{type: {RESTARTS}, T_0: 20}}"]]
)
def test_what_is_advised_against_a_high_final_rate_helps(settings: list[str], plan: PlanOf) -> None:
    cosine = "schedulers: {experts: {type: CosineAnnealingLR}}\n"
    recipe = ORIGIN if "schedulers" in settings[0] else ORIGIN + cosine
    assert "high_final_rate" not in codes(plan(recipe, *settings))


def test_an_epoch_of_one_batch_is_told_in_the_singular(plan: PlanOf) -> None:
    assert "an epoch of 1 batch: experts" in message(plan(ORIGIN), "long_window")


def test_long_warnings_are_wrapped_below_themselves(plan: PlanOf) -> None:
    shown = screen(plan(ORIGIN), "small-00000000-s0").splitlines()
    start = next(n for n, line in enumerate(shown) if line.startswith("warning  SGD"))
    assert max(map(len, shown[start:])) <= LINE_WIDTH
    assert shown[start + 1].startswith("         ")
    assert shown[start + 2].endswith("[sgd_from_scratch]")
