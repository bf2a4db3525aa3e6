"""Runs on images: from every kind of file to components, and to the same bits after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fusionrun.data.load import load_data
from fusionrun.errors import UserError
from fusionrun.launch import prepare
from fusionrun.plan.resolve import make_plan
from fusionrun.plan.stored import read_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.store.layout import RunLayout
from fusionrun.train import job
from tests.data.written import images, write_cifar10, write_mnist
from tests.train.scripted_job import Script, obeyed

pytestmark = pytest.mark.usefixtures("numerics")

# 54 training rows in batches of 16: four steps an epoch.
RECIPE = """\
version: 1
name: pictures
preset: tuned
data: {data}
experts:
  small: {{model: cnn, view: image, channels: [4], features: 8, dropout: 0.1}}
  large: {{model: cnn, view: image, channels: [8, 8], features: 8}}
  flat: {{model: mlp, view: image, hidden: [], features: 8}}
fusion: {{type: concatenation}}
training: {{epochs: 3, batch_size: 16, device: cpu}}
"""
MNIST = "{source: idx, path: mnist}"


def prepared(folder: Path, data: str = MNIST, name: str = "r", more: str = "") -> RunLayout:
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE.format(data=data) + more)
    source = read_recipe(path)
    plan = make_plan(source, folder / name)
    return prepare(plan, source.text, folder / name, new=True).layout


def decided(layout: RunLayout) -> dict[str, Any]:
    """The bytes of every component, and the results."""
    files = {
        str(path.relative_to(layout.root)): path.read_bytes()
        for path in layout.all_components.rglob("*.safetensors")
    }
    return {**files, "results": layout.results.read_bytes()}


def write_folder(folder: Path) -> None:
    for part, rows in (("train", 30), ("test", 10)):
        for seed, name in enumerate(("cat", "dog")):
            (folder / "set" / part / name).mkdir(parents=True)
            for row, pixels in enumerate(images(rows, 9, 8, 3, seed=seed)):
                Image.fromarray(pixels).save(folder / "set" / part / name / f"{row:03}.png")


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    folder = tmp_path_factory.mktemp("mnist")
    write_mnist(folder / "mnist")
    layout = prepared(folder)
    assert job.run(layout) == "completed"
    return layout


def test_an_exported_expert_takes_raw_bytes(mnist: RunLayout) -> None:
    plan = read_plan(mnist.plan)
    train = load_data(plan.settings.data, plan.data)["train"].views["image"]
    for expert in ("small", "large", "flat"):
        held = load_file(mnist.components("best") / "experts" / f"{expert}.safetensors")
        assert held["scaler.mean"].shape == (1, 1, 1)
        torch.testing.assert_close(
            held["scaler.mean"].item(), float(train.mean()), rtol=1e-6, atol=0
        )
        torch.testing.assert_close(held["scaler.std"].item(), float(train.std()), rtol=1e-6, atol=0)


def test_the_runs_record_has_the_hash_of_all_four_files(mnist: RunLayout) -> None:
    hashes = json.loads(mnist.environment.read_text())["data_sha256"]
    assert set(hashes) == {"train", "train_labels", "test", "test_labels"}


@pytest.mark.parametrize("stop", [5, 8], ids=["in mid-epoch", "between epochs"])
def test_a_stopped_run_on_images_goes_on_to_the_same_bits(
    stop: int, tmp_path: Path, mnist: RunLayout
) -> None:
    write_mnist(tmp_path / "mnist")
    layout = prepared(tmp_path)
    with obeyed(Script(stop=stop), layout):
        assert job.run(layout) == "stopped"
    assert job.run(layout) == "completed"
    assert decided(layout) == decided(mnist)


AUGMENTED = """\
augmentation:
  mixup: {alpha: 0.4, probability: 0.8}
  cutmix: {alpha: 1}
  random_erasing: {probability: 0.5}
  randaugment: {num_ops: 2, magnitude: 12}
  flip: true
  crop: 2
  noise: 0.1
  label_smoothing: 0.1
"""


def test_a_stopped_run_with_augmentation_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    runs = []
    for script in (Script(), Script(stop=6)):
        folder = tmp_path / str(script.stop)
        write_mnist(folder / "mnist")
        layout = prepared(folder, more=AUGMENTED)
        with obeyed(script, layout):
            job.run(layout)
        runs.append(layout)
    undisturbed, stopped = runs
    assert job.run(stopped) == "completed"
    assert decided(stopped) == decided(undisturbed)


def test_a_run_does_not_go_on_with_other_images(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", packed="")
    layout = prepared(tmp_path)
    with obeyed(Script(stop=5), layout):
        job.run(layout)
    file = tmp_path / "mnist" / "train-images-idx3-ubyte"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="train rows: the file's content has changed"):
        job.run(layout)


def test_cifar_trains(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "cifar", "py", rows=10)
    assert job.run(prepared(tmp_path, "{source: cifar, path: cifar}")) == "completed"


@pytest.mark.parametrize("in_memory", ["true", "false"])
def test_a_folder_trains_to_the_same_bits_as_its_arrays(tmp_path: Path, in_memory: str) -> None:
    """Whatever files images come from, and when they are read: the same pixels, the same run."""
    write_folder(tmp_path)
    images_ = f"{{in_memory: {in_memory}}}"
    folder = prepared(tmp_path, f"{{source: image_folder, path: set, images: {images_}}}", "folder")
    assert job.run(folder) == "completed"
    for part, rows in (("train", 30), ("test", 10)):
        pixels = np.concatenate([images(rows, 9, 8, 3, seed=seed) for seed in (0, 1)])
        labels = np.repeat(["cat", "dog"], rows)
        np.savez(tmp_path / f"{part}.npz", image=np.moveaxis(pixels, -1, 1), label=labels)
    split = "{train: train.npz, val: 0.1, test: test.npz}"
    arrays = prepared(tmp_path, f"{{source: npz, split: {split}}}", "arrays")
    assert job.run(arrays) == "completed"
    assert folder.results.read_bytes() == arrays.results.read_bytes()
    one, other = (
        load_file(run.components("last") / "fusion.safetensors") for run in (folder, arrays)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


PACKAGE = """
class Squares:
    views = {"image": (1, 8, 8)}
    labels = {"train": [row % 2 for row in range(40)], "test": [0, 1] * 5}

    def load(self, part):
        import numpy as np

        label = np.array(self.labels[part], np.uint8)
        return {"image": np.tile(label[:, None, None, None] * 200, (1, 1, 8, 8))}
"""


def test_data_of_a_package_trains_and_a_finished_run_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "squares_of_a_test.py").write_text(PACKAGE)
    info = tmp_path / "squares-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: squares\nVersion: 1.0\n")
    entry = "[fusionrun.datasets]\nsquares = squares_of_a_test:Squares\n"
    (info / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(str(tmp_path))
    layout = prepared(tmp_path, "{source: python, name: squares}")
    assert job.run(layout) == "completed"
    assert set(json.loads(layout.environment.read_text())["data_sha256"]) == {
        "train",
        "val",
        "test",
    }
    source = read_recipe(tmp_path / "r.yaml")
    plan = make_plan(source, tmp_path / "r")
    assert prepare(plan, source.text, tmp_path / "r", new=False).finished
