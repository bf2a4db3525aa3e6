"""From a recipe on disk to a plan: the contract's numbers, who decided each, and why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fusionrun.blueprint import expert_component
from fusionrun.plan.plan import Plan
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.document import read_document
from fusionrun.recipe.read import read_recipe
from fusionrun.schema.experts import MLP
from tests.data.needs import shipped_recipes

PlanOf = Callable[..., Plan]

# The contract's table: base_lr, head_lr, weight decay.
ORIGIN = {
    "multiplicative": (1e-4, 5e-4, 1e-4),
    "multiplicativeAddition": (1e-4, 1e-3, 1e-4),
    "TransformerBase": (5e-5, 2e-4, 5e-4),
    "concatenation": (1e-4, 1e-3, 1e-4),
    "simpleAddition": (1e-4, 1e-3, 1e-4),
    "multiplicativeShifted": (1e-4, 1e-3, 1e-4),
}
# What its rules make of each rate, worked out by hand: below 100, 100 to 1000, above 1000.
ADAPTED = {
    "base_lr": {1e-4: (1.3e-4, 1e-4, 7e-5), 5e-5: (6.5e-5, 5e-5, 3.5e-5)},
    "head_lr": {
        5e-4: (6e-4, 5e-4, 4e-4),
        1e-3: (1.2e-3, 1e-3, 8e-4),
        2e-4: (2.4e-4, 2e-4, 1.6e-4),
    },
}
BAND = {6: 0, 64: 0, 99: 0, 100: 1, 512: 1, 1000: 1, 1001: 2, 1024: 2, 2048: 2}


def experts(*widths: int) -> str:
    lines = [
        f"  e{number}: {{model: mlp, view: a, hidden: [], features: {width}}}"
        for number, width in enumerate(widths)
    ]
    return "\n".join(["experts:", *lines, ""])


def rates(plan: Plan) -> dict[str, float]:
    return {name: component.lr for name, component in plan.components.items()}


# ------------------------------------------------------------------ the origin's table


@pytest.mark.parametrize("width", BAND)
@pytest.mark.parametrize("fusion_type", ORIGIN)
def test_rates_and_decay_are_the_contracts(fusion_type: str, width: int, plan: PlanOf) -> None:
    base_lr, head_lr, decay = ORIGIN[fusion_type]
    expert = ADAPTED["base_lr"][base_lr][BAND[width]]
    joint = ADAPTED["head_lr"][head_lr][BAND[width]]
    made = plan(f"fusion: {{type: {fusion_type}}}", experts=experts(width, width))
    assert rates(made) == {
        "experts.e0": expert,
        "experts.e1": expert,
        "heads.e0": expert,
        "heads.e1": expert,
        "fusion": joint,
        "global_head": joint,
    }
    assert {c.weight_decay for c in made.components.values()} == {decay}
    assert {c.input_dim for c in made.components.values()} == {width}


def test_experts_of_different_widths_each_follow_their_own(plan: PlanOf) -> None:
    made = plan(experts=experts(64, 512, 1024))
    assert rates(made) == {
        "experts.e0": 1.3e-4,
        "experts.e1": 1e-4,
        "experts.e2": 7e-5,
        "heads.e0": 1.3e-4,
        "heads.e1": 1e-4,
        "heads.e2": 7e-5,
        "fusion": 4e-4,
        "global_head": 4e-4,
    }


def test_fusion_and_global_head_follow_a_given_dim(plan: PlanOf) -> None:
    made = plan("fusion: {type: multiplicative, dim: 99}", experts=experts(1024, 512))
    assert (rates(made)["fusion"], rates(made)["global_head"]) == (6e-4, 6e-4)
    assert rates(made)["experts.e0"] == 7e-5


def test_fusion_without_a_width_follows_the_widest_expert(plan: PlanOf) -> None:
    made = plan("fusion: {type: productOfExperts}", experts=experts(64, 2048))
    assert made.components["fusion"].lr == 8e-4
    assert made.components["fusion"].parameters == 0


# ------------------------------------------------------------------ a given number is final


def test_a_given_base_rate_is_final(plan: PlanOf) -> None:
    made = plan("fusion: {type: multiplicative}\nlearning_rates: {base_lr: 3e-3}")
    assert rates(made)["experts.one"] == rates(made)["heads.two"] == 3e-3
    assert rates(made)["fusion"] == 6e-4
    value = made.values["learning_rates.experts.one"]
    assert value.source == "recipe"
    assert value.why == ("base_lr at recipe.yaml:8:27: a given rate is final, no rule touches it")
    assert made.components["experts.one"].rules == ()


def test_a_base_rate_given_with_set_is_final_and_says_so(plan: PlanOf) -> None:
    made = plan("fusion: {type: multiplicative}", "learning_rates.head_lr=2e-3")
    assert rates(made)["fusion"] == rates(made)["global_head"] == 2e-3
    value = made.values["learning_rates.fusion"]
    assert value.source == "set"
    assert "--set learning_rates.head_lr=2e-3" in value.why


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        ("experts.two", {"experts.two", "heads.two"}),
        ("fusion", {"fusion"}),
        ("global_head", {"global_head"}),
    ],
)
def test_a_rate_given_for_one_component_is_final_and_its_alone(
    key: str, changed: set[str], plan: PlanOf
) -> None:
    before = rates(plan())
    after = rates(plan("fusion: {type: multiplicative}", f"learning_rates.{key}=0.0123"))
    assert {name for name in after if after[name] != before[name]} == changed
    assert {after[name] for name in changed} == {0.0123}


# ------------------------------------------------------------------ rules


def test_an_empty_list_turns_the_rules_off(plan: PlanOf) -> None:
    made = plan("fusion: {type: multiplicative}\nlearning_rates: {rules: []}")
    assert rates(made)["experts.one"] == 1e-4
    assert rates(made)["fusion"] == 5e-4
    assert made.values["learning_rates.experts.one"].why == "base_lr 0.0001, no rule applies"


def test_the_users_rules_multiply_in_order_and_name_their_lines(plan: PlanOf) -> None:
    made = plan(
        "fusion: {type: multiplicative}\n"
        "learning_rates:\n"
        "  rules:\n"
        "    - {when: {num_experts: {ge: 2}}, scale: {base_lr: 0.5}}\n"
        "    - {when: {num_experts: {ge: 3}}, scale: {base_lr: 7.0}}\n"
        "    - {when: {}, scale: {base_lr: 0.1, head_lr: 3.0}}\n"
    )
    assert rates(made)["experts.one"] == 5e-6
    assert rates(made)["fusion"] == 1.5e-3
    assert made.values["learning_rates.experts.one"].steps == (
        "  0.0001   preset origin: the origin's table, base_lr of multiplicative",
        "× 0.5      rule 1 at recipe.yaml:10:7: num_experts 2 ≥ 2",
        "× 0.1      rule 3 at recipe.yaml:12:7: always",
        "= 5e-06",
    )
    assert made.components["heads.one"].rules == ("× 0.5 (num_experts 2 ≥ 2)", "× 0.1 (always)")


def test_a_presets_rules_are_named_by_their_number(plan: PlanOf) -> None:
    steps = plan().values["learning_rates.global_head"].steps
    assert steps[1] == "× 1.2      rule 2 of preset origin: input_dim 64 < 100"


# ------------------------------------------------------------------ schedules


def test_the_origins_schedules_span_the_epochs(plan: PlanOf) -> None:
    made = plan("fusion: {type: multiplicative}\ntraining: {epochs: 30}")
    expert = made.components["experts.one"]
    assert expert.schedule == {
        "type": "CosineAnnealingWarmRestarts",
        "T_0": 7,
        "T_mult": 2,
        "eta_min": 1.3e-5,
        "warmup": None,
    }
    fusion = made.components["fusion"]
    assert (fusion.schedule["T_max"], fusion.schedule["eta_min"]) == (30, 6e-5)
    assert len(expert.rates) == len(fusion.rates) == 30
    assert (expert.rates[0], expert.rates[7]) == (1.3e-4, 1.3e-4)


def test_a_single_epoch_still_has_a_schedule(plan: PlanOf) -> None:
    made = plan("fusion: {type: multiplicative}\ntraining: {epochs: 1}")
    assert made["schedulers.experts.T_0"] == made["schedulers.fusion.T_max"] == 1
    assert made.components["experts.one"].rates == (1.3e-4,)


def test_spans_leave_out_the_warm_up(plan: PlanOf) -> None:
    made = plan(
        "fusion: {type: multiplicative}\n"
        "training: {epochs: 30}\n"
        "schedulers:\n"
        "  experts: {type: CosineAnnealingWarmRestarts, warmup: {epochs: 6}}\n"
        "  fusion: {type: CosineAnnealingLR, warmup: {epochs: 5}}\n"
    )
    assert made["schedulers.experts.T_0"] == 6
    assert made["schedulers.fusion.T_max"] == 25
    assert made["schedulers.global_head.T_max"] == 30
    assert made.values["schedulers.fusion.T_max"].why == "all of 30 epochs less 5 of warm-up"


@pytest.mark.parametrize(
    ("section", "key", "expected"),
    [
        ("{type: StepLR}", "step_size", 10),
        ("{type: MultiStepLR}", "milestones", (15, 22)),
        ("{type: PolynomialLR}", "total_iters", 30),
        ("{type: OneCycleLR}", "total_steps", 30),
    ],
)
def test_other_schedules_span_the_epochs_too(
    section: str, key: str, expected: object, plan: PlanOf
) -> None:
    thirty = "fusion: {type: multiplicative}\ntraining: {epochs: 30}\n"
    made = plan(f"{thirty}schedulers: {{fusion: {section}}}")
    assert made[f"schedulers.fusion.{key}"] == expected
    assert made.values[f"schedulers.fusion.{key}"].source == "rule"


def test_each_experts_floor_is_a_tenth_of_its_own_rate(plan: PlanOf) -> None:
    made = plan(experts=experts(64, 512))
    assert made["schedulers.experts.eta_min"] == {"e0": 1.3e-5, "e1": 1e-5}
    assert made.components["heads.e0"].schedule["eta_min"] == 1.3e-5
    assert made.components["experts.e1"].schedule["eta_min"] == 1e-5
    assert made.settings.schedulers.experts.eta_min == "auto"


def test_a_given_floor_is_every_experts(plan: PlanOf) -> None:
    made = plan(
        "fusion: {type: multiplicative}\n"
        "schedulers: {experts: {type: CosineAnnealingLR, eta_min: 2e-6}}",
        experts=experts(64, 512),
    )
    floors = {made.components[f"experts.{name}"].schedule["eta_min"] for name in ("e0", "e1")}
    assert floors == {2e-6}


def test_heads_follow_their_experts(plan: PlanOf) -> None:
    made = plan(experts=experts(64, 512))
    for name in ("e0", "e1"):
        expert, head = made.components[f"experts.{name}"], made.components[f"heads.{name}"]
        assert (head.lr, head.rates, head.rules) == (expert.lr, expert.rates, expert.rules)
        assert (head.schedule, head.clip, head.accumulation) == (
            expert.schedule,
            expert.clip,
            expert.accumulation,
        )


# ------------------------------------------------------------------ presets


def test_the_origins_training_values(plan: PlanOf) -> None:
    made = plan()
    assert made.settings.training.optimizer.model_dump() == {
        "type": "SGD",
        "momentum": 0.9,
        "nesterov": True,
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 1e-4,
    }
    assert made.settings.knowledge_transfer.model_dump() == {
        "lambda_loss": 1.0,
        "knowledge_distillation_weight": 0.1,
        "temperature": 3.0,
        "teacher": "peers",
        "expert_gradient_accumulation": 2,
        "fusion_gradient_clipping": 1.0,
        "expert_gradient_clipping": 5.0,
        "cross_expert_attention": False,
        "gradient_combination": "sum",
        "loss_weighting": "static",
        "log_variance_lr": None,
    }
    assert made["fusion.feature_norm"] == "fusion"


def test_the_tuned_values(plan: PlanOf) -> None:
    made = plan("preset: tuned\nfusion: {type: concatenation}\ntraining: {epochs: 30}")
    assert set(rates(made).values()) == {1e-3}
    assert {c.schedule["type"] for c in made.components.values()} == {"CosineAnnealingLR"}
    assert {c.schedule["eta_min"] for c in made.components.values()} == {0.0}
    assert {c.optimizer for c in made.components.values()} == {"AdamW"}
    assert {c.clip for c in made.components.values()} == {1.0}
    assert {c.accumulation for c in made.components.values()} == {1}
    assert made["fusion.feature_norm"] == "shared"
    assert made["knowledge_transfer.lambda_loss"] == 1.0
    assert made["knowledge_transfer.knowledge_distillation_weight"] == 0.0
    assert made.warnings == ()


def test_tuned_pretrained_experts_run_at_a_tenth(plan: PlanOf, folder: Path) -> None:
    blueprint = expert_component(MLP(model="mlp", view="a"), (4,), "shared")
    tensors = {name: torch.zeros(tensor.shape) for name, tensor in blueprint.items()}
    save_file(tensors, folder / "one.safetensors")
    made = plan(
        "preset: tuned\nfusion: {type: concatenation}",
        "experts.one.weights=one.safetensors",
    )
    assert rates(made)["experts.one"] == rates(made)["heads.one"] == 1e-4
    assert rates(made)["experts.two"] == rates(made)["fusion"] == 1e-3
    weights = made.components["experts.one"].weights
    assert weights is not None
    assert weights.given == "one.safetensors"
    assert made.components["heads.one"].weights is None


def test_distillation_is_off_for_a_single_expert(plan: PlanOf) -> None:
    made = plan(experts=experts(64))
    assert made["knowledge_transfer.knowledge_distillation_weight"] == 0.0
    assert made.values["knowledge_transfer.knowledge_distillation_weight"].source == "rule"


def test_attention_between_experts_comes_with_the_transformer(plan: PlanOf) -> None:
    made = plan("fusion: {type: TransformerBase}")
    assert made["knowledge_transfer.cross_expert_attention"] is True
    assert (made["fusion.num_heads"], made["fusion.num_layers"]) == (8, 2)


# ------------------------------------------------------------------ sources


RECIPES = Path(__file__).parents[2] / "recipes"
SHIPPED = shipped_recipes()
WRITTEN_AUTO = "auto"


@pytest.mark.parametrize("name", SHIPPED)
def test_every_leaf_of_a_shipped_recipe_has_a_source_and_a_reason(name: str) -> None:
    made = make_plan(read_recipe(RECIPES / name), Path("runs"))
    assert {value.source for value in made.values.values()} <= {
        "recipe",
        "set",
        "preset",
        "rule",
        "default",
    }
    assert [key for key, value in made.values.items() if not value.why] == []
    left = [key for key, value in made.values.items() if value.value == WRITTEN_AUTO]
    own = "schedulers." if made.stages else " "  # (of stages each has its own)
    assert [key for key in left if not key.startswith(own)] == ["training.device"]


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_user_wrote_is_named_by_line_and_column(name: str) -> None:
    path = RECIPES / name
    lines = path.read_text(encoding="utf-8").splitlines()
    made = make_plan(read_recipe(path), Path("runs"))
    # (not what follows from a rate that was written: its reason is a sentence)
    written = {
        key: v
        for key, v in made.values.items()
        if v.source == "recipe" and "a given rate is final" not in v.why
    }
    assert len(written) > 12
    for value in written.values():
        file, line, column = value.why.rsplit(":", 2)
        text = lines[int(line) - 1][int(column) - 1 :]
        assert file == str(path)
        shown = read_document(f"x: {_scalar_at(text)}", "x").value["x"]
        if not isinstance(value.value, tuple | dict):
            assert shown == value.value


def _scalar_at(text: str) -> str:
    if text.startswith('"'):
        return text[: text.index('"', 1) + 1]
    for stop in (",", "}", " #"):
        text = text.partition(stop)[0]
    return text if not text.startswith(("[", "{", "-")) else "0"


def test_a_set_argument_is_named_as_it_was_given(plan: PlanOf) -> None:
    made = plan("fusion: {type: multiplicative}", "training.epochs=5", "seed=9")
    assert made.values["training.epochs"].source == made.values["seed"].source == "set"
    assert made.values["training.epochs"].why == "--set training.epochs=5"


def test_views_in_a_list_are_the_users_too(write: Callable[..., Path]) -> None:
    path = write()
    path.write_text(path.read_text().replace("data.npz}", "data.npz, views: [a, b]}"))
    made = make_plan(read_recipe(path), Path("runs"))
    assert made.values["data.views.b"].source == "recipe"
    assert made.values["data.views.b"].why == "recipe.yaml:3:44"


def test_names_with_dots_survive(write: Callable[..., Path]) -> None:
    path = write("fusion: {type: multiplicative}\nsweep: {grid: {training.epochs: [2, 3]}}")
    path.write_text(
        path.read_text()
        .replace("data.npz}", 'data.npz, views: {"a.x: #": a, b: b}}')
        .replace("view: a", 'view: "a.x: #"')
    )
    made = make_plan(read_recipe(path), Path("runs"))
    assert made['data.views."a.x: #"'] == "a"
    assert made.values['data.views."a.x: #"'].source == "recipe"
    assert made.values['sweep.grid."training.epochs"'].source == "recipe"
    assert made.settings.data.views == {"a.x: #": "a", "b": "b"}
    assert made.settings.sweep.grid == {"training.epochs": (2, 3)}


def test_the_word_auto_is_a_name_like_any_other(plan: PlanOf) -> None:
    made = plan("fusion: {type: multiplicative}", "name=auto", "slurm={partition: auto}")
    assert (made.name, made.values["name"].source) == ("auto", "set")
    assert made["slurm.partition"] == "auto"


def test_a_written_auto_is_resolved_like_an_absent_key(plan: PlanOf) -> None:
    made = plan(
        "fusion: {type: multiplicative, dim: auto}\n"
        "learning_rates: {base_lr: auto, experts: {one: auto}}\n"
        "schedulers: {experts: auto}\n"
        "knowledge_transfer: {lambda_loss: auto}\n"
    )
    other = plan()
    assert made.hash == other.hash
    assert made.values["fusion.dim"] == other.values["fusion.dim"]


def test_threads_of_a_large_model_are_left_to_torch(plan: PlanOf) -> None:
    made = plan("fusion: {type: concatenation, hidden_dim: 9000}", experts=experts(2048, 2048))
    assert made["training.threads"] == "auto"
    assert "torch's choice" in made.values["training.threads"].why


def test_images_of_convolutional_experts_lie_channels_last(plan: PlanOf) -> None:
    made = plan(
        experts="experts:\n  one: {model: cnn, view: pixels}\n  two: {model: mlp, view: a}\n"
    )
    assert made["training.memory_format"] == "channels_last"
    assert made.values["training.memory_format"].why == "convolutional: one"
    assert plan()["training.memory_format"] == "contiguous"


# ------------------------------------------------------------------ sizes


def test_steps_count_the_partial_batch_and_window(plan: PlanOf) -> None:
    made = plan("fusion: {type: multiplicative}\ntraining: {epochs: 3, batch_size: 16}")
    steps = made.steps  # 36 rows: 16 + 16 + 4
    assert (steps.batches_per_epoch, steps.last_batch) == (3, 4)
    assert (steps.fusion_steps, steps.expert_steps) == (9, 6)


@pytest.mark.parametrize(("optimizer", "moments"), [("SGD", 1), ("Adam", 2), ("AdamW", 2)])
def test_memory_counts_parameters_gradients_and_moments(
    optimizer: str, moments: int, plan: PlanOf
) -> None:
    made = plan("fusion: {type: multiplicative}", f"training.optimizer.type={optimizer}")
    size = 4 * sum(c.parameters for c in made.components.values())
    memory = made.memory
    assert (memory.parameters, memory.gradients) == (size, size)
    assert memory.optimizer == moments * size
    assert memory.total == (2 + moments) * size


def test_parameters_are_the_tensors_of_the_components(plan: PlanOf) -> None:
    parameters = {n: c.parameters for n, c in plan().components.items()}
    assert parameters == {
        "experts.one": 4 * 128 + 128 + 128 * 64 + 64,
        "experts.two": 12 * 128 + 128 + 128 * 64 + 64,
        "heads.one": 64 * 3 + 3,
        "heads.two": 64 * 3 + 3,
        "fusion": 2 * 2 * 64 + 2 * (64 * 64 + 64),
        "global_head": 64 * 3 + 3,
    }
