"""What a job fixes of the process that it runs in, and how a network is built for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fusionrun.data.load import load_data
from fusionrun.errors import TrainingError
from fusionrun.launch import prepare
from fusionrun.models.experts import CNN
from fusionrun.plan.plan import Plan
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.store.status import read_status
from fusionrun.train.assemble import half_on_cpu, make_network
from fusionrun.train.bare import bare_trainer
from fusionrun.train.circumstances import circumstances
from fusionrun.train.job import run
from tests.data.written import images

pytestmark = pytest.mark.usefixtures("numerics")

RECIPE = """\
version: 1
name: numerics
preset: tuned
data: {source: npz, path: data.npz}
experts:
  conv: {model: cnn, view: image, channels: [4], features: 8}
  flat: {model: mlp, view: image, hidden: [], features: 8}
fusion: {type: concatenation}
"""


def plan_of(folder: Path, *settings: str) -> Plan:
    (folder / "r.yaml").write_text(RECIPE)
    np.savez(folder / "data.npz", image=images(40, 3, 8, 8), label=np.arange(40) % 2)
    return make_plan(read_recipe(folder / "r.yaml", settings), folder / "runs")


@pytest.mark.parametrize(("setting", "found"), [("true", "True"), ("false", "False")])
def test_a_run_is_deterministic_unless_told_otherwise_and_its_record_says_so(
    setting: str, found: str, tmp_path: Path
) -> None:
    step = bare_trainer(plan_of(tmp_path, f"training.deterministic={setting}")).step
    assert circumstances(step, "eager")["deterministic"] == found


def test_products_are_in_float32_unless_told_otherwise_and_its_record_says_so(
    tmp_path: Path,
) -> None:
    step = bare_trainer(plan_of(tmp_path)).step
    assert circumstances(step, "eager")["matmul precision"] == "highest"
    assert not torch.backends.cudnn.allow_tf32
    step = bare_trainer(plan_of(tmp_path, "training.matmul_precision=high")).step
    assert circumstances(step, "eager")["matmul precision"] == "high"
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("setting", "conv"), [("auto", True), ("channels_last", True), ("contiguous", False)]
)
def test_experts_that_convolve_read_channels_last(setting: str, conv: bool, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, f"training.memory_format={setting}")
    rows = load_data(plan.settings.data, plan.data)["train"]
    experts = make_network(plan, rows).experts_by_name
    assert {name: e.channels_last for name, e in experts.items()} == {"conv": conv, "flat": False}


@pytest.mark.parametrize(
    ("device", "precision", "is_told"),
    [("auto", "bf16", True), ("auto", "float32", False), ("cpu", "fp16", False)],
)
def test_a_gpus_precision_is_told_of_where_auto_comes_to_the_cpu(
    device: str, precision: str, is_told: bool, tmp_path: Path
) -> None:
    plan = plan_of(tmp_path, f"training.device={device}", f"training.precision={precision}")
    assert (precision in half_on_cpu(plan, torch.device("cpu"))) == is_told
    assert not half_on_cpu(plan, torch.device("cuda"))


def test_an_operation_without_an_exact_form_ends_the_run_with_the_key_that_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = CNN.forward

    def put(self: CNN, x: torch.Tensor) -> torch.Tensor:
        features = forward(self, x).clone()
        first = torch.zeros(1, dtype=torch.int64)
        return features.put_(first, features.new_zeros(1))  # torch refuses it on a CPU, too

    monkeypatch.setattr(CNN, "forward", put)
    plan = plan_of(tmp_path, "training={epochs: 1, device: cpu}")
    layout = prepare(plan, RECIPE, tmp_path / "runs", new=True).layout
    words = r"torch has no form of put_ that .*\n.*deterministic: false.* the same end$"
    with pytest.raises(TrainingError, match=words):
        run(layout)
    assert read_status(layout).state == "failed"
