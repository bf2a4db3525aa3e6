"""`fusionrun export` as a person meets it, and an exported expert used with torch alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from fusionrun.cli.main import make_app
from fusionrun.data.load import load_data
from fusionrun.plan.stored import read_plan
from fusionrun.store.components import load_component, verify
from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import list_runs
from fusionrun.train.assemble import make_network
from fusionrun.train.evaluate import split_logits
from fusionrun.train.tables import Table
from tests.small_runs import TWO_EXPERTS

pytestmark = pytest.mark.usefixtures("numerics")

RECIPE = TWO_EXPERTS + "training: {epochs: 2, device: cpu}\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "recipe.yaml").write_text(RECIPE)
    arguments = ["train", str(folder / "recipe.yaml"), "--runs", str(folder / "runs")]
    assert CliRunner().invoke(make_app(), arguments).exit_code == 0
    (layout,) = list_runs(folder / "runs")
    return layout


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(layout: RunLayout, component: str, *arguments: str) -> Result:
    command = ["export", "--component", component, "--runs", str(layout.root.parent)]
    return CliRunner().invoke(make_app(), [*command, *arguments])


# --- an exported expert in somebody else's code ---------------------------------------------


def by_hand(expert: str, head: str, raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a reader of the README would write: safetensors and torch, no fusionrun."""
    from safetensors.torch import load_file
    from torch.nn.functional import layer_norm, linear, relu

    e, h = load_file(expert), load_file(head)
    x = (raw - e["scaler.mean"]) / e["scaler.std"]
    layers = sorted({key.split(".")[2] for key in e if key.startswith("backbone.layers.")})
    for number in layers:
        weight, bias = (e[f"backbone.layers.{number}.{part}"] for part in ("weight", "bias"))
        x = relu(linear(x, weight, bias))
    if "norm.weight" in e:
        x = layer_norm(x, x.shape[-1:], e["norm.weight"], e["norm.bias"])
    return x, linear(x, h["weight"], h["bias"])


def test_an_exported_expert_and_head_take_raw_rows(trained: RunLayout, here: Path) -> None:
    assert export(trained, "experts.fourier").exit_code == 0
    assert export(trained, "heads.fourier").exit_code == 0
    plan = read_plan(trained.plan)
    rows = load_data(plan.settings.data, plan.data)
    raw = torch.from_numpy(rows["test"].views["fourier"])
    features, logits = by_hand("experts.fourier.safetensors", "heads.fourier.safetensors", raw)

    network = make_network(plan, rows["train"])
    for name, module in network.components().items():
        module.load_state_dict(load_component(trained.components("best"), name))
    network.eval()
    views = {name: expert.view for name, expert in plan.settings.experts.items()}
    table = Table(rows["test"], network.experts_by_name, views, torch.device("cpu"))
    experts, _ = split_logits(network, table, "float32")
    with torch.no_grad():
        own = network.experts_by_name["fourier"](raw)
    torch.testing.assert_close(features, own, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logits, experts[0], rtol=1e-6, atol=1e-6)
    accuracy = (logits.argmax(1).numpy() == rows["test"].labels).mean()
    results = json.loads(trained.results.read_text())
    assert accuracy == pytest.approx(results["test"]["fourier"]["accuracy"])
    assert len(np.unique(logits.argmax(1))) > 1


# --- the command ----------------------------------------------------------------------------


def test_one_component_goes_here_under_its_name(trained: RunLayout, here: Path) -> None:
    result = export(trained, "fusion")
    assert result.exit_code == 0
    source = trained.component("best", "fusion")
    assert (here / "fusion.safetensors").read_bytes() == source.read_bytes()


def test_the_newest_run_is_named(trained: RunLayout, here: Path) -> None:
    assert export(trained, "fusion").stdout.splitlines()[0] == f"run {trained.id}, best weights"


def test_a_newer_run_without_components_is_passed_over(trained: RunLayout, here: Path) -> None:
    runs = here / "runs"
    shutil.copytree(trained.root, runs / trained.id)
    failed = runs / "failed-00000000-s0"
    failed.mkdir()
    shutil.copy(trained.plan, failed / "plan.json")
    result = CliRunner().invoke(
        make_app(), ["export", "--component", "fusion", "--runs", str(runs)]
    )
    assert result.exit_code == 0, result.output
    assert f"run {trained.id}" in result.stdout


def test_runs_without_any_component_are_said_to_be_so(trained: RunLayout, here: Path) -> None:
    failed = here / "runs" / "failed-00000000-s0"
    failed.mkdir(parents=True)
    shutil.copy(trained.plan, failed / "plan.json")
    arguments = ["export", "--component", "fusion", "--runs", str(here / "runs")]
    result = CliRunner().invoke(make_app(), arguments)
    assert result.exit_code == 3
    assert "has components (best weights), failed-00000000-s0 neither" in result.stderr


def test_last_weights_on_request(trained: RunLayout, here: Path) -> None:
    result = export(trained, "fusion", "--which", "last")
    source = trained.component("last", "fusion")
    assert (here / "fusion.safetensors").read_bytes() == source.read_bytes()
    assert result.stdout.splitlines()[0] == f"run {trained.id}, last weights"


@pytest.mark.parametrize(("pattern", "count"), [("experts.*", 2), ("heads.*", 2), ("all", 6)])
def test_several_components_make_a_components_directory(
    pattern: str, count: int, trained: RunLayout, here: Path
) -> None:
    assert export(trained, pattern, "-o", "out").exit_code == 0
    verify(here / "out")
    assert len(list((here / "out").rglob("*.safetensors"))) == count


def test_output_names_the_file(trained: RunLayout, here: Path) -> None:
    assert export(trained, "experts.zernike", "-o", "sub/mine.safetensors").exit_code == 0
    assert (here / "sub/mine.safetensors").is_file()


def test_another_file_is_replaced_only_with_force(trained: RunLayout, here: Path) -> None:
    (here / "fusion.safetensors").write_text("mine")
    refused = export(trained, "fusion")
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert (here / "fusion.safetensors").read_text() == "mine"
    assert export(trained, "fusion", "--force").exit_code == 0
    source = trained.component("best", "fusion")
    assert (here / "fusion.safetensors").read_bytes() == source.read_bytes()


def test_json_tells_run_weights_and_files(trained: RunLayout, here: Path) -> None:
    content = json.loads(export(trained, "experts.*", "-o", "out", "--json").stdout)
    assert (content["run"], content["which"]) == (trained.id, "best")
    assert [file["name"] for file in content["files"]] == ["experts.fourier", "experts.zernike"]
    assert all((here / file["path"]).is_file() for file in content["files"])


def test_an_unknown_component_is_answered_with_the_nearest(trained: RunLayout, here: Path) -> None:
    result = export(trained, "experts.fuorier")
    assert result.exit_code == 2
    assert "did you mean 'experts.fourier'" in result.stderr
    assert not list(here.iterdir())


def test_an_unknown_run_exits_with_three(trained: RunLayout, here: Path) -> None:
    result = export(trained, "fusion", "--run", "nothing-like-it")
    assert result.exit_code == 3
    assert "no such run" in result.stderr


@pytest.mark.parametrize("pattern", ["experts.fourier", "all"])
def test_a_damaged_component_is_refused_and_nothing_is_written(
    pattern: str, trained: RunLayout, here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copy = RunLayout(tmp_path_factory.mktemp("damaged") / trained.id)
    shutil.copytree(trained.root, copy.root)
    file = copy.component("best", "experts.fourier")
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    result = export(copy, pattern)
    assert result.exit_code == 1
    assert "fourier.safetensors" in result.stderr
    assert "Traceback" not in result.output
    assert not list(here.iterdir())


def test_export_imports_neither_torch_nor_numpy(trained: RunLayout, here: Path) -> None:
    code = (
        "import sys; from fusionrun.cli.main import make_app\n"
        f"try: make_app()(['export', '--component', 'all', '--run', {str(trained.root)!r}])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.check_output([sys.executable, "-c", code], cwd=here, text=True)
    assert out.splitlines()[-1] == "[]"
    assert (here / f"components-{trained.id}" / "manifest.json").is_file()
