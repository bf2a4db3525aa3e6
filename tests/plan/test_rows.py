"""What a plan says of who sees which rows, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fusionrun.errors import RecipeError
from fusionrun.plan.plan import Plan
from fusionrun.plan.screen import screen
from tests.data.written import write_mnist

PlanOf = Callable[..., Plan]
MNIST = "data={source: idx, path: mnist}"
FUSION = "fusion: {type: multiplicative}"
STAGES = "stages=[{stage: pretrain, epochs: 1}, {stage: joint, epochs: 1}]"
EXPERTS = """\
experts:
  one: {model: mlp, view: image}
  two: {model: mlp, view: image}
"""


@pytest.fixture(autouse=True)
def mnist(folder: Path) -> None:
    write_mnist(folder / "mnist")


def facts(plan: Plan) -> list[str]:
    lines = (line.split(maxsplit=1) for line in screen(plan, "run").splitlines())
    return [" ".join(line) for line in lines if line and line[0] in {"data", "shares"}]


def test_the_share_to_validate_on_is_resolved_with_its_reason(plan: PlanOf) -> None:
    value = plan(FUSION, MNIST, experts=EXPERTS).values["data.split.val"]
    assert (value.value, value.source) == (0.1, "rule")
    assert value.why == "the data has no validation part of its own"


def test_a_shared_training_part_needs_no_words(plan: PlanOf) -> None:
    assert facts(plan(FUSION, MNIST, experts=EXPERTS)) == [
        "data mnist (idx): 80 rows, 10 classes; train 54, val 6, test 20"
    ]


def test_iid_shares_are_shown_with_their_rows(plan: PlanOf) -> None:
    found = plan(FUSION, MNIST, "data.expert_shares=iid", STAGES, experts=EXPERTS)
    assert facts(found)[1] == "shares iid, for pretraining: one 27 rows; two 27 rows"


def test_specialists_are_shown_with_their_classes(plan: PlanOf) -> None:
    found = plan(
        FUSION,
        MNIST,
        "data.expert_shares=classes",
        "data.fusion_holdout=0.5",
        STAGES,
        experts=EXPERTS,
    )
    assert facts(found) == [
        "data mnist (idx): 80 rows, 10 classes; train 27, val 6, test 20",
        "shares classes, for pretraining: one 13 rows of 0, 2, 3, 5, 7; two 14 rows of 1, 4, 6, "
        "8, 9",
    ]


def test_shares_survive_the_plans_file(plan: PlanOf) -> None:
    found = plan(FUSION, MNIST, "data.expert_shares=iid", STAGES, experts=EXPERTS)
    again = Plan.from_json(found.to_json(), "plan.json")
    assert again.data == found.data
    assert again.hash == found.hash


def test_too_few_classes_for_specialists_are_refused(plan: PlanOf) -> None:
    experts = "experts:\n" + "".join(f"  e{n}: {{model: mlp, view: image}}\n" for n in range(6))
    words = r"(?s)data\.expert_shares.*10 classes for 6 experts.*at least 2 classes an expert: 12"
    with pytest.raises(RecipeError, match=words):
        plan(FUSION, MNIST, "data.expert_shares=classes", STAGES, experts=experts)


def test_too_few_rows_for_every_expert_are_refused(plan: PlanOf, folder: Path) -> None:
    np.savez(folder / "data.npz", a=np.zeros((5, 2)), b=np.zeros((5, 2)), label=[0, 1, 0, 1, 0])
    split = "data.split={train: 0.6, val: 0.4, test: 0.0}"
    with pytest.raises(RecipeError, match=r"(?s)3 training rows for 2 experts"):
        plan(FUSION, split, "data.expert_shares=iid", STAGES)


@pytest.mark.parametrize("setting", ["expert_shares=iid", "fusion_holdout=0.2"])
def test_shares_without_stages_are_refused_with_the_stages_they_want(
    plan: PlanOf, setting: str
) -> None:
    words = rf"(?s)data\.{setting.split('=')[0]}.*add stages: \[{{stage: pretrain, epochs: …}}"
    with pytest.raises(RecipeError, match=words):
        plan(FUSION, MNIST, f"data.{setting}", experts=EXPERTS)


def test_where_images_are_held_is_left_to_who_trains(plan: PlanOf, folder: Path) -> None:
    for name in ("a", "b"):
        (folder / "set" / "train" / name).mkdir(parents=True)
        (folder / "set" / "train" / name / "0.gif").write_bytes(b"GIF89a" + b"\x08\0\x09\0")
    data = "data={source: image_folder, path: set, split: {val: 0.0}}"
    value = plan(FUSION, data, experts=EXPERTS).values["data.images.in_memory"]
    assert (value.value, value.source) == ("auto", "default")
