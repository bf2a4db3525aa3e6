"""Which runs of a sweep are trained together, and what is said of those that are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fusionrun.plan import together
from fusionrun.plan.sweep import plan_points
from fusionrun.plan.together import Group, groups_of

GroupsOf = Callable[..., list[Group]]

RECIPE = """\
version: 1
name: digits
preset: tuned
data: {source: npz, path: package:handwritten_digits}
experts:
  a: {model: mlp, view: fourier, hidden: [8], features: 8}
  b: {model: mlp, view: zernike, hidden: [8], features: 8}
fusion: {type: concatenation}
training: {epochs: 2}
"""


@pytest.fixture
def groups(tmp_path: Path) -> GroupsOf:
    def made(sweep: str, *settings: str) -> list[Group]:
        path = tmp_path / "r.yaml"
        path.write_text(f"{RECIPE}sweep: {sweep}\n")
        points = plan_points(path, settings, tmp_path)[1]
        return groups_of([point.plan for point in points])

    return made


@pytest.mark.parametrize(
    "sweep",
    [
        "{seeds: [0, 1, 2]}",
        "{folds: 3}",
        "{grid: {training.epochs: [1, 2, 3]}}",
        "{grid: {learning_rates.base_lr: [1e-4, 1e-3, 1e-2]}}",
        "{grid: {training.optimizer.type: [SGD, Adam, AdamW]}}",
        "{grid: {knowledge_transfer.lambda_loss: [0.5, 1.0, 2.0]}}",
        "{grid: {knowledge_transfer.expert_gradient_clipping: [null, 1.0, 2.0]}}",
    ],
)
def test_what_differs_in_no_shape_is_trained_together(groups: GroupsOf, sweep: str) -> None:
    assert groups(sweep) == [Group((0, 1, 2))]


@pytest.mark.parametrize(
    "grid",
    [
        "training.batch_size: [32, 64]",
        "experts.a.hidden: [[8], [16]]",
        "experts.a.dropout: [0.0, 0.1]",
        "fusion.type: [concatenation, multiplicative]",
        "knowledge_transfer.knowledge_distillation_weight: [0.0, 0.1]",
    ],
)
def test_each_shape_has_a_group_of_its_own(groups: GroupsOf, grid: str) -> None:
    assert groups(f"{{grid: {{{grid}}}, seeds: [0, 1]}}") == [Group((0, 1)), Group((2, 3))]


@pytest.mark.parametrize(
    ("point", "why"),
    [
        (
            "experts.a.hidden: [[8], [9], [8]]",
            "no other run to train has networks of the same shapes",
        ),
        (
            "training.batch_size: [32, 64, 32]",
            "the run most like it has another training.batch_size",
        ),
        (
            "knowledge_transfer.knowledge_distillation_weight: [0.0, 0.1, 0.0]",
            "the run most like it has another set of losses",
        ),
    ],
)
def test_in_what_a_run_is_like_no_other_is_told(groups: GroupsOf, point: str, why: str) -> None:
    assert groups(f"{{zip: {{seed: [0, 1, 2], {point}}}}}") == [Group((0, 2)), Group((1,), why)]


def test_of_several_runs_unlike_it_a_run_is_held_against_the_nearest(groups: GroupsOf) -> None:
    both = "training.threads: [1, 2, 2], training.batch_size: [32, 64, 32]"
    found = groups(f"{{zip: {{{both}}}}}")
    assert [group.why.partition(" has ")[2] for group in found] == [
        "another training.threads",
        "another training.batch_size",
        "another training.threads",
    ]


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("training.engine=compiled", "training.engine is compiled"),
        ("training.epochs=5000", "'training.engine: eager' would let it be (auto: compiled)"),
        ("training.precision=bf16", "training.precision is bf16"),
        ("training.device=cuda", "training.device is cuda"),
        ("experts.a={model: cnn, view: pixel_averages, shape: [16, 15], channels: [4]}", "a cnn"),
        ("experts.b.freeze={until: {epochs: 1}}", "experts.b is frozen"),
        ("knowledge_transfer.gradient_combination=pcgrad", "gradient_combination is pcgrad"),
        ("knowledge_transfer.loss_weighting=dwa", "loss_weighting is dwa"),
        ("fusion.type=TransformerBase", "the experts attend to each other"),
        ("knowledge_transfer.lambda_loss=0.0", "its heads learn nothing"),
        ("stages=[{stage: pretrain, epochs: 1}, {stage: joint, epochs: 2}]", "it has stages"),
    ],
)
def test_what_cannot_be_computed_as_one_is_told(groups: GroupsOf, setting: str, why: str) -> None:
    found = groups("{seeds: [0, 1]}", setting)
    assert [group.numbers for group in found] == [(0,), (1,)]
    assert all(why in group.why for group in found)


def test_a_group_holds_no_more_than_memory_does(
    groups: GroupsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "MOST_RUNS", 2)
    found = groups("{seeds: [0, 1, 2]}")
    assert found == [Group((0, 1)), Group((2,), "2 others of the same shapes are a group already")]
    monkeypatch.setattr(together, "MOST_BYTES", 1)
    found = groups("{seeds: [0, 1]}")
    assert all("two runs like it take more than" in group.why for group in found)
