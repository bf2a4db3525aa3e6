"""A staged recipe's plans: one of each expert alone, and one of the fused run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fusionrun import schedules
from fusionrun.data.own_rows import OwnRows
from fusionrun.errors import RecipeError
from fusionrun.plan.against import compare
from fusionrun.plan.as_recipe import as_recipe
from fusionrun.plan.plan import Plan
from fusionrun.plan.reasons import why
from fusionrun.plan.resolve import make_plan
from fusionrun.plan.screen import screen
from fusionrun.plan.stages import Plans, make_plans
from fusionrun.plan.sweep import plan_points
from fusionrun.recipe.read import read_recipe
from fusionrun.schema.fusions import FUSIONS
from fusionrun.store.layout import run_id

PlansOf = Callable[..., Plans]
STAGES = """\
fusion: {type: concatenation}
stages:
  - {stage: pretrain, epochs: 4, learning_rates: {base_lr: 2e-3}}
  - {stage: warmup, epochs: 2}
  - {stage: joint, epochs: 8, learning_rates: {base_lr: 3e-4}, losses: {lambda_loss: 0.5}}
"""
# (Line 9 is the pretrain stage: the recipe's head and its experts come first.)


@pytest.fixture
def plans(write: Callable[..., Path]) -> PlansOf:
    """Plan a staged recipe; `settings` are `--set` arguments."""

    def plans_of(*settings: str, rest: str = STAGES, **where: str) -> Plans:
        return make_plans(read_recipe(write(rest, **where), settings), Path("runs"))

    return plans_of


def stored(plan: Plan) -> Plan:
    return Plan.from_json(json.loads(json.dumps(plan.to_json())), "plan.json")


# --- each expert alone ------------------------------------------------------------------------


def test_an_expert_alone_is_a_plan_without_anything_of_the_fusion(plans: PlansOf) -> None:
    one = plans().pretraining["one"]
    trained = {name: c.parameters for name, c in one.components.items() if c.parameters}
    assert list(trained) == ["experts.one", "heads.one"]
    assert one["fusion.type"] == "productOfExperts"
    assert one.losses == ({"lambda_loss": 0.0, "knowledge_distillation_weight": 0.0},)
    assert one.name == "small-pretrain-one"
    assert not one.stages


def test_its_rate_is_the_stages_with_the_place_it_was_written_at(plans: PlansOf) -> None:
    one = plans().pretraining["one"]
    assert one.components["experts.one"].lr == 2e-3
    assert one.values["learning_rates.base_lr"][1:3] == ("recipe", "recipe.yaml:9:60")
    assert len(one.components["experts.one"].rates) == one["training.epochs"] == 4


def test_all_else_is_the_recipes(plans: PlansOf) -> None:
    settings = ("preset=tuned", "training.batch_size=8", "training.precision=bf16", "seed=3")
    transfer = "knowledge_transfer={expert_gradient_clipping: 2.0, teacher: global}"
    one = plans(*settings, transfer).pretraining["one"]
    assert (one["training.batch_size"], one["training.precision"], one.seed) == (8, "bf16", 3)
    assert one["training.optimizer.type"] == "AdamW"
    assert one.components["experts.one"].clip == 2.0
    assert one["fusion.feature_norm"] == "shared"


def test_an_expert_is_not_frozen_while_it_is_trained_alone(plans: PlansOf) -> None:
    made = plans("experts.one.freeze=true")
    assert made.pretraining["one"].components["experts.one"].frozen_epochs == 0
    assert made.plan.components["experts.one"].never_trains
    assert made.plan.components["experts.two"].frozen_epochs == 2


def test_every_fusion_type_starts_from_the_same_pretraining(plans: PlansOf) -> None:
    hashes = {
        tuple(plan.hash for plan in plans(f"fusion.type={kind}").pretraining.values())
        for kind in FUSIONS.names()
    }
    assert len(hashes) == 1


def test_what_trains_the_fusion_alone_is_no_part_of_it(plans: PlansOf) -> None:
    before = {name: plan.hash for name, plan in plans().pretraining.items()}
    for setting in (
        "learning_rates.head_lr=0.5",
        "schedulers.fusion={type: StepLR}",
        "knowledge_transfer.temperature=4.0",
        "augmentation.modality_dropout=0.5",
        "stages[2].epochs=9",
    ):
        now = {name: plan.hash for name, plan in plans(setting).pretraining.items()}
        assert now == before, setting
    assert plans("stages[0].epochs=5").pretraining["one"].hash != before["one"]


def test_augmentation_that_an_experts_view_cannot_have_is_left_out_for_it(plans: PlansOf) -> None:
    experts = (
        "experts:\n  one: {model: cnn, view: big, channels: [2], features: 4}\n"
        "  two: {model: mlp, view: b}\n"
    )
    import numpy as np

    np.savez("data.npz", big=np.zeros((60, 1, 8, 8)), b=np.ones((60, 3)), label=np.arange(60) % 3)
    made = plans("augmentation.flip=true", "augmentation.noise=0.1", experts=experts).pretraining
    assert [made[name].get("augmentation.flip") for name in ("one", "two")] == [True, False]
    assert made["two"]["augmentation.noise"] == 0.1


def test_an_expert_alone_is_read_back_from_its_file(plans: PlansOf) -> None:
    one = plans("data.expert_shares=iid").pretraining["one"]
    assert stored(one) == one
    assert stored(one).hash == one.hash


# --- who sees which rows ----------------------------------------------------------------------


def test_each_expert_has_its_share_and_the_fused_run_everything(plans: PlansOf) -> None:
    made = plans("data.expert_shares=iid")
    sizes = [plan.data.sizes["train"] for plan in made.pretraining.values()]
    assert (sizes, made.plan.data.sizes["train"]) == ([18, 18], 36)
    assert made.pretraining["two"].data.own == OwnRows("train", 1, 2)
    assert made.pretraining["two"].data.class_counts["train"] == (6, 6, 6)


def test_the_fused_run_trains_on_the_holdout_where_there_is_one(plans: PlansOf) -> None:
    made = plans("data.fusion_holdout=0.25")
    assert made.plan.data.sizes == {"train": 9, "val": 12, "test": 12}
    assert made.plan.data.own == OwnRows("fusion_holdout")
    assert made.pretraining["one"].data.sizes["train"] == 27
    assert made.plan.steps.batches_per_epoch == 1


def test_specialists_have_the_rows_of_their_classes(plans: PlansOf, write: object) -> None:
    import numpy as np

    np.savez("data.npz", a=np.zeros((80, 2)), b=np.ones((80, 3)), label=np.arange(80) % 4)
    made = plans("data.expert_shares=classes").pretraining
    counts = [plan.data.class_counts["train"] for plan in made.values()]
    assert sorted(map(sorted, counts)) == [[0, 0, 12, 12]] * 2
    assert not [w for plan in made.values() for w in plan.warnings if "missing" in w.message]


def test_rows_that_only_the_drawing_tells_are_refused(plans: PlansOf) -> None:
    import numpy as np

    np.savez("data.npz", a=np.zeros((80, 2)), b=np.ones((80, 3)), label=np.arange(80) % 4)
    with pytest.raises(RecipeError, match=r"(?s)data\.expert_shares.*stratify: true"):
        plans("data.expert_shares=classes", "data.split={stratify: false}")


# --- the fused run ----------------------------------------------------------------------------


def test_each_stage_begins_its_schedules_anew_over_its_own_epochs(plans: PlansOf) -> None:
    fusion = plans().plan.components["fusion"]
    schedule = {"type": "CosineAnnealingLR", "eta_min": 0.1 * fusion.lr}
    parts = [
        schedules.rates(schedules.of_section({**schedule, "T_max": n}), fusion.lr, n)
        for n in (2, 8)
    ]
    assert fusion.rates == pytest.approx((*parts[0], *parts[1]))


def test_experts_are_frozen_while_the_fusion_warms_up_and_their_heads_are_not(
    plans: PlansOf,
) -> None:
    plan = plans().plan
    assert plan.components["experts.one"].frozen_epochs == 2
    assert plan.components["experts.one"].rates[:3] == (0.0, 0.0, 3e-4)
    assert plan.components["heads.one"].rates[0] > 0
    assert plan.components["heads.one"].rates[2] == 3e-4


def test_a_head_that_no_loss_of_a_stage_reaches_does_not_move_there(plans: PlansOf) -> None:
    losses = "stages[1].losses={lambda_loss: 0.0, knowledge_distillation_weight: 0.0}"
    plan = plans(losses).plan
    assert plan.components["heads.one"].rates[:3] == (0.0, 0.0, 3e-4)
    assert plan.components["fusion"].rates[0] > 0


def test_losses_are_the_stages_or_else_the_recipes(plans: PlansOf) -> None:
    plan = plans("knowledge_transfer.lambda_loss=2.0").plan
    assert [losses["lambda_loss"] for losses in plan.losses] == [2.0, 0.5]
    assert [plan.stage_at(n).stage for n in (0, 1, 2, 9)] == [  # type: ignore[union-attr]
        "warmup",
        "warmup",
        "joint",
        "joint",
    ]


def test_the_epochs_are_those_of_its_stages(plans: PlansOf) -> None:
    value = plans().plan.values["training.epochs"]
    assert (value.value, value.source) == (10, "rule")
    assert value.why == "the stages of the fused run: warmup 2 + joint 8"
    assert plans("training.epochs=10").plan["training.epochs"] == 10


def test_rules_of_pretrained_experts_hold_after_a_pretraining_and_not_in_it(
    plans: PlansOf,
) -> None:
    made = plans("preset=tuned", "stages[0].learning_rates=null", "stages[2].learning_rates=null")
    assert made.plan.components["experts.one"].lr == pytest.approx(1e-4)
    assert made.pretraining["one"].components["experts.one"].lr == pytest.approx(1e-3)


def test_it_names_the_runs_it_starts_from(plans: PlansOf) -> None:
    made = plans()
    for name, alone in made.pretraining.items():
        before = made.plan.pretraining[name]
        assert before.run == run_id(alone.name, alone.hash, 0)
        assert (before.plan_hash, before.rows, before.epochs) == (alone.hash, 36, 4)


def test_another_pretraining_is_another_fused_run(plans: PlansOf) -> None:
    assert plans().plan.hash != plans("stages[0].learning_rates.base_lr=1e-3").plan.hash
    assert plans().plan.hash != plans("stages[1].learning_rates.base_lr=1e-3").plan.hash


def test_stages_without_pretraining_begin_at_random_or_from_weights(plans: PlansOf) -> None:
    made = plans(rest="fusion: {type: concatenation}\nstages: [{stage: joint, epochs: 3}]")
    assert not made.pretraining
    assert made.plan["training.epochs"] == 3


def test_it_is_read_back_from_its_file(plans: PlansOf) -> None:
    plan = plans("data.fusion_holdout=0.25").plan
    assert stored(plan) == plan
    assert stored(plan).hash == plan.hash
    assert stored(plan).settings == plan.settings


@pytest.mark.parametrize("kind", ["concatenation", "TransformerBase", "productOfExperts"])
@pytest.mark.parametrize("preset", ["origin", "tuned"])
def test_written_back_as_a_recipe_it_is_the_same_plan(
    plans: PlansOf, kind: str, preset: str
) -> None:
    plan = plans(f"fusion.type={kind}", f"preset={preset}").plan
    Path("again.yaml").write_text(as_recipe(plan))
    assert make_plan(read_recipe(Path("again.yaml")), Path("runs")).hash == plan.hash


def test_a_sweep_has_the_pretraining_of_every_point(write: Callable[..., Path]) -> None:
    sweep = "sweep: {grid: {fusion.type: [concatenation, multiplicative]}, seeds: [0, 1]}"
    _, points = plan_points(write(f"{STAGES}{sweep}"), [], Path("runs"))
    seen = {(p.pretraining["one"].hash, p.pretraining["one"].seed) for p in points}
    assert (len(points), len(seen)) == (4, 2)


# --- what people see --------------------------------------------------------------------------


def test_the_screen_shows_every_stage(plans: PlansOf) -> None:
    shown = screen(plans("preset=tuned").plan, "run", {"one": "completed"})
    shown = " ".join(shown.split())
    for line in (
        "pretrain 4 one alone 36 0.002 ",
        "warmup 1 to 2 heads 36 0.0001 ",
        "joint 3 to 10 experts, heads 36 0.0003 ",
        "warmup: CE(global) + 1 · Σ CE(expert); joint: CE(global) + 0.5 · Σ CE(expert)",
        "(completed)",
    ):
        assert line in shown


def test_why_tells_each_stages_own_number(plans: PlansOf) -> None:
    said = why(plans().plan, "experts.one.lr")
    assert said.startswith("learning_rates.experts.one = 0.00013\n")
    assert "  in pretrain one: 0.002\n    recipe: base_lr at recipe.yaml:9:60" in said
    assert "  in joint: 0.0003\n" in said


def test_a_change_is_told_by_stage_with_the_pretraining_that_it_leaves(plans: PlansOf) -> None:
    found = compare(plans("stages[2].epochs=9").plan, plans().plan)
    assert [change.key for change in found.changes] == ["training.epochs", "stages[2].epochs"]
    assert (found.kept, found.pretraining) == ((), ("one", "two"))
    assert compare(plans("stages[0].epochs=9").plan, plans().plan).pretraining == ()


def test_warnings_of_pretraining_are_told_together(plans: PlansOf) -> None:
    messages = [w.message for w in plans().plan.warnings if w.code == "sgd_from_scratch"]
    assert len(messages) == 1
    assert messages[0].startswith("pretraining of one, two: SGD at 0.002")


# --- what does not fit ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "key", "words"),
    [
        ("{stage: joint, epochs: 1}, {stage: warmup, epochs: 1}", r"stages\[1\].stage", "after jo"),
        ("{stage: warmup, epochs: 1}, {stage: pretrain, epochs: 1}", r"stages\[1\]", "pretrain af"),
        ("{stage: pretrain, epochs: 1}, {stage: pretrain, epochs: 1}", r"stages\[1\]", "once"),
        ("{stage: pretrain, epochs: 1}", "stages", "a warmup or a joint stage after it"),
        (
            "{stage: pretrain, epochs: 1, losses: {lambda_loss: 1}}, {stage: joint, epochs: 1}",
            r"stages\[0\].losses",
            "its own cross-entropy is all it has",
        ),
        (
            "{stage: pretrain, epochs: 1, learning_rates: {head_lr: 1}}, {stage: joint, epochs: 1}",
            r"stages\[0\].learning_rates.head_lr",
            "pretraining has not",
        ),
        ("{stage: joint, epochs: 60000}, {stage: joint, epochs: 60000}", "stages", "at most 100,0"),
    ],
)
def test_stages_that_do_not_fit_each_other_are_refused(
    plans: PlansOf, stages: str, key: str, words: str
) -> None:
    with pytest.raises(RecipeError, match=rf"(?s)recipe\.yaml:7:\d+  {key}.*{words}"):
        plans(rest=f"stages: [{stages}]\nfusion: {{type: concatenation}}")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training.epochs=11", r"training\.epochs.*expected  10, the epochs of the stages"),
        ("experts.one.weights=a.safetensors", r"experts\.one\.weights.*beside a pretrain stage"),
        (
            "stages[1].losses={knowledge_distillation_weight: -1}",
            r"stages\[1\]\.losses\.knowledge_distillation_weight",
        ),
    ],
)
def test_a_recipe_that_does_not_fit_its_stages_is_refused(
    plans: PlansOf, setting: str, words: str
) -> None:
    with pytest.raises(RecipeError, match=rf"(?s){words}"):
        plans(setting)


@pytest.mark.parametrize("setting", ["data.expert_shares=iid", "data.fusion_holdout=0.2"])
def test_shares_beside_stages_without_pretraining_are_refused(plans: PlansOf, setting: str) -> None:
    with pytest.raises(RecipeError, match=r"a pretrain stage beside it"):
        plans(setting, "stages=[{stage: joint, epochs: 2}]")


def test_layers_decay_in_an_expert_that_was_trained_alone_before(plans: PlansOf) -> None:
    made = plans("learning_rates.layer_decay=0.5")
    assert made.plan.components["experts.one"].layer_decay == 0.5
    assert made.pretraining["one"].components["experts.one"].layer_decay == 1.0


@pytest.mark.parametrize(
    "setting", ["gradient_combination=pcgrad", "loss_weighting=uncertainty", "loss_weighting=dwa"]
)
def test_how_paths_meet_is_no_part_of_an_expert_alone(plans: PlansOf, setting: str) -> None:
    before = {name: plan.hash for name, plan in plans().pretraining.items()}
    made = plans(f"knowledge_transfer.{setting}")
    assert {name: plan.hash for name, plan in made.pretraining.items()} == before
