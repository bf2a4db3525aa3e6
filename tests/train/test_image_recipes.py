"""The shipped recipes of images train: a few steps, on small files in the true formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fusionrun.cli.main import make_app
from fusionrun.launch import prepare
from fusionrun.plan.augmentation import in_words
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.store.layout import RunLayout
from fusionrun.train import job
from tests.data.written import images, write_cifar100, write_idx

pytestmark = pytest.mark.usefixtures("numerics")

RECIPES = Path(__file__).parents[2] / "recipes"
FEW = ("training.epochs=1", "training.batch_size=32", "training.device=cpu", "training.threads=1")
WRN = "{model: wideresnet, view: image, depth: 10, width: 1}"
ORIGINS = (
    "multiplicative",
    "multiplicativeAddition",
    "TransformerBase",
    "concatenation",
    "simpleAddition",
    "multiplicativeShifted",
)


def write_fashion(folder: Path) -> None:
    """The four files of a Fashion-MNIST of 100 training images."""
    folder.mkdir()
    for stem, rows in (("train", 100), ("t10k", 20)):
        write_idx(folder / f"{stem}-images-idx3-ubyte.gz", images(rows, 28, 28, seed=rows))
        labels = (np.arange(rows) % 10).astype(np.uint8)
        write_idx(folder / f"{stem}-labels-idx1-ubyte.gz", labels)


def trained(recipe: str, folder: Path, *settings: str) -> RunLayout:
    source = read_recipe(RECIPES / recipe, [f"data.path={folder / 'data'}", *FEW, *settings])
    plan = make_plan(source, folder / "runs")
    layout = prepare(plan, source.text, folder / "runs", new=True).layout
    assert job.run(layout) == "completed"
    return layout


@pytest.mark.parametrize(
    ("recipe", "write", "settings"),
    [
        ("fashion-mnist-cnn.yaml", write_fashion, ()),
        ("fashion-mnist-4-experts.yaml", write_fashion, ()),
        (
            "cifar100-wrn.yaml",
            write_cifar100,
            # (in bfloat16, without instructions for it, a CPU takes several times as long)
            (
                "training.precision=float32",
                *(f"experts.{name}={WRN}" for name in ("one", "two", "three", "four")),
            ),
        ),
    ],
)
def test_a_recipe_of_images_trains(
    recipe: str, write: Callable[[Path], object], settings: tuple[str, ...], tmp_path: Path
) -> None:
    write(tmp_path / "data")
    layout = trained(recipe, tmp_path, *settings)
    (line,) = layout.metrics.read_text().splitlines()
    assert np.isfinite(json.loads(line)["loss"]["total"])


def test_the_wrn_recipe_is_the_origins_case(tmp_path: Path) -> None:
    write_cifar100(tmp_path / "data")
    source = read_recipe(RECIPES / "cifar100-wrn.yaml", [f"data.path={tmp_path / 'data'}"])
    plan = make_plan(source, tmp_path / "runs")
    head = 640 * 100 + 100
    assert plan.components["experts.one"].parameters + head == 36_536_884
    assert (plan["training.precision"], plan["training.memory_format"]) == ("bf16", "channels_last")
    assert in_words(plan) == (
        "crop of 4 pixels, flip, randaugment 3 × 14, random_erasing 0.3, cutmix α 1, "
        "label_smoothing 0.08"
    )


@pytest.mark.parametrize("fusion", ORIGINS)
def test_the_origins_recipe_is_planned_for_each_fusion_type(fusion: str, tmp_path: Path) -> None:
    write_fashion(tmp_path / "data")
    arguments = ["plan", str(RECIPES / "fashion-mnist-origin.yaml"), "--json"]
    for setting in (f"fusion.type={fusion}", f"data.path={tmp_path / 'data'}"):
        arguments += ["--set", setting]
    result = CliRunner().invoke(make_app(), arguments)
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["values"]["fusion.type"]["value"] == fusion
    shares = plan["data"]["shares"]
    assert {share["rows"] for share in shares.values()} <= {22, 23}
