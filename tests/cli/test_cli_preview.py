"""`fusionrun preview`: what training sees, as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from fusionrun.cli.main import make_app
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.train.preview import image_grids
from tests.data.written import images

RECIPE = """\
version: 1
name: pictures
preset: tuned
data: {source: npz, path: data.npz}
experts:
  flat: {model: mlp, view: gray, hidden: [], features: 4}
  colour: {model: cnn, view: colour, channels: [2], features: 4}
  row: {model: mlp, view: row, hidden: [], features: 4}
fusion: {type: concatenation}
training: {batch_size: 10}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(RECIPE)
    np.savez(
        "data.npz",
        gray=images(50, 1, 8, 6),
        colour=images(50, 3, 9, 7, seed=1),
        row=np.ones((50, 2), np.float32) * np.arange(50, dtype=np.float32)[:, None],
        label=np.arange(50) % 2,
    )
    return tmp_path


def preview(*arguments: str) -> Result:
    return CliRunner().invoke(make_app(), ["preview", "r.yaml", "-o", "grid.png", *arguments])


def test_without_augmentation_it_shows_the_images_as_they_are() -> None:
    gray, colour = image_grids(make_plan(read_recipe(Path("r.yaml")), Path("runs")))
    assert (gray.view, colour.view) == ("gray", "colour")
    assert gray.images.shape == (10, 8, 6, 3)
    with np.load("data.npz") as archive:
        known = {image.tobytes() for image in archive["colour"]}
    assert all(image.transpose(2, 0, 1).tobytes() in known for image in colour.images)


def test_the_picture_has_all_views_below_each_other_and_is_the_same_again() -> None:
    arguments = ("--set", "augmentation.crop=2", "--set", "augmentation.noise=0.5")
    first = preview(*arguments)
    assert first.exit_code == 0, first.stderr
    assert first.stdout.splitlines() == [
        "gray: 10 images of the first batch",
        "colour: 10 images of the first batch",
        "augmentation: crop of 2 pixels, noise 0.5",
        "grid.png  written",
    ]
    content = Path("grid.png").read_bytes()
    with Image.open("grid.png") as picture:
        # Ten images in rows of four; 8 × 6 pixels enlarged tenfold, 9 × 7 eightfold, 2 between.
        assert picture.size == (4 * 62, 3 * 82 + 3 * 74)
    preview(*arguments)
    assert Path("grid.png").read_bytes() == content
    preview("--set", "augmentation.crop=2")
    assert Path("grid.png").read_bytes() != content


def test_each_image_has_operations_of_its_own() -> None:
    result = preview("--set", "augmentation.trivialaugment=true")
    assert result.exit_code == 0, result.stderr
    assert "augmentation: trivialaugment" in result.stdout
    plain, changed = (
        image_grids(make_plan(read_recipe(Path("r.yaml"), settings), Path()))
        for settings in ([], ["augmentation.trivialaugment=true"])
    )
    for one, other in zip(plain, changed, strict=True):
        unlike = [not np.array_equal(a, b) for a, b in zip(one.images, other.images, strict=True)]
        assert sum(unlike) > 4


def test_operations_are_for_bytes() -> None:
    with np.load("data.npz") as archive:
        held = {name: archive[name] for name in archive.files}
    np.savez("data.npz", **{**held, "colour": held["colour"].astype(np.float32)})
    result = preview("--set", "augmentation.randaugment={num_ops: 1}")
    assert result.exit_code == 2
    assert "with view 'colour', whose images are no bytes; expected whole numbers" in result.stderr


def test_a_missing_view_is_shown_as_what_stands_for_it() -> None:
    plan = make_plan(read_recipe(Path("r.yaml"), ["augmentation.modality_dropout=0.6"]), Path())
    gray, _ = image_grids(plan)
    plain = [image for image in gray.images if len(np.unique(image)) == 1]
    assert 0 < len(plain) < 10


def test_without_images_there_is_nothing_to_show() -> None:
    text = RECIPE.replace("view: gray", "view: row").replace(
        "{model: cnn, view: colour, channels: [2]", "{model: mlp, view: row, hidden: []"
    )
    Path("r.yaml").write_text(text)
    result = preview()
    assert result.exit_code == 2
    assert "no expert reads a view of images; views: row" in result.stderr


def test_the_picture_is_a_png() -> None:
    result = CliRunner().invoke(make_app(), ["preview", "r.yaml", "-o", "r.yaml"])
    assert result.exit_code == 2
    assert "got 'r.yaml', expected a name that ends in .png" in result.stderr
    assert Path("r.yaml").read_text() == RECIPE
