"""`fusionrun lr-find`: a curve of the loss over growing rates, and what to write into a recipe."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from fusionrun.cli.main import make_app
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from tests.small_runs import TWO_EXPERTS

pytestmark = pytest.mark.usefixtures("numerics")

RECIPE = f"""\
{TWO_EXPERTS}learning_rates: {{base_lr: 1e-3, head_lr: 2e-3}}
training: {{device: cpu}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(RECIPE)
    return tmp_path


def lr_find(*arguments: str) -> Result:
    return CliRunner().invoke(make_app(), ["lr-find", "r.yaml", *arguments])


def found(*arguments: str) -> dict[str, Any]:
    result = lr_find("--json", *arguments)
    assert result.exit_code == 0, result.stderr
    curve: dict[str, Any] = json.loads(result.stdout)
    return curve


def test_rates_grow_by_equal_factors_until_the_loss_breaks_out() -> None:
    curve = found("--high", "100")
    rates = [point["rate"] for point in curve["points"]]
    assert rates[0] == pytest.approx(1e-6)
    factors = {round(b / a, 9) for a, b in pairwise(rates)}
    assert len(factors) == 1
    assert len(rates) < 100
    assert curve["ended"].startswith("the loss was 4 times its least")


def test_the_same_recipe_gives_the_same_curve_and_another_seed_another() -> None:
    few = ("--steps", "12")
    assert found(*few) == found(*few)
    assert found(*few)["points"] != found(*few, "--set", "seed=1")["points"]


def test_what_is_suggested_is_a_recipe_with_the_old_ratio() -> None:
    curve = found()
    assert curve["component"] in {"fusion", "global_head"}
    assert curve["base_rate"] == 2e-3
    names = [suggestion["how"] for suggestion in curve["suggestions"]]
    assert names == ["steepest descent", "a tenth of the rate of the least loss"]
    for suggestion in curve["suggestions"]:
        assert 1e-4 < suggestion["rate"] < 0.1
        rates = suggestion["learning_rates"]
        assert rates["head_lr"] == pytest.approx(suggestion["rate"])
        assert rates["base_lr"] == pytest.approx(suggestion["rate"] / 2, rel=0.01)
        plan = make_plan(
            read_recipe(Path("r.yaml"), [f"learning_rates={json.dumps(rates)}"]), Path()
        )
        assert plan.components["experts.zernike"].lr == rates["base_lr"]


def test_experts_of_rates_of_their_own_are_written_one_by_one() -> None:
    own = (
        "learning_rates={experts: {fourier: 1e-3, zernike: 4e-3}, fusion: 1e-3, global_head: 2e-3}"
    )
    first = found("--set", own)["suggestions"][0]
    rates, factor = first["learning_rates"], first["factor"]
    assert set(rates) == {"experts", "fusion", "global_head"}
    assert rates["experts"]["zernike"] == pytest.approx(4e-3 * factor, rel=0.01)
    assert rates["experts"]["fourier"] == pytest.approx(1e-3 * factor, rel=0.01)


def test_a_frozen_expert_and_an_augmented_batch_take_part() -> None:
    few = ("--steps", "25", "--set", "experts.fourier.freeze=true")
    noise = ("--set", "augmentation={noise: 0.5, label_smoothing: 0.1}")
    plain, noisy = found(*few), found(*few, *noise)
    assert len(plain["points"]) == len(noisy["points"]) == 25
    assert plain["points"] != noisy["points"]


def test_nothing_is_suggested_where_the_loss_does_not_fall() -> None:
    arguments = ("--low", "1e-9", "--high", "1e-8", "--steps", "12")
    assert found(*arguments)["suggestions"] == []
    assert "the loss did not fall, so nothing is suggested" in lr_find(*arguments).stdout


def test_the_plot_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (60, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        result = lr_find("--steps", "20")
        assert result.exit_code == 0, result.stderr
        lines = result.stdout.splitlines()
        (axis,) = [line for line in lines if line.lstrip().startswith("└")]
        assert len(axis) == width
        assert max(len(line) for line in lines[: lines.index("")]) <= width
        assert {"S", "M"} <= set(axis)
        assert "1e-06" in result.stdout
        assert "   learning_rates: {base_lr: " in result.stdout


def test_what_it_writes_and_that_it_makes_no_run(folder: Path) -> None:
    result = lr_find("--steps", "20", "-o", "c.csv", "-o", "c.json", "-o", "c.svg")
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in folder.iterdir()} == {"r.yaml", "c.csv", "c.json", "c.svg"}
    curve = json.loads(Path("c.json").read_text())
    rows = list(csv.DictReader(Path("c.csv").read_text().splitlines()))
    assert [float(row["loss"]) for row in rows] == [point["loss"] for point in curve["points"]]
    picture = ElementTree.parse("c.svg").getroot()
    (line,) = picture.iter("{http://www.w3.org/2000/svg}polyline")
    assert len(line.attrib["points"].split()) == len(rows)


def test_a_loss_that_is_never_finite_is_told() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    np.savez("big.npz", a=rng.random((60, 4)).astype(np.float32) * 1e30, label=np.arange(60) % 3)
    Path("r.yaml").write_text(
        RECIPE.replace("package:handwritten_digits", "big.npz")
        .replace("view: fourier", "view: a")
        .replace("view: zernike", "view: a")
        .replace("label: label}", "label: label, normalize: none}")
        .replace("hidden: [16]", "hidden: [16, 16, 16, 16]")
        .replace("type: concatenation", "type: concatenation, feature_norm: fusion")
    )
    result = lr_find()
    assert result.exit_code == 1
    assert "the loss is not finite at the first step" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--low", "1", "--high", "0.1"), "--low, --high: got 1 and 0.1, expected 0 < low < high"),
        (("--low", "0"), "expected 0 < low < high"),
        (("--high", "inf"), "expected 0 < low < high"),
        (("--high", "nan"), "expected 0 < low < high"),
        (("--steps", "9"), "--steps: got 9, expected from 10 to 10,000"),
        (("-o", "curve.png"), "--output: got 'curve.png', expected a name that ends in .csv"),
        (("--set", "training.batch=3"), "training.batch"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(
    arguments: tuple[str, ...], said: str
) -> None:
    result = lr_find(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
