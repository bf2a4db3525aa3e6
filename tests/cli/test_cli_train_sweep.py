"""`fusionrun train` of a recipe with a sweep: all points in one command, and what it tells."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fusionrun.cli.main import make_app
from fusionrun.store.runs import list_runs
from tests.small_runs import SMALL

pytestmark = pytest.mark.usefixtures("numerics")

# Two of one shape, one with a batch of its own.
SWEEP = """\
training: {epochs: 2}
sweep: {zip: {seed: [0, 1, 2], training.batch_size: [32, 32, 64]}}
"""


def train(folder: Path, *options: str, sweep: str = SWEEP) -> Result:
    recipe = folder / "many.yaml"
    recipe.write_text(SMALL + sweep)
    arguments = ["train", str(recipe), "--runs", str(folder / "runs"), *options]
    return CliRunner().invoke(make_app(), arguments)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("sweep")
    return folder, train(folder)


def test_all_points_are_trained_and_it_says_which_together(trained: tuple[Path, Result]) -> None:
    folder, result = trained
    assert result.exit_code == 0, result.stderr
    assert "a sweep of 3 points, 3 to train" in result.stdout
    assert "together    2 runs of the same shapes" in result.stdout
    assert "the run most like it has another training.batch_size" in result.stdout
    assert len(list_runs(folder / "runs")) == 3


def test_it_ends_in_a_table_with_mean_and_deviation(trained: tuple[Path, Result]) -> None:
    rows = [line for line in trained[1].stdout.splitlines() if line.startswith("│")]
    assert len(rows) == 5
    assert [row.split()[1] for row in rows[-2:]] == ["mean", "deviation"]


def test_given_again_it_only_shows_what_has_completed(trained: tuple[Path, Result]) -> None:
    again = train(trained[0], "--json")
    assert "a sweep of 3 points, 0 to train" in again.stderr
    told = json.loads(again.stdout)
    points: list[dict[str, Any]] = told["points"]
    assert [point["settings"]["seed"] for point in points] == [0, 1, 2]
    accuracies = [point["results"]["test"]["global"]["accuracy"] for point in points]
    assert min(accuracies) > 0
    assert told["together"]["mean"]["accuracy"] == pytest.approx(fmean(accuracies))
    assert told["together"]["runs"] == 3


def test_a_narrow_table_shows_what_its_points_differ_in(trained: tuple[Path, Result]) -> None:
    assert "seed=2, batch_size=64" in " ".join(trained[1].stdout.replace("│", " ").split())
    assert "…" not in trained[1].stdout.partition("test split")[2]


def test_what_one_run_ends_with_is_told_and_the_others_complete(tmp_path: Path) -> None:
    sweep = "training: {epochs: 1}\nsweep: {grid: {learning_rates.base_lr: [1e-3, 1e+30]}}\n"
    result = train(tmp_path, "--json", sweep=sweep)
    assert result.exit_code == 1
    assert "1 of 2 runs did not complete" in result.stderr
    assert result.stderr.partition("{")[0].count("try a lower learning rate") == 1
    points = json.loads(result.stdout.splitlines()[0] and result.stdout)["points"]
    assert ["results" in point for point in points] == [True, False]
    assert "not finite" in points[1]["error"]
