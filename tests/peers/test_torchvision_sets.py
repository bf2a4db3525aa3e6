"""Data sets of torchvision, by the classes that read them: small files in their true formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionrun.data.header import read_summary
from fusionrun.data.load import load_data
from fusionrun.errors import DataError
from fusionrun.schema.image_data import Torchvision
from tests.data.written import images, write_mnist


def torchvision(name: str = "FashionMNIST", **more: Any) -> Torchvision:
    return Torchvision.model_validate(
        {"source": "torchvision", "name": name, "root": "data", **more}
    )


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    write_mnist(tmp_path / "data" / "FashionMNIST" / "raw", packed="")
    return tmp_path


def test_a_class_with_a_training_and_a_test_part(mnist: Path) -> None:
    data = torchvision(images={"channels": 1}, split={"val": 0.0})
    summary = read_summary(data, mnist)
    assert summary.views == {"image": (1, 8, 10)}
    assert summary.sizes == {"train": 60, "val": 0, "test": 20}
    train = load_data(data, summary)["train"]
    assert np.array_equal(train.views["image"][:, 0], images(60, 8, 10, seed=60))
    assert train.labels.tolist() == [row % 10 for row in range(60)]


def test_images_are_brought_to_the_recipes_size(mnist: Path) -> None:
    data = torchvision(images={"size": (4, 4)})
    summary = read_summary(data, mnist)
    assert summary.views == {"image": (3, 4, 4)}
    assert load_data(data, summary)["val"].views["image"].shape == (6, 3, 4, 4)


def test_a_class_without_parts_is_divided(tmp_path: Path) -> None:
    options = {"size": 30, "image_size": (3, 8, 8), "num_classes": 3}
    split = {"train": 0.6, "val": 0.2, "test": 0.2}
    data = torchvision("FakeData", options=options, split=split)
    summary = read_summary(data, tmp_path)
    assert summary.rows == 30
    assert sum(summary.sizes.values()) == 30


def test_a_class_without_parts_needs_a_split(tmp_path: Path) -> None:
    data = torchvision("FakeData", options={"size": 30, "image_size": (3, 8, 8)})
    with pytest.raises(DataError, match=r"(?s)FakeData does not come in the parts.*split: \{train"):
        read_summary(data, tmp_path)


def test_the_recipe_may_say_what_makes_each_part(tmp_path: Path) -> None:
    parts = {"train": {"size": 20}, "val": {"size": 10, "random_offset": 50}}
    options = {"image_size": (3, 8, 8), "num_classes": 2}
    data = torchvision("FakeData", options=options, parts=parts)
    assert read_summary(data, tmp_path).sizes == {"train": 20, "val": 10, "test": 0}


def test_nothing_is_downloaded_unasked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)FashionMNIST cannot be read.*'download: true'"):
        read_summary(torchvision(), tmp_path)
    assert not (tmp_path / "data").exists()


def test_the_nearest_name_is_offered(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'FashionMNIST'"):
        read_summary(torchvision("FashonMNIST"), tmp_path)
