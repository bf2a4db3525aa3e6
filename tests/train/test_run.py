"""Whole runs, in this process: what they leave behind, and that every number in it is true."""

from __future__ import annotations

import json
import math
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file as load_safetensors
from torch import Tensor

from fusionrun.data.load import load_data
from fusionrun.datasets import path_of
from fusionrun.errors import ComponentError, RecipeError, TrainingError
from fusionrun.launch import prepare
from fusionrun.plan.plan import Plan
from fusionrun.plan.resolve import make_plan
from fusionrun.plan.stored import read_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.store.components import load_component, verify
from fusionrun.store.layout import RunLayout
from fusionrun.store.manifest import read_manifest
from fusionrun.store.runs import list_runs
from fusionrun.store.status import read_status
from fusionrun.train import attempt, component_saver, job
from fusionrun.train.assemble import make_network
from fusionrun.train.evaluate import split_logits
from fusionrun.train.metrics import path_metrics
from fusionrun.train.tables import Table

pytestmark = pytest.mark.usefixtures("numerics")

RECIPES = Path(__file__).parents[2] / "recipes"
METRICS = ["accuracy", "macro_f1", "nll", "ece"]
CPU = torch.device("cpu")


def prepared(recipe: Path, runs: Path, *settings: str) -> RunLayout:
    source = read_recipe(recipe, ["training.device=cpu", *settings])
    plan = make_plan(source, runs)
    return prepare(plan, source.text, runs, new=False).layout


def trained(recipe: Path, runs: Path, *settings: str) -> RunLayout:
    layout = prepared(recipe, runs, *settings)
    job.run(layout)
    return layout


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights_of(layout: RunLayout, which: str = "best") -> dict[str, dict[str, Tensor]]:
    folder = layout.components(which)
    names = read_manifest(folder).components
    return {name: load_component(folder, name) for name in names}


def same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


# --- one real run of the digits -------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    recipe = RECIPES / "handwritten-digits.yaml"
    return trained(recipe, tmp_path_factory.mktemp("digits"), "training.epochs=4")


@pytest.fixture(scope="module")
def plan(digits: RunLayout) -> Plan:
    return read_plan(digits.plan)


@pytest.fixture(scope="module")
def epochs(digits: RunLayout) -> list[dict[str, Any]]:
    return lines_of(digits.metrics)


def test_a_run_leaves_exactly_the_files_of_the_contract(digits: RunLayout, plan: Plan) -> None:
    parts = [f"experts/{name}" for name in plan.settings.experts]
    parts += [f"heads/{name}" for name in plan.settings.experts] + ["fusion", "global_head"]
    components = {f"components/{w}/{p}.safetensors" for w in ("best", "last") for p in parts}
    manifests = {"components/best/manifest.json", "components/last/manifest.json"}
    records = {"recipe.yaml", "plan.json", "environment.json", "status.json"}
    records |= {"events.jsonl", "results.json", "metrics.jsonl", "outcome.json", ".training"}
    found = {str(p.relative_to(digits.root)) for p in digits.root.rglob("*") if p.is_file()}
    assert found == components | manifests | records


def test_the_recipe_in_the_run_is_the_users_text(digits: RunLayout) -> None:
    assert digits.recipe.read_bytes() == (RECIPES / "handwritten-digits.yaml").read_bytes()


def test_the_components_of_a_run_verify(digits: RunLayout) -> None:
    verify(digits.components("best"))
    verify(digits.components("last"))


def test_results_go_from_split_to_path_to_metric(digits: RunLayout, plan: Plan) -> None:
    results = json.loads(digits.results.read_text())
    assert list(results) == ["test", "val", "train"]
    for paths in results.values():
        assert list(paths) == ["global", *plan.settings.experts, "mean_of_experts"]
        assert all(list(metrics) == METRICS for metrics in paths.values())
        assert all(math.isfinite(v) for metrics in paths.values() for v in metrics.values())


def test_a_short_run_learns_the_digits(digits: RunLayout) -> None:
    assert json.loads(digits.results.read_text())["test"]["global"]["accuracy"] > 0.93


def test_every_epoch_has_one_line_with_everything(epochs: list[dict[str, Any]], plan: Plan) -> None:
    experts = list(plan.settings.experts)
    assert [line["epoch"] for line in epochs] == [0, 1, 2, 3]
    assert [line["step"] for line in epochs] == [10, 20, 30, 40]
    for line in epochs:
        assert set(line["loss"]) == {"total", "global_ce", *(f"expert_ce.{e}" for e in experts)}
        assert set(line["weighted_loss"]) == set(line["loss"])
        assert list(line["train_accuracy"]) == ["global", *experts]
        assert list(line["val"]) == ["global", *experts, "mean_of_experts"]
        assert set(line["rates"]) == set(plan.components)
        groups = {*(f"experts.{e}" for e in experts), "fusion"}
        assert set(line["gradient_norm"]) == set(line["clipped_share"]) == groups
        assert all(0 <= share <= 1 for share in line["clipped_share"].values())
        assert line["samples_per_s"] > 0
        assert line["seconds"] > 0


def test_status_says_completed_with_all_epochs_and_steps(digits: RunLayout) -> None:
    status = read_status(digits)
    assert (status.state, status.epoch, status.step, status.attempts) == ("completed", 4, 40, 1)


def test_events_tell_the_run_from_start_to_end(digits: RunLayout) -> None:
    events = [line["event"] for line in lines_of(digits.events)]
    assert events == ["started", "engine", "saved", "saved", "completed"]


def test_the_environment_names_versions_host_device_and_data(digits: RunLayout) -> None:
    found = json.loads(digits.environment.read_text())
    assert found["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["device"] == {"type": "cpu"}
    assert {"host", "python", "platform", "git", "threads", "fusionrun"} <= found.keys()
    assert all(len(digest) == 64 for digest in found["data_sha256"].values())


@pytest.mark.parametrize("which", ["best", "last"])
def test_the_manifest_says_that_the_test_split_was_touched_once(
    digits: RunLayout, which: str
) -> None:
    assert read_manifest(digits.components(which)).test_split == component_saver.TOUCHED_ONCE


def test_the_test_split_is_evaluated_once(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []

    def counted(plan: Plan, step: Any, table: Table) -> Any:
        rows.append(len(table))
        return evaluated(plan, step, table)

    evaluated = attempt.evaluated
    monkeypatch.setattr(attempt, "evaluated", counted)
    layout = trained(small, tmp_path, "data.split={train: 0.5, val: 0.3, test: 0.2}")
    sizes = read_plan(layout.plan).data.sizes
    assert sorted(rows) == sorted(sizes[part] for part in ("test", "val", "train"))


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    """The run `digits` once more, in a process of its own, with an unusual umask."""
    runs = tmp_path_factory.mktemp("again")
    code = "import os; os.umask(0o027); from fusionrun.cli.main import main; main()"
    command = [sys.executable, "-c", code, "train", str(RECIPES / "handwritten-digits.yaml")]
    command += ["--set", "training.device=cpu", "--set", "training.epochs=4", "--runs", str(runs)]
    subprocess.run(command, check=True, capture_output=True)
    (layout,) = list_runs(runs)
    return layout


def test_files_follow_the_umask(again: RunLayout) -> None:
    files = [path for path in again.root.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}


# --- numbers that must agree ----------------------------------------------------------------


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    recipe = RECIPES / "origin-multiplicative-addition.yaml"
    return trained(recipe, tmp_path_factory.mktemp("origin"), "training.epochs=9")


@pytest.mark.parametrize("name", ["digits", "origin"])
def test_logged_rates_are_the_plans_for_every_component_and_epoch(
    name: str, request: pytest.FixtureRequest
) -> None:
    layout = request.getfixturevalue(name)
    lines = lines_of(layout.metrics)
    for component, planned in read_plan(layout.plan).components.items():
        assert [line["rates"][component] for line in lines] == list(planned.rates)


def test_the_origins_experts_restart_within_the_run(origin: RunLayout) -> None:
    rates = [line["rates"]["experts.fourier"] for line in lines_of(origin.metrics)]
    assert rates[0] == rates[2] == rates[6] > rates[1]


@pytest.mark.parametrize("name", ["digits", "origin"])
def test_the_total_loss_is_the_sum_of_the_weighted_terms(
    name: str, request: pytest.FixtureRequest
) -> None:
    for line in lines_of(request.getfixturevalue(name).metrics):
        weighted = dict(line["weighted_loss"])
        assert weighted.pop("total") == line["loss"]["total"]
        assert sum(weighted.values()) == pytest.approx(line["loss"]["total"], rel=1e-6)


def test_distillation_is_logged_raw_and_weighted(origin: RunLayout) -> None:
    line = lines_of(origin.metrics)[0]
    key = next(k for k in line["loss"] if k.startswith("distillation") and "fourier" in k)
    assert line["weighted_loss"][key] == pytest.approx(0.1 * line["loss"][key])
    assert line["loss"][key] > 0


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_best_is_the_epoch_with_the_best_validation_metric(
    small: Path, tmp_path: Path, metric: str
) -> None:
    selection = f"training.selection={{metric: {metric}, path: pixels}}"
    settings = ("training.epochs=8", selection)
    layout = trained(small, tmp_path, *settings, "learning_rates.base_lr=0.02")
    lines = lines_of(layout.metrics)
    values = [line["val"]["pixels"] for line in lines]
    sign = -1 if metric == "nll" else 1
    best = max(range(len(lines)), key=lambda e: (sign * values[e][metric], -values[e]["nll"], -e))
    manifest = read_manifest(layout.components("best"))
    assert manifest.epoch == best
    assert manifest.step == lines[best]["step"]
    assert manifest.chosen_on is not None
    assert manifest.chosen_on.value == values[best][metric]
    assert [line["epoch"] for line in lines if line["best"]][-1] == best


def test_a_fresh_network_with_the_saved_components_gives_the_same_results(
    digits: RunLayout, plan: Plan
) -> None:
    rows = load_data(plan.settings.data, plan.data)
    network = make_network(plan, rows["train"])
    for name, module in network.components().items():
        module.load_state_dict(load_component(digits.components("best"), name))
    views = {name: expert.view for name, expert in plan.settings.experts.items()}
    results = json.loads(digits.results.read_text())
    for part, paths in results.items():
        table = Table(rows[part], network.experts_by_name, views, CPU)
        experts, overall = split_logits(network, table, "float32")
        found = path_metrics(experts, overall, table.labels, tuple(views), True)
        assert found == paths


def test_best_and_last_differ_where_the_last_epoch_is_not_the_best(
    small: Path, tmp_path: Path
) -> None:
    # A rate that falls to nothing at once: only the first epoch learns, and ties go to it.
    settings = "schedulers.experts={type: MultiStepLR, milestones: [1], gamma: 1e-30}"
    other = settings.replace("experts", "fusion"), settings.replace("experts", "global_head")
    layout = trained(small, tmp_path, "training.epochs=3", settings, *other, "fusion.dropout=0.0")
    manifests = [read_manifest(layout.components(which)) for which in ("best", "last")]
    assert [manifest.epoch for manifest in manifests] == [0, 2]
    assert manifests[1].chosen_on is None


# --- the same seed --------------------------------------------------------------------------


def numbers(layout: RunLayout) -> list[dict[str, Any]]:
    """All metrics but those that measure time."""
    clock = {"seconds", "samples_per_s"}
    return [{k: v for k, v in line.items() if k not in clock} for line in lines_of(layout.metrics)]


def hashes(layout: RunLayout) -> dict[str, str]:
    return {
        f"{which}/{name}": record.sha256
        for which in ("best", "last")
        for name, record in read_manifest(layout.components(which)).components.items()
    }


def test_one_seed_gives_the_same_bits_in_another_process(
    digits: RunLayout, again: RunLayout
) -> None:
    assert again.id == digits.id
    assert hashes(again) == hashes(digits)
    assert numbers(again) == numbers(digits)
    assert again.results.read_bytes() == digits.results.read_bytes()


def test_another_seed_gives_other_weights_on_the_same_split(small: Path, tmp_path: Path) -> None:
    first, second = (trained(small, tmp_path, f"seed={seed}") for seed in (0, 1))
    assert not set(hashes(first).values()) & set(hashes(second).values())
    mean = "scaler.mean"
    left, right = (weights_of(run)["experts.fourier"][mean] for run in (first, second))
    assert torch.equal(left, right)


# --- every kind of run, small ---------------------------------------------------------------


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 digits of each class, as an npz file."""
    path = tmp_path_factory.mktemp("data") / "small.npz"
    with np.load(path_of("handwritten_digits")) as archive:
        chosen = first_of_each(archive["label"], 24)
        np.savez(path, **{name: archive[name][chosen] for name in archive.files})
    return path


def first_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([np.flatnonzero(labels == c)[:count] for c in np.unique(labels)])


def small_recipe(rows: Path) -> dict[str, Any]:
    return {
        "version": 1,
        "name": "small",
        "preset": "tuned",
        "data": {"source": "npz", "path": str(rows), "label": "label"},
        "experts": {
            "fourier": {"model": "mlp", "view": "fourier", "hidden": [16], "features": 16},
            "pixels": {"model": "mlp", "view": "pixel_averages", "hidden": [16], "features": 24},
            "zernike": {"model": "mlp", "view": "zernike", "hidden": [], "features": 16},
        },
        "fusion": {"type": "concatenation", "dropout": 0.1},
        "training": {"epochs": 2, "batch_size": 32},
    }


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in change.items():
        old = result.get(key)
        keep = isinstance(old, dict) and isinstance(value, Mapping) and "REPLACE" not in value
        result[key] = merged(old, value) if keep else value
    result.pop("REPLACE", None)
    return {k: merged(v, {}) if isinstance(v, dict) else v for k, v in result.items()}


def write_recipe(path: Path, content: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False))
    return path


@pytest.fixture(scope="module")
def small(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    return write_recipe(folder / "small.yaml", small_recipe(rows))


CNN = {"model": "cnn", "view": "pixel_averages", "shape": [15, 16], "channels": [4, 8]}
FUSIONS = (
    "multiplicative",
    "multiplicativeAddition",
    "multiplicativeShifted",
    "simpleAddition",
    "concatenation",
    "boundedProduct",
    "TransformerBase",
)
TEACHERS = ("peers", "ensemble", "mutual", "global")
KINDS: dict[str, dict[str, Any]] = {
    **{name: {"fusion": {"type": name}} for name in FUSIONS},
    "productOfExperts": {"fusion": {"REPLACE": 1, "type": "productOfExperts"}},
    **{kind: {"training": {"optimizer": {"type": kind}}} for kind in ("SGD", "Adam", "AdamW")},
    **{
        teacher: {"knowledge_transfer": {"teacher": teacher, "knowledge_distillation_weight": 0.5}}
        for teacher in TEACHERS
    },
    "bf16": {"training": {"precision": "bf16"}},
    # 144 rows in batches of 32: five batches, a window of three and one of two.
    "partial window": {"knowledge_transfer": {"expert_gradient_accumulation": 3}},
    "cnn": {"experts": {"pixels": {"REPLACE": 1, **CNN}}},
    "folds": {"data": {"split": {"folds": 4, "fold": 1}}},
    "one expert": {"experts": {"REPLACE": 1, "pixels": {"model": "mlp", "view": "pixel_averages"}}},
    "one batch": {"training": {"batch_size": 4096}},
    "no clipping": {
        "knowledge_transfer": {"fusion_gradient_clipping": None, "expert_gradient_clipping": None}
    },
    "no scaling": {"data": {"normalize": "none"}},
    "origin": {"preset": "origin"},
    "shared view": {
        "experts": {"pixels": {"REPLACE": 1, "model": "mlp", "view": "fourier", "features": 8}}
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_recipe_trains_to_verified_components(
    kind: str, rows: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", merged(small_recipe(rows), KINDS[kind]))
    layout = trained(recipe, tmp_path / "runs")
    plan = read_plan(layout.plan)
    verify(layout.components("best"))
    verify(layout.components("last"))
    results = json.loads(layout.results.read_text())
    assert list(results["test"]) == ["global", *plan.settings.experts, "mean_of_experts"]
    assert read_status(layout).step == plan.steps.fusion_steps
    for line in lines_of(layout.metrics):
        weighted = {k: v for k, v in line["weighted_loss"].items() if k != "total"}
        assert sum(weighted.values()) == pytest.approx(line["loss"]["total"], rel=1e-2)


def test_the_origins_recipe_moves_every_trainable_component(rows: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", small_recipe(rows))
    layout = trained(recipe, tmp_path / "runs")
    first, last = first_weights(layout), weights_of(layout, "last")
    moved = {n: any(not torch.equal(first[n][k], last[n][k]) for k in first[n]) for n in first}
    assert all(moved.values()), moved


def first_weights(layout: RunLayout) -> dict[str, dict[str, Tensor]]:
    plan = read_plan(layout.plan)
    rows = load_data(plan.settings.data, plan.data)
    network = make_network(plan, rows["train"])
    return {name: dict(module.state_dict()) for name, module in network.components().items()}


def test_a_run_without_validation_split_keeps_the_last_epoch(small: Path, tmp_path: Path) -> None:
    layout = trained(small, tmp_path, "data.split={train: 0.7, val: 0.0, test: 0.3}")
    manifest = read_manifest(layout.components("best"))
    assert (manifest.epoch, manifest.chosen_on) == (1, None)
    assert list(json.loads(layout.results.read_text())) == ["test", "train"]
    assert all(line["val"] is None for line in lines_of(layout.metrics))


def test_a_run_without_test_split_says_that_it_touched_none(small: Path, tmp_path: Path) -> None:
    layout = trained(small, tmp_path, "data.split={train: 0.7, val: 0.3, test: 0.0}")
    assert read_manifest(layout.components("best")).test_split == component_saver.NEVER_TOUCHED
    assert list(json.loads(layout.results.read_text())) == ["val", "train"]


def test_named_files_are_the_splits(rows: Path, tmp_path: Path) -> None:
    for part, count in (("train", 8), ("val", 6), ("test", 4)):
        with np.load(rows) as archive:
            chosen = first_of_each(archive["label"], count)
            np.savez(tmp_path / f"{part}.npz", **{n: archive[n][chosen] for n in archive.files})
    split = {"train": "train.npz", "val": "val.npz", "test": "test.npz"}
    data = {"source": "npz", "label": "label", "split": split}
    content = {**small_recipe(rows), "data": data}
    layout = trained(write_recipe(tmp_path / "r.yaml", content), tmp_path / "runs")
    assert read_plan(layout.plan).data.sizes == {"train": 80, "val": 60, "test": 40}
    assert set(json.loads(layout.environment.read_text())["data_sha256"]) == set(split)


def test_csv_data_trains_like_the_same_data_in_npz(rows: Path, small: Path, tmp_path: Path) -> None:
    wanted = {"fourier": "fourier", "pixels": "pixel_averages", "zernike": "zernike"}
    with np.load(rows) as archive:
        labels, views = archive["label"], {n: archive[a] for n, a in wanted.items()}
    names = [f"{n}_{i:03}" for n, values in views.items() for i in range(values.shape[1])]
    table = np.hstack(list(views.values())).astype(np.float32)
    lines = [",".join(["label", *names])]
    lines += [
        ",".join([str(label), *map(str, row.tolist())])
        for label, row in zip(labels, table, strict=True)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    patterns = {wanted[name]: f"{name}_*" for name in wanted}
    data = {"source": "csv", "path": "rows.csv", "label": "label", "views": patterns}
    content = {**small_recipe(rows), "data": data}
    layout = trained(write_recipe(tmp_path / "r.yaml", content), tmp_path / "runs")
    assert numbers(layout) == numbers(trained(small, tmp_path / "runs"))


def test_early_stopping_ends_the_run_after_its_patience(small: Path, tmp_path: Path) -> None:
    # A rate of nothing: no epoch is better than the first.
    rates = ("learning_rates.base_lr=1e-30", "learning_rates.head_lr=1e-30")
    stopping = "training.early_stopping={patience: 3}"
    layout = trained(small, tmp_path, "training.epochs=20", stopping, *rates)
    assert len(lines_of(layout.metrics)) == 4
    assert read_manifest(layout.components("best")).epoch == 0
    (event,) = [line for line in lines_of(layout.events) if line["event"] == "early_stop"]
    assert (event["epochs"], event["best_epoch"]) == (4, 0)
    assert read_status(layout).state == "completed"


@pytest.fixture(scope="module")
def headless(small: Path, tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    """lambda_loss 0 and no distillation: no loss reaches the heads; weight decay is on."""
    settings = ("knowledge_transfer.lambda_loss=0.0", "training.optimizer.weight_decay=0.1")
    return trained(small, tmp_path_factory.mktemp("headless"), *settings)


def test_lambda_zero_leaves_every_head_as_it_was_drawn(headless: RunLayout) -> None:
    first, last = first_weights(headless), weights_of(headless, "last")
    heads = [name for name in first if name.startswith("heads.")]
    assert len(heads) == 3
    assert all(same(first[name], last[name]) for name in heads)
    assert not same(first["experts.pixels"], last["experts.pixels"])


def test_lambda_zero_reports_no_accuracy_of_heads(headless: RunLayout) -> None:
    assert all(list(p) == ["global"] for p in json.loads(headless.results.read_text()).values())
    for line in lines_of(headless.metrics):
        assert list(line["val"]) == list(line["train_accuracy"]) == ["global"]


def test_only_the_metrics_that_are_asked_for_are_in_the_results(
    small: Path, tmp_path: Path
) -> None:
    layout = trained(small, tmp_path, "evaluation.metrics=[nll, macro_f1]")
    results = json.loads(layout.results.read_text())
    assert list(results["test"]["global"]) == ["nll", "macro_f1"]


# --- starting from a component --------------------------------------------------------------

ASLEEP = ("learning_rates.base_lr=1e-30", "learning_rates.head_lr=1e-30", "training.epochs=1")


@pytest.fixture(scope="module")
def donor(small: Path, tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    # Another split, hence another scaling than the heirs would fit.
    return trained(small, tmp_path_factory.mktemp("donor"), "data.split.seed=5")


@pytest.mark.parametrize("by", ["path", "run"])
def test_weights_start_an_expert_from_exactly_those_tensors(
    donor: RunLayout, rows: Path, tmp_path: Path, by: str
) -> None:
    file = donor.component("best", "experts.fourier")
    given = str(file) if by == "path" else f"run:{donor.id}#experts.fourier"
    content = merged(small_recipe(rows), {"experts": {"fourier": {"weights": given}}})
    layout = prepared(write_recipe(tmp_path / "r.yaml", content), donor.root.parent, *ASLEEP)
    job.run(layout)
    assert same(weights_of(layout, "last")["experts.fourier"], load_safetensors(file))


def test_an_expert_from_a_component_keeps_its_scaling_and_the_others_fit_theirs(
    donor: RunLayout, rows: Path, tmp_path: Path
) -> None:
    given = {"weights": str(donor.component("best", "experts.fourier"))}
    content = merged(small_recipe(rows), {"experts": {"fourier": given}})
    layout = trained(write_recipe(tmp_path / "r.yaml", content), tmp_path / "runs", *ASLEEP)
    before, after = weights_of(donor), weights_of(layout)
    mean = "scaler.mean"
    assert torch.equal(before["experts.fourier"][mean], after["experts.fourier"][mean])
    assert not torch.equal(before["experts.pixels"][mean], after["experts.pixels"][mean])


def test_a_component_of_another_shape_is_refused_tensor_by_tensor(
    donor: RunLayout, rows: Path, tmp_path: Path
) -> None:
    given = {"weights": f"run:{donor.id}#experts.zernike"}
    content = merged(small_recipe(rows), {"experts": {"fourier": given}})
    recipe = write_recipe(tmp_path / "r.yaml", content)
    with pytest.raises(RecipeError, match=r"scaler\.mean is F32 \[47\], needed is F32 \[76\]"):
        prepared(recipe, donor.root.parent)


def test_a_component_that_changed_after_the_plan_is_refused_by_the_run(
    donor: RunLayout, rows: Path, tmp_path: Path
) -> None:
    file = tmp_path / "expert.safetensors"
    file.write_bytes(donor.component("best", "experts.fourier").read_bytes())
    content = merged(small_recipe(rows), {"experts": {"fourier": {"weights": file.name}}})
    layout = prepared(write_recipe(tmp_path / "r.yaml", content), tmp_path / "runs")
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ComponentError, match="It is not the file that was saved"):
        job.run(layout)
    assert read_status(layout).state == "failed"


# --- runs that fail -------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_fails_the_run_and_keeps_the_best_so_far(
    small: Path, tmp_path: Path
) -> None:
    # A warm-up from a harmless rate in the first epoch to an absurd one in the second.
    warmup = "warmup: {type: LinearLR, epochs: 1, start_factor: 1e-40}"
    schedule = f"schedulers.experts={{type: CosineAnnealingLR, {warmup}}}"
    rate = ("learning_rates.base_lr=1e38", "training.optimizer.type=SGD")
    layout = prepared(small, tmp_path, "training.epochs=4", schedule, *rate)
    with pytest.raises(TrainingError, match=r"not finite[^✗]*Fix: try a lower learning rate"):
        job.run(layout)
    assert read_status(layout).state == "failed"
    assert lines_of(layout.events)[-1]["event"] == "saved"
    best = weights_of(layout)
    assert all(t.isfinite().all() for tensors in best.values() for t in tensors.values())


def test_weights_broken_by_the_last_step_fail_the_run(small: Path, tmp_path: Path) -> None:
    settings = ("training.epochs=1", "training.batch_size=4096", "training.optimizer.type=SGD")
    rates = ("learning_rates.base_lr=1e38", "learning_rates.head_lr=1e38")
    layout = prepared(small, tmp_path, *settings, *rates)
    with pytest.raises(TrainingError, match=r"outputs are not finite: [^✗]*Fix: try a lower"):
        job.run(layout)
    assert not layout.results.exists()
    assert not layout.components("best").exists()


def test_a_disk_that_refuses_is_a_failed_run_with_a_message(small: Path, tmp_path: Path) -> None:
    layout = prepared(small, tmp_path)
    layout.metrics.mkdir()  # where a file has to go
    with pytest.raises(TrainingError, match=r"the run cannot go on: .*metrics\.jsonl"):
        job.run(layout)
    assert read_status(layout).state == "failed"
