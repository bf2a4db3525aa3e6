"""Gradient combination, loss weighting, layer decay and muP in a plan: what is said and refused."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fusionrun.blueprint import expert_component
from fusionrun.errors import RecipeError
from fusionrun.plan.against import compare
from fusionrun.plan.plan import Plan
from fusionrun.plan.reasons import why
from fusionrun.plan.screen import screen
from fusionrun.schema.experts import MLP

PlanOf = Callable[..., Plan]
SUM = "fusion: {type: simpleAddition}"


def refused(golden: str, plan: PlanOf, rest: str, *settings: str, **where: str) -> None:
    with pytest.raises(RecipeError, match=r"\S") as caught:
        plan(rest, *settings, **where)
    assert str(caught.value) == textwrap.dedent(golden).strip("\n")


def line_of(plan: Plan, label: str) -> str:
    """What the concise screen says under a label, in one line."""
    lines = screen(plan, "r").splitlines()
    (start,) = [number for number, line in enumerate(lines) if line.startswith(f"{label} ")]
    found = [lines[start].removeprefix(label)]
    for line in lines[start + 1 :]:
        if not line.startswith(" "):
            break
        found.append(line)
    return " ".join(" ".join(found).split())


# --- gradients and losses ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pcgrad", "mmpareto"])
def test_a_combination_says_what_it_costs(kind: str, plan: PlanOf) -> None:
    made = plan(SUM, f"knowledge_transfer.gradient_combination={kind}")
    assert line_of(made, "gradients") == (
        f"{kind} joins both paths' on each expert: two backward passes a batch, over one forward"
    )
    assert made.memory.gradients == 3 * made.memory.parameters


def test_the_usual_sum_is_not_worth_a_word(plan: PlanOf) -> None:
    made = plan(SUM)
    assert "gradients  " not in screen(made, "r")
    assert made.memory.gradients == made.memory.parameters


def test_a_combination_without_an_individual_path_is_refused(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:8:60  knowledge_transfer.gradient_combination
          8 | knowledge_transfer: {lambda_loss: 0, gradient_combination: pcgrad}
            |                                                            ^^^^^^
          got       pcgrad with lambda_loss 0
          expected  sum: no head learns, so only the collaborative path reaches the experts
          give lambda_loss a value above 0
    """
    rest = f"{SUM}\nknowledge_transfer: {{lambda_loss: 0, gradient_combination: pcgrad}}"
    refused(golden, plan, rest)


def test_distillation_from_the_global_head_is_an_individual_path(plan: PlanOf) -> None:
    keys = ("lambda_loss=0", "gradient_combination=pcgrad", "teacher=global")
    made = plan(SUM, *(f"knowledge_transfer.{key}" for key in keys))
    assert made["knowledge_transfer.gradient_combination"] == "pcgrad"


def test_a_combination_of_one_path_with_itself_is_refused(plan: PlanOf) -> None:
    golden = """
        --set  knowledge_transfer.gradient_combination
           | knowledge_transfer.gradient_combination=mmpareto
           |                                         ^^^^^^^^
          got       mmpareto with one expert and fusion type productOfExperts
          expected  sum: both paths are the same head's, so their gradients are the same
    """
    setting = "knowledge_transfer.gradient_combination=mmpareto"
    one = "experts:\n  one: {model: mlp, view: a}\n"
    refused(golden, plan, "fusion: {type: productOfExperts}", setting, experts=one)
    assert plan(SUM, setting, experts=one)


def test_a_combination_on_frozen_experts_is_refused(plan: PlanOf) -> None:
    one = "experts:\n  one: {model: mlp, view: a, freeze: true}\n"
    with pytest.raises(RecipeError, match="there is no gradient on an expert to combine"):
        plan(SUM, "knowledge_transfer.gradient_combination=pcgrad", experts=one)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("static", ""),
        ("uncertainty", "; each CE's weight is learned (uncertainty), and begins there"),
        ("dwa", "; a CE that falls slower weighs more, from the third epoch on (dwa)"),
    ],
)
def test_losses_say_how_they_are_weighed(kind: str, words: str, plan: PlanOf) -> None:
    made = plan(f"preset: tuned\n{SUM}", f"knowledge_transfer.loss_weighting={kind}")
    assert line_of(made, "losses") == f"CE(global) + 1 · Σ CE(expert){words}"


def test_log_variances_have_a_rate_of_their_own(plan: PlanOf) -> None:
    key = "knowledge_transfer.log_variance_lr"
    learned = plan(SUM, "knowledge_transfer.loss_weighting=uncertainty")
    assert (learned[key], learned.values[key].source) == (0.01, "default")
    assert plan(SUM, "knowledge_transfer.loss_weighting=uncertainty", f"{key}=0.1")[key] == 0.1
    assert plan(SUM)[key] is None


def test_a_rate_of_log_variances_that_nothing_learns_is_refused(plan: PlanOf) -> None:
    golden = """
        recipe.yaml:8:39  knowledge_transfer.log_variance_lr
          8 | knowledge_transfer: {log_variance_lr: 0.1, loss_weighting: dwa}
            |                                       ^^^
          got       log_variance_lr with loss_weighting dwa
          expected  log_variance_lr only with uncertainty
          remove 'log_variance_lr', or change 'loss_weighting'
    """
    rest = f"{SUM}\nknowledge_transfer: {{log_variance_lr: 0.1, loss_weighting: dwa}}"
    refused(golden, plan, rest)


@pytest.mark.parametrize("kind", ["uncertainty", "dwa"])
def test_weighing_one_loss_alone_is_refused(kind: str, plan: PlanOf) -> None:
    keys = ("lambda_loss=0", f"loss_weighting={kind}")
    with pytest.raises(RecipeError, match=f"{kind} with lambda_loss 0\n.*static: only the global"):
        plan(SUM, *(f"knowledge_transfer.{key}" for key in keys))


def test_too_few_epochs_for_a_pace_are_warned_of(plan: PlanOf) -> None:
    settings = ("knowledge_transfer.loss_weighting=dwa", "training.epochs=2")
    found = [w.message for w in plan(SUM, *settings).warnings if w.code == "idle_weighting"]
    assert found == [
        "loss_weighting dwa weighs from the third epoch on, and there are 2. "
        "Fix: more epochs, or static"
    ]


def test_how_paths_and_losses_are_joined_costs_a_retraining(plan: PlanOf) -> None:
    for setting in ("gradient_combination=pcgrad", "loss_weighting=dwa"):
        changed = compare(plan(SUM, f"knowledge_transfer.{setting}"), plan(SUM)).changes
        assert [change.cost for change in changed] == ["a retraining"]


# --- layer decay ------------------------------------------------------------------------------


@pytest.fixture
def pretrained(folder: Path) -> str:
    """Two experts, of which the first starts from weights: three layers."""
    expert = MLP(model="mlp", view="a", hidden=(8, 8), features=64)
    tensors = {n: torch.zeros(t.shape) for n, t in expert_component(expert, (4,), "fusion").items()}
    save_file(tensors, folder / "one.safetensors")
    return (
        "experts:\n"
        "  one: {model: mlp, view: a, hidden: [8, 8], features: 64, weights: one.safetensors}\n"
        "  two: {model: mlp, view: b, features: 64}\n"
    )


@pytest.mark.parametrize("decay", ["0.5", "{one: 0.5}"], ids=["for all", "by name"])
def test_layer_decay_shows_the_rates_of_both_ends(
    decay: str, pretrained: str, plan: PlanOf
) -> None:
    rates = f"learning_rates: {{base_lr: 1e-3, layer_decay: {decay}}}"
    made = plan(f"{SUM}\n{rates}", experts=pretrained)
    assert line_of(made, "layers") == (
        "experts.one: × 0.5 for each of 3 layers from the output back: "
        "0.001 at the last, 0.00025 at the first"
    )
    assert why(made, "experts.one.lr").splitlines()[-1] == (
        "    layers   × 0.5 for each layer from the output back: 0.00025 at the first"
    )
    assert {n for n, c in made.components.items() if c.num_layers} == {"experts.one"}
    assert made.components["experts.one"].lr == 1e-3


def test_layer_decay_of_an_expert_without_weights_is_refused(pretrained: str, plan: PlanOf) -> None:
    golden = """
        recipe.yaml:8:37  learning_rates.layer_decay.two
          8 | learning_rates: {layer_decay: {two: 0.5}}
            |                                     ^^^
          got       0.5 for an expert that starts without weights
          expected  layer_decay for experts that start from 'weights:' and train
          what is new should learn at the full rate in every layer: remove it, or give weights
    """
    refused(
        golden, plan, f"{SUM}\nlearning_rates: {{layer_decay: {{two: 0.5}}}}", experts=pretrained
    )


def test_layer_decay_where_no_expert_has_weights_is_refused(plan: PlanOf) -> None:
    with pytest.raises(RecipeError, match=r"0\.5, and no expert starts from weights and trains"):
        plan(SUM, "learning_rates.layer_decay=0.5")


def test_layer_decay_of_a_frozen_expert_is_refused(pretrained: str, plan: PlanOf) -> None:
    frozen = pretrained.replace("weights:", "freeze: true, weights:")
    with pytest.raises(RecipeError, match=r"0\.5 for an expert that is frozen throughout"):
        plan(f"{SUM}\nlearning_rates: {{layer_decay: {{one: 0.5}}}}", experts=frozen)


def test_layer_decay_of_nobody_names_the_nearest_expert(pretrained: str, plan: PlanOf) -> None:
    with pytest.raises(RecipeError, match=r"got +'oen'\n.*one, two\n +did you mean 'one'\?"):
        plan(f"{SUM}\nlearning_rates: {{layer_decay: {{oen: 0.5}}}}", experts=pretrained)


@pytest.mark.parametrize("value", ["0", "1.1", "true", "fast", "[0.5]", "{one: 2}"])
def test_layer_decay_is_a_factor(value: str, plan: PlanOf) -> None:
    with pytest.raises(RecipeError, match="a number greater than 0 and of at most 1, or a mapping"):
        plan(f"{SUM}\nlearning_rates: {{layer_decay: {value}}}")


def test_layer_decay_costs_a_retraining(pretrained: str, plan: PlanOf) -> None:
    before = plan(SUM, experts=pretrained)
    changed = compare(plan(SUM, "learning_rates.layer_decay=0.5", experts=pretrained), before)
    assert [(c.key, c.cost) for c in changed.changes] == [
        ("learning_rates.layer_decay", "a retraining")
    ]


# --- muP --------------------------------------------------------------------------------------

MUP = "learning_rates: {base_lr: 2e-3, rules: [{mup: {base_width: 16}}]}"


def test_mup_leaves_the_rate_and_says_what_it_spreads(plan: PlanOf) -> None:
    made = plan(f"preset: tuned\n{SUM}\n{MUP}")
    assert made.components["experts.one"].lr == 2e-3
    assert why(made, "experts.one.lr").splitlines()[2:] == [
        "    tensors  mup × 0.25 (hidden matrices: width 64, base width 16), "
        "by rule 1 at recipe.yaml:9:41"
    ]
    assert why(made, "fusion").splitlines()[-1] == (
        "    tensors  mup × 0.25 (matrices: width 64, base width 16), by rule 1 at recipe.yaml:9:41"
    )
    assert {
        name: c.rules for name, c in made.components.items() if "one" in name or "." not in name
    } == {
        "experts.one": ("mup × 0.25 (hidden matrices: width 64, base width 16)",),
        "heads.one": ("mup × 0.25 (its matrix: width 64, base width 16)",),
        "fusion": ("mup × 0.25 (matrices: width 64, base width 16)",),
        "global_head": ("mup × 0.25 (its matrix: width 64, base width 16)",),
    }


def test_mup_of_sgd_is_another(plan: PlanOf) -> None:
    made = plan(f"preset: origin\n{SUM}\n{MUP}")
    assert made.components["experts.one"].rules == (
        "mup × 4 (first matrix, biases and norms: width 64, base width 16)",
    )


def test_mup_holds_where_its_condition_does_and_beside_other_rules(plan: PlanOf) -> None:
    rules = (
        "[{when: {}, scale: {base_lr: 2}}, {mup: {base_width: 16}, when: {input_dim: {gt: 32}}}]"
    )
    experts = (
        "experts:\n  one: {model: mlp, view: a, features: 32}\n"
        "  two: {model: mlp, view: b, features: 64}\n"
    )
    made = plan(f"preset: tuned\n{SUM}\nlearning_rates: {{rules: {rules}}}", experts=experts)
    assert [made.components[f"experts.{n}"].base_width for n in ("one", "two")] == [None, 16]
    assert {made.components[f"experts.{n}"].lr for n in ("one", "two")} == {2e-3}


def test_mup_costs_a_retraining(plan: PlanOf) -> None:
    rest = f"preset: tuned\n{SUM}\n{MUP}"
    changed = compare(plan(rest), plan(rest.replace("16", "32"))).changes
    assert [(c.key, c.cost) for c in changed] == [("learning_rates.rules", "a retraining")]
