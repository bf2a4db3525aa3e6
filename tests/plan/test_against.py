"""Two plans side by side: what changed, what it costs, and what can be kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fusionrun.plan.against import Comparison, compare, render
from fusionrun.plan.plan import Plan

PlanOf = Callable[..., Plan]
MULTIPLICATIVE = "fusion: {type: multiplicative}"
CONSTANT = (
    "schedulers:\n"
    "  experts: {type: ConstantLR, factor: 1.0}\n"
    "  fusion: {type: ConstantLR, factor: 1.0}\n"
    "  global_head: {type: ConstantLR, factor: 1.0}\n"
)
EXPERTS = ("experts.one", "experts.two")
HEADS = ("heads.one", "heads.two")


def costs(comparison: Comparison) -> dict[str, str]:
    return {change.key: change.cost for change in comparison.changes}


def test_a_plan_against_itself_has_no_change(plan: PlanOf) -> None:
    comparison = compare(plan(), plan())
    assert comparison.changes == ()
    assert comparison.retrained == ()
    assert render(comparison, "old.yaml") == "nothing changed against old.yaml: the same plan"


@pytest.mark.parametrize(
    ("setting", "key", "cost"),
    [
        ("name=other", "name", "nothing"),
        ("tracking.tensorboard=true", "tracking.tensorboard", "nothing"),
        ("evaluation.metrics=[nll]", "evaluation.metrics", "nothing"),
        ("slurm={nodes: 2}", "slurm.nodes", "a new launch"),
        ("training.device=cpu", "training.device", "a new launch"),
        ("training.threads=2", "training.threads", "a new launch"),
        ("training.early_stopping={patience: 3}", "training.early_stopping.patience", "a resume"),
    ],
)
def test_changes_that_train_nothing_again_keep_everything(
    setting: str, key: str, cost: str, plan: PlanOf
) -> None:
    comparison = compare(plan(MULTIPLICATIVE, setting), plan())
    assert costs(comparison)[key] == cost
    assert "a retraining" not in costs(comparison).values()
    assert set(comparison.kept) == {*EXPERTS, *HEADS, "fusion", "global_head"}
    assert comparison.retrained == ()
    assert render(comparison, "x").endswith("all components can be kept")


@pytest.mark.parametrize(
    "setting",
    ["seed=1", "training.batch_size=7", "training.optimizer.type=Adam", "data.split.seed=3"],
)
def test_other_changes_cost_a_retraining(setting: str, plan: PlanOf) -> None:
    comparison = compare(plan(MULTIPLICATIVE, setting), plan())
    assert costs(comparison)[setting.partition("=")[0]] == "a retraining"
    assert "fusion" in comparison.retrained


def test_another_fusion_can_start_from_the_experts(plan: PlanOf) -> None:
    comparison = compare(plan("fusion: {type: concatenation}"), plan())
    assert costs(comparison)["fusion.type"] == "a retraining"
    assert comparison.kept == EXPERTS
    assert comparison.retrained == (*HEADS, "fusion", "global_head")


def test_more_epochs_train_heads_as_anew_as_fusion_and_global_head(plan: PlanOf) -> None:
    new, old = (plan(f"{MULTIPLICATIVE}\ntraining: {{epochs: {n}}}") for n in (4, 2))
    comparison = compare(new, old)
    assert set(costs(comparison).values()) == {"a retraining"}
    assert comparison.kept == EXPERTS
    assert comparison.retrained == (*HEADS, "fusion", "global_head")


def test_another_seed_is_another_run_in_which_nothing_is_kept(plan: PlanOf) -> None:
    comparison = compare(plan(MULTIPLICATIVE, "seed=1", "name=other"), plan())
    assert comparison.kept == ()
    assert render(comparison, "x").endswith(
        "another run of the same plan: every component is trained anew"
    )


def test_another_seed_and_another_fusion_can_start_from_the_experts(plan: PlanOf) -> None:
    comparison = compare(plan("fusion: {type: concatenation}", "seed=1"), plan())
    assert comparison.kept == EXPERTS


@pytest.mark.parametrize("setting", ["experts.one.dropout=0.5", "experts.one.freeze=true"])
def test_an_expert_that_is_only_trained_otherwise_can_be_started_from(
    setting: str, plan: PlanOf
) -> None:
    comparison = compare(plan(MULTIPLICATIVE, setting), plan())
    assert costs(comparison) == {setting.partition("=")[0]: "a retraining"}
    assert comparison.kept == EXPERTS


def test_a_rate_costs_what_it_moves_and_no_other_key(plan: PlanOf) -> None:
    idle = "{when: {input_dim: {gt: 5000}}, scale: {base_lr: 0.5}}"
    given = "{base_lr: 1e-4, head_lr: 5e-4, rules: [RULES], experts: {one: 1e-4, two: 1e-4}}"
    texts = (given.replace("RULES", rules) for rules in (idle, ""))
    new, old = (plan(f"{MULTIPLICATIVE}\nlearning_rates: {text}") for text in texts)
    assert costs(compare(new, old)) == {"learning_rates.rules": "nothing"}
    moved = compare(plan(MULTIPLICATIVE, "learning_rates.fusion=0.5"), plan())
    assert costs(moved) == {
        "learning_rates.fusion": "a retraining",
        "schedulers.fusion.eta_min": "a retraining",
    }


def test_a_schedule_that_moves_no_rate_of_its_own_costs_nothing(plan: PlanOf) -> None:
    step = "{{type: StepLR, step_size: {}}}"
    new, old = (
        plan(
            f"{MULTIPLICATIVE}\nschedulers: {{fusion: {step.format(n)}, "
            f"experts: {{type: StepLR, step_size: {m}}}}}"
        )
        for n, m in ((80, 20), (90, 30))
    )
    assert costs(compare(new, old)) == {
        "schedulers.experts.step_size": "a retraining",
        "schedulers.fusion.step_size": "nothing",
    }


def test_another_expert_keeps_the_others(plan: PlanOf) -> None:
    comparison = compare(plan(MULTIPLICATIVE, "experts.one.hidden=[32]"), plan())
    assert costs(comparison) == {"experts.one.hidden": "a retraining"}
    assert comparison.kept == ("experts.two",)
    assert comparison.retrained == ("experts.one", *HEADS, "fusion", "global_head")


def test_an_added_expert_is_the_only_one_without_a_start(plan: PlanOf) -> None:
    more = (
        "experts:\n"
        "  one: {model: mlp, view: a, features: 64}\n"
        "  two: {model: mlp, view: b, features: 64}\n"
        "  three: {model: mlp, view: b, features: 64}\n"
    )
    comparison = compare(plan(experts=more), plan())
    assert comparison.kept == EXPERTS
    heads = (*HEADS, "heads.three")
    assert comparison.retrained == ("experts.three", *heads, "fusion", "global_head")


def test_other_data_keeps_nothing(plan: PlanOf) -> None:
    comparison = compare(plan(MULTIPLICATIVE, "data.normalize=none"), plan())
    assert comparison.kept == ()


def test_a_shared_norm_changes_every_expert(plan: PlanOf) -> None:
    comparison = compare(plan(MULTIPLICATIVE, "fusion.feature_norm=shared"), plan())
    assert comparison.kept == ()


def test_more_epochs_change_a_cosine_from_the_start(plan: PlanOf) -> None:
    comparison = compare(plan(f"{MULTIPLICATIVE}\ntraining: {{epochs: 80}}"), plan())
    assert costs(comparison)["training.epochs"] == "a retraining"
    assert costs(comparison)["schedulers.fusion.T_max"] == "a retraining"


def test_more_epochs_at_a_constant_rate_are_a_resume(plan: PlanOf) -> None:
    old = plan(f"{MULTIPLICATIVE}\ntraining: {{epochs: 10}}\n{CONSTANT}")
    new = plan(f"{MULTIPLICATIVE}\ntraining: {{epochs: 20}}\n{CONSTANT}")
    assert costs(compare(new, old)) == {"training.epochs": "a resume"}
    assert compare(new, old).retrained == ()
    assert costs(compare(old, new)) == {"training.epochs": "a retraining"}


def test_rules_that_move_no_rate_cost_nothing(plan: PlanOf) -> None:
    idle = "{when: {input_dim: {gt: 5000}}, scale: {base_lr: 0.5}}"
    narrow = "{when: {input_dim: {lt: 100}}, scale: {base_lr: 1.3, head_lr: 1.2}}"
    new = plan(f"{MULTIPLICATIVE}\nlearning_rates: {{rules: [{narrow}, {idle}]}}")
    comparison = compare(new, plan())
    assert costs(comparison) == {"learning_rates.rules": "nothing"}
    assert comparison.retrained == ()


def test_a_preset_costs_what_it_decides(plan: PlanOf) -> None:
    comparison = compare(plan(MULTIPLICATIVE, "preset=tuned"), plan())
    assert costs(comparison)["preset"] == "nothing"
    assert costs(comparison)["learning_rates.experts.one"] == "a retraining"


def test_experts_in_another_order_need_another_fusion(plan: PlanOf) -> None:
    lines = ["  one: {model: mlp, view: a}\n", "  two: {model: mlp, view: b}\n"]
    new, old = (plan(experts="experts:\n" + "".join(o)) for o in (lines, reversed(lines)))
    comparison = compare(new, old)
    assert costs(comparison) == {"experts, in their order": "a retraining"}
    assert comparison.kept == EXPERTS


def test_a_file_that_holds_something_else_keeps_nothing(plan: PlanOf, folder: Path) -> None:
    old = plan()
    held = {name: array[:45] for name, array in np.load(folder / "data.npz").items()}
    np.savez(folder / "data.npz", **held)
    comparison = compare(plan(), old)
    assert costs(comparison)["data, its rows"] == "a retraining"
    assert comparison.kept == ()


def test_the_same_file_at_another_place_changes_nothing(plan: PlanOf, folder: Path) -> None:
    new = plan()
    moved = dict(new.data.to_json(), files={"all": "/elsewhere/data.npz"})
    old = Plan.from_json({**new.to_json(), "data": moved}, "plan.json")
    assert compare(new, old).changes == ()
    assert compare(new, old).retrained == ()


def test_the_comparison_on_a_screen(plan: PlanOf) -> None:
    new = plan(MULTIPLICATIVE, "experts.one.hidden=[32]", "name=wider")
    assert render(compare(new, plan()), "recipe.yaml") == (
        "against recipe.yaml\n"
        "\n"
        "changed             was    is     costs\n"
        "name                small  wider  nothing\n"
        "experts.one.hidden  [128]  [32]   a retraining\n"
        "\n"
        "to train anew  experts.one, heads.one, heads.two, fusion, global_head\n"
        "to keep        experts.two, as a start: 'weights: run:ID#experts.NAME' for each"
    )


def test_a_narrow_screen_tells_a_change_in_a_line(
    plan: PlanOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    new = plan(MULTIPLICATIVE, "experts.one.hidden=[32]", f"name={'wider ' * 8}")
    shown = render(compare(new, plan()), "recipe.yaml").splitlines()
    assert "experts.one.hidden: [128] → [32]  costs a retraining" in shown
    assert max(map(len, shown)) <= 60


def test_the_comparison_as_json(plan: PlanOf) -> None:
    content = compare(plan(MULTIPLICATIVE, "training.batch_size=7"), plan()).to_json()
    change = {"key": "training.batch_size", "old": 128, "new": 7, "cost": "a retraining"}
    assert content == {
        "changes": [change],
        "kept": ["experts.one", "experts.two"],
        "retrained": ["heads.one", "heads.two", "fusion", "global_head"],
    }
