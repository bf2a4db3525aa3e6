"""A staged recipe trained: shares, stages, and the same bits however often it is interrupted."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from fusionrun.cli.main import make_app
from fusionrun.data.load import load_data
from fusionrun.errors import TrainingError
from fusionrun.launch import prepare
from fusionrun.plan.stages import Plans, make_plans
from fusionrun.recipe.read import read_recipe
from fusionrun.store.atomic import write_json
from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import list_runs
from fusionrun.store.status import read_status
from fusionrun.train import job
from tests.train.scripted_job import Script, obeyed

pytestmark = pytest.mark.usefixtures("numerics")

# 160 rows to train on, of which 40 are held out and 60 are each expert's: two batches an epoch.
# Pretraining takes 8 steps, the fused run 10.
RECIPE = """\
version: 1
name: staged
preset: tuned
data:
  source: npz
  path: package:handwritten_digits
  label: label
  split: {train: 0.08, val: 0.1, test: 0.82}
  expert_shares: iid
  fusion_holdout: 0.25
experts:
  fourier: {model: mlp, view: fourier, hidden: [8], features: 8, dropout: 0.2}
  pixels: {model: cnn, view: pixel_averages, shape: [16, 15], channels: [4], features: 8}
fusion: {type: concatenation}
training: {batch_size: 32, device: cpu}
stages:
  - {stage: pretrain, epochs: 4, learning_rates: {base_lr: 2e-2}}
  - {stage: warmup, epochs: 2, losses: {knowledge_distillation_weight: 0.5}}
  - {stage: joint, epochs: 3, learning_rates: {base_lr: 1e-3}, losses: {lambda_loss: 0.5}}
"""


class Life(NamedTuple):
    """A recipe that was trained whole: the folder, its plans, and what the command said."""

    folder: Path
    plans: Plans
    done: Result

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def run(self, name: str = "") -> RunLayout:
        """The fused run, or that of an expert alone."""
        part = f"-pretrain-{name}-" if name else "staged-"
        (found,) = [
            r for r in list_runs(self.runs) if part in r.id and (name or "-pre" not in r.id)
        ]
        return found


def train(folder: Path, *arguments: str) -> Result:
    recipe = folder / "staged.yaml"
    recipe.write_text(RECIPE)
    words = ["train", str(recipe), "--runs", str(folder / "runs"), *arguments]
    return CliRunner().invoke(make_app(), words)


def plans_of(folder: Path, *settings: str) -> Plans:
    (folder / "staged.yaml").write_text(RECIPE)
    return make_plans(read_recipe(folder / "staged.yaml", settings), folder / "runs")


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    folder = tmp_path_factory.mktemp("whole")
    done = train(folder)
    assert done.exit_code == 0, done.output
    return Life(folder, plans_of(folder), done)


def part(layout: RunLayout, which: str, name: str) -> dict[str, torch.Tensor]:
    return load_file(layout.component(which, name))  # type: ignore[arg-type]


def metrics(layout: RunLayout) -> list[dict[str, Any]]:
    return [json.loads(line) for line in layout.metrics.read_text().splitlines()]


# --- who saw what -----------------------------------------------------------------------------


def test_no_row_is_two_experts_and_the_fusion_has_rows_of_its_own(life: Life) -> None:
    def rows(plan: Any) -> set[int]:
        return set(load_data(plan.settings.data, plan.data)["train"].ids.tolist())

    alone = [rows(plan) for plan in life.plans.pretraining.values()]
    fused = rows(life.plans.plan)
    assert [len(ids) for ids in (*alone, fused)] == [60, 60, 40]
    assert len(alone[0] | alone[1] | fused) == 160


def test_an_expert_alone_took_as_many_steps_as_its_share_has_batches(life: Life) -> None:
    assert read_status(life.run("fourier")).step == 4 * 2
    assert read_status(life.run()).step == 5 * 2


def test_an_expert_is_scaled_by_the_rows_it_was_trained_on(life: Life) -> None:
    plan = life.plans.pretraining["fourier"]
    rows = load_data(plan.settings.data, plan.data)["train"].views["fourier"]
    fused = part(life.run(), "last", "experts.fourier")
    assert fused["scaler.mean"].numpy() == pytest.approx(np.asarray(rows).mean(0), rel=1e-4)


# --- stages -----------------------------------------------------------------------------------


def test_rates_and_losses_are_those_of_each_stage(life: Life) -> None:
    lines = metrics(life.run())
    assert [line["stage"] for line in lines] == ["warmup"] * 2 + ["joint"] * 3
    plan = life.plans.plan
    for epoch, line in enumerate(lines):
        assert line["rates"] == {name: c.rates[epoch] for name, c in plan.components.items()}
        weight = line["weighted_loss"]["expert_ce.pixels"] / line["loss"]["expert_ce.pixels"]
        assert weight == pytest.approx(1.0 if epoch < 2 else 0.5)
        assert ("distillation.pixels" in line["loss"]) == (epoch < 2)


def test_a_warm_up_leaves_the_experts_as_their_pretraining_left_them(life: Life) -> None:
    """The same pretraining serves another fused run, which has a warm-up and nothing else."""
    stages = "stages=[{stage: pretrain, epochs: 4, learning_rates: {base_lr: 2e-2}}, "
    done = train(
        life.folder, "--set", "name=staged", "--set", stages + "{stage: warmup, epochs: 2}]"
    )
    assert done.exit_code == 0, done.output
    assert done.stdout.count("has completed") == 2
    newest = list_runs(life.runs)[0]
    for name in ("experts.fourier", "experts.pixels"):
        before = part(life.run(name.partition(".")[2]), "best", name)
        after = part(newest, "last", name)
        assert all(torch.equal(before[key], after[key]) for key in before)
    heads = (part(life.run("pixels"), "best", "heads.pixels"), part(newest, "last", "heads.pixels"))
    assert not torch.equal(heads[0]["weight"], heads[1]["weight"])
    shutil.rmtree(newest.root)


def test_the_screen_says_which_run_it_is_and_what_the_experts_were_worth_alone(life: Life) -> None:
    for line in (
        "1 of 3: pretraining of fourier",
        "2 of 3: pretraining of pixels",
        "3 of 3: the fused run",
        ": each after its pretraining, before fusion",
    ):
        assert line in life.done.stdout
    told = json.loads(train(life.folder, "--json").stdout)
    assert told["pretraining"]["pixels"]["run"] == life.run("pixels").id
    alone = json.loads(life.run("pixels").results.read_text())
    assert told["pretraining"]["pixels"]["results"]["test"] == alone["test"]["global"]


def test_given_again_it_trains_nothing(life: Life) -> None:
    before = {run.id: run.events.read_text() for run in list_runs(life.runs)}
    assert train(life.folder).exit_code == 0
    assert {run.id: run.events.read_text() for run in list_runs(life.runs)} == before


# --- going on ---------------------------------------------------------------------------------


# A run that nobody looks at: scripts that only send signals need none.
ANYWHERE = RunLayout(Path("nowhere"))


def test_interrupted_twice_it_goes_on_to_the_same_bits(life: Life, tmp_path: Path) -> None:
    again = f"to go on with all that is missing: fusionrun train {tmp_path / 'staged.yaml'}"
    with obeyed(Script(saves=(3,), signals=(5, signal.SIGINT)), ANYWHERE):
        first = train(tmp_path)
    assert (first.exit_code, len(list_runs(tmp_path / "runs"))) == (130, 1)
    assert again in first.stderr
    with obeyed(Script(signals=(9, signal.SIGINT)), ANYWHERE):  # (only the fused run comes so far)
        second = train(tmp_path)
    assert second.exit_code == 130
    assert "goes on (interrupted)" in second.stdout
    for run in (tmp_path / "runs").glob("*-pretrain-*"):
        run.rename(tmp_path / run.name)  # what it began with is in its checkpoint
    last = train(tmp_path)
    assert last.exit_code == 0, last.output
    for run in (tmp_path).glob("*-pretrain-*"):
        run.rename(tmp_path / "runs" / run.name)
    assert bits(tmp_path / "runs") == bits(life.runs)


def bits(runs: Path) -> dict[str, bytes]:
    """Every component of every run, byte for byte."""
    files = runs.glob("*/components/*/**/*.safetensors")
    return {str(path.relative_to(runs)): path.read_bytes() for path in files}


def prepared(folder: Path, source: Life) -> RunLayout:
    """The fused run by itself, beside copies of the runs before it."""
    plan = plans_of(folder).plan
    layout = prepare(plan, RECIPE, folder / "runs", new=True).layout
    for name in ("fourier", "pixels"):
        run = source.run(name)
        shutil.copytree(run.root, folder / "runs" / run.id)
    return layout


def test_without_its_experts_a_fused_run_says_how_to_get_them(life: Life, tmp_path: Path) -> None:
    layout = prepared(tmp_path, life)
    pixels = tmp_path / "runs" / life.run("pixels").id
    write_json(pixels / "status.json", {"state": "failed", "epoch": 1, "step": 2})
    with pytest.raises(
        TrainingError, match=rf"(?s)experts\.pixels.*fusionrun resume {pixels.name}"
    ):
        job.run(layout)
    assert read_status(layout).state == "failed"


def test_a_fused_run_that_begins_again_takes_the_very_same_experts(
    life: Life, tmp_path: Path
) -> None:
    layout = prepared(tmp_path, life)
    taken = json.loads(life.run().start.read_text())
    taken["pixels"]["sha256"]["experts.pixels"] = "0" * 64
    write_json(layout.start, taken)
    with pytest.raises(TrainingError, match=r"began with other weights of pixels"):
        job.run(layout)


def test_a_damaged_expert_is_not_taken(life: Life, tmp_path: Path) -> None:
    layout = prepared(tmp_path, life)
    file = RunLayout(tmp_path / "runs" / life.run("pixels").id).component("best", "experts.pixels")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(Exception, match=r"experts/pixels\.safetensors"):
        job.run(layout)


def test_early_stopping_cuts_no_stage_short_but_the_last(tmp_path: Path) -> None:
    settings = (
        "data.expert_shares=shared",
        "data.fusion_holdout=0.0",
        "stages=[{stage: warmup, epochs: 3}, {stage: joint, epochs: 4}]",
        "training.early_stopping={patience: 1, min_delta: 1.0}",
    )
    done = train(tmp_path, *(word for setting in settings for word in ("--set", setting)))
    assert done.exit_code == 0, done.output
    (run,) = list_runs(tmp_path / "runs")
    assert [line["stage"] for line in metrics(run)] == ["warmup"] * 3 + ["joint"] * 2
    assert not run.start.exists()


def test_the_shipped_staged_recipe_trains(tmp_path: Path) -> None:
    """A few steps of each run: its stages cut to an epoch each."""
    recipe = Path(__file__).parents[2] / "recipes" / "staged-slurm.yaml"
    fewer = [f"stages[{n}].epochs=1" for n in range(3)]
    words = [word for setting in fewer for word in ("--set", setting)]
    done = CliRunner().invoke(
        make_app(), ["train", str(recipe), "--runs", str(tmp_path), *words, "--json"]
    )
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)["pretraining"]) == len(list_runs(tmp_path)) - 1 == 4


@pytest.mark.parametrize("weighting", ["uncertainty", "dwa"])
def test_learned_weights_begin_anew_where_a_stage_has_losses_of_its_own(
    tmp_path: Path, weighting: str
) -> None:
    """And an interrupted stage goes on with what it had learned, to the same bits."""
    settings = (
        "data.expert_shares=shared",
        "data.fusion_holdout=0.0",
        f"knowledge_transfer.loss_weighting={weighting}",
        "stages=[{stage: warmup, epochs: 2}, "
        "{stage: joint, epochs: 3, losses: {lambda_loss: 0.5}}]",
    )
    recipe = tmp_path / "staged.yaml"
    recipe.write_text(RECIPE)
    plan = make_plans(read_recipe(recipe, settings), tmp_path / "a").plan
    runs = [prepare(plan, RECIPE, tmp_path / name, new=True).layout for name in ("a", "b")]
    job.run(runs[0])
    with obeyed(Script(stop=18), runs[1]):  # (of 25 steps; joint begins with the tenth)
        assert job.run(runs[1]) == "stopped"
    job.run(runs[1])
    first, second = (
        {p.name: p.read_bytes() for p in run.components("last").rglob("*.safetensors")}
        for run in runs
    )
    assert first == second
    weights = [line["loss_weights"]["global"] for line in metrics(runs[0])]
    assert len(weights) == 5
