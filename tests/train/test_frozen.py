"""Experts that stay as they are, throughout or at first, and experts that begin from a file."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fusionrun.data.load import load_data
from fusionrun.launch import prepare
from fusionrun.models.wide_resnet import WideResNet as WideResNetModule
from fusionrun.plan.plan import Plan
from fusionrun.plan.resolve import make_plan
from fusionrun.plan.screen import screen
from fusionrun.plan.stored import read_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.schema.backbones import WideResNet
from fusionrun.store.layout import RunLayout
from fusionrun.train import frozen, job
from fusionrun.train.assemble import loss_settings, make_network, make_updater
from fusionrun.train.frozen import FrozenExperts
from fusionrun.train.ranks import SINGLE
from fusionrun.train.step import Step
from fusionrun.train.tables import Table
from tests.train.scripted_job import Script, started

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("numerics")

# 160 training rows in batches of 32: five steps an epoch. Each expert has a BatchNorm or dropout.
RECIPE = """\
version: 1
name: frozen
preset: tuned
data:
  source: npz
  path: package:handwritten_digits
  label: label
  split: {train: 0.08, val: 0.1, test: 0.82}
experts:
  pixels: {model: wideresnet, depth: 10, width: 1, view: pixel_averages, shape: [16, 15]}
  strokes: {model: cnn, view: pixel_averages, shape: [16, 15], channels: [4], features: 8}
  zernike: {model: mlp, view: zernike, hidden: [16], features: 16, dropout: 0.2}
fusion: {type: concatenation}
training: {epochs: 3, batch_size: 32, device: cpu}
"""
FOREVER = "experts.pixels.freeze=true"
STEADY = "schedulers.experts={type: ConstantLR, factor: 1.0, total_iters: 1}"
AT_FIRST = "experts.strokes.freeze={until: {epochs: 2}}"


def prepared(folder: Path, *settings: str) -> RunLayout:
    path = folder / "frozen.yaml"
    path.write_text(RECIPE)
    source = read_recipe(path, list(settings))
    plan = make_plan(source, folder / "runs")
    return prepare(plan, source.text, folder / "runs", new=True).layout


def planned(folder: Path, *settings: str) -> Plan:
    return read_plan(prepared(folder, *settings).plan)


def trained(folder: Path, *settings: str) -> RunLayout:
    layout = prepared(folder, *settings)
    assert job.run(layout) == "completed"
    return layout


def metrics(layout: RunLayout) -> list[dict[str, Any]]:
    return [json.loads(line) for line in layout.metrics.read_text().splitlines()]


def part(layout: RunLayout, name: str) -> dict[str, Tensor]:
    return load_file(layout.component("last", name))


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def step_and_table(plan: Plan) -> tuple[Step, Table]:
    rows = load_data(plan.settings.data, plan.data)["train"]
    network = make_network(plan, rows)
    updater = make_updater(plan, network, CPU)
    views = {name: expert.view for name, expert in plan.settings.experts.items()}
    table = Table(rows, network.experts_by_name, views, CPU)
    return Step(network, updater, loss_settings(plan), "float32", CPU), table


@pytest.fixture(scope="module")
def epoch_by_epoch(tmp_path_factory: pytest.TempPathFactory) -> list[RunLayout]:
    """One frozen throughout, one for two epochs; run for one, two and three epochs."""
    folders = [tmp_path_factory.mktemp(f"epochs{count}") for count in (1, 2, 3)]
    return [
        trained(folder, FOREVER, AT_FIRST, STEADY, f"training.epochs={count}")
        for count, folder in enumerate(folders, 1)
    ]


# --- what stays and what moves ----------------------------------------------------------------


def test_a_frozen_experts_weights_and_statistics_keep_their_bits(
    epoch_by_epoch: list[RunLayout],
) -> None:
    first, *_, last = (part(layout, "experts.pixels") for layout in epoch_by_epoch)
    assert same(first, last)
    assert first["backbone.bn.num_batches_tracked"] == 0
    assert torch.equal(first["backbone.bn.running_mean"], torch.zeros(64))


def test_an_expert_that_thaws_keeps_its_bits_until_then_and_trains_after(
    epoch_by_epoch: list[RunLayout],
) -> None:
    one, two, three = (part(layout, "experts.strokes") for layout in epoch_by_epoch)
    assert same(one, two)
    assert not torch.equal(two["backbone.output.weight"], three["backbone.output.weight"])
    assert three["backbone.norms.0.num_batches_tracked"] == 5


def test_a_frozen_experts_head_trains(epoch_by_epoch: list[RunLayout]) -> None:
    one, *_, three = epoch_by_epoch
    for name in ("heads.pixels", "heads.strokes"):
        assert not same(part(one, name), part(three, name))


def test_rates_are_zero_while_an_expert_is_frozen(epoch_by_epoch: list[RunLayout]) -> None:
    rates = [line["rates"] for line in metrics(epoch_by_epoch[-1])]
    assert [r["experts.pixels"] for r in rates] == [0, 0, 0]
    assert [r["experts.strokes"] for r in rates] == [0, 0, 1e-3]
    assert all(r["heads.pixels"] > 0 for r in rates)


def test_a_run_killed_while_an_expert_is_frozen_or_after_goes_on_to_the_same_bits(
    tmp_path: Path, epoch_by_epoch: list[RunLayout]
) -> None:
    layout = prepared(tmp_path, FOREVER, AT_FIRST, STEADY)
    for saved in (7, 12):
        assert started(layout, Script(saves=(saved,), kill=saved + 1)) == [-signal.SIGKILL]
    assert started(layout) == [0]
    undisturbed = epoch_by_epoch[-1]
    for path in undisturbed.components("last").rglob("*.safetensors"):
        twin = layout.components("last") / path.relative_to(undisturbed.components("last"))
        assert twin.read_bytes() == path.read_bytes(), path.name


# --- the kept features ------------------------------------------------------------------------


def test_kept_features_give_the_losses_of_features_found_each_time(
    tmp_path: Path, epoch_by_epoch: list[RunLayout], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "MOST_BYTES", 0)
    anew = trained(tmp_path, FOREVER, AT_FIRST, STEADY)
    for kept, found in zip(metrics(epoch_by_epoch[-1]), metrics(anew), strict=True):
        assert kept["loss"] == pytest.approx(found["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ((), {0: ["pixels", "strokes"], 1: ["pixels", "strokes"], 2: ["pixels"]}),
        (("augmentation.label_smoothing=0.1",), {0: ["pixels", "strokes"]}),
        (("augmentation.noise=0.1",), {0: []}),
    ],
)
def test_features_are_kept_while_they_stay_the_same(
    tmp_path: Path, settings: tuple[str, ...], kept: dict[int, list[str]]
) -> None:
    plan = planned(tmp_path, FOREVER, AT_FIRST, *settings)
    step, table = step_and_table(plan)
    experts = FrozenExperts(plan, step, table, SINGLE)
    for epoch, names in kept.items():
        experts.begin(epoch)
        assert list(experts.known(torch.arange(3), 0, 3)) == names
    for features in experts.known(torch.tensor([5, 7, 3]), 1, 3).values():
        assert len(features) == 2


# --- the plan ---------------------------------------------------------------------------------


def test_the_screen_says_what_is_frozen_and_for_how_long(tmp_path: Path) -> None:
    shown = screen(planned(tmp_path, FOREVER, AT_FIRST), "x")
    assert "frozen for 2, 0.00025 → 0.00025" in shown
    assert (
        "frozen   experts.pixels throughout; experts.strokes for 2 of 3 epochs, then 5 steps. "
        "Their heads train"
    ) in shown


def test_memory_counts_no_gradient_of_an_expert_that_never_trains(tmp_path: Path) -> None:
    free, held = planned(tmp_path), planned(tmp_path, FOREVER)
    own = 4 * held.components["experts.pixels"].parameters
    assert held.memory.parameters == free.memory.parameters
    assert held.memory.gradients == free.memory.gradients - own
    assert held.memory.optimizer == free.memory.optimizer - 2 * own


def test_more_frozen_epochs_than_there_are_is_frozen_throughout(tmp_path: Path) -> None:
    plan = planned(tmp_path, "experts.pixels.freeze={until: {epochs: 9}}")
    component = plan.components["experts.pixels"]
    assert component.never_trains
    assert component.rates == (0.0, 0.0, 0.0)


def test_an_expert_frozen_from_scratch_is_warned_of(tmp_path: Path) -> None:
    warnings = {warning.code: warning for warning in planned(tmp_path, FOREVER).warnings}
    warning = warnings["frozen_from_scratch"]
    assert "experts.pixels is frozen throughout and has no weights" in warning.message
    codes = [warning.code for warning in planned(tmp_path, AT_FIRST).warnings]
    assert "frozen_from_scratch" not in codes


# --- weights of a published file ----------------------------------------------------------------


def test_a_published_file_starts_the_backbone_and_scaling_is_fitted(tmp_path: Path) -> None:
    section = WideResNet(model="wideresnet", view="v", depth=10, width=1)
    net = WideResNetModule(**section.module_args((16, 15)))
    file = net.state_dict() | {"fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)}
    save_file(file, tmp_path / "wrn.safetensors")
    layout = trained(
        tmp_path, FOREVER, "experts.pixels.weights=wrn.safetensors", "training.epochs=1"
    )
    left = part(layout, "experts.pixels")
    for name, tensor in net.state_dict().items():
        assert torch.equal(left[f"backbone.{name}"], tensor)
    assert left["scaler.std"].min() > 0.1
    assert not torch.equal(left["scaler.mean"], torch.zeros_like(left["scaler.mean"]))
    assert part(layout, "heads.pixels")["weight"].shape == (10, 64)
