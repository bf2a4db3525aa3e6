"""Numbers as they reach the training: rows, classes, scaling, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from fusionrun import datasets
from fusionrun.data.content import content_hash
from fusionrun.data.header import read_summary
from fusionrun.data.load import fit_scaling, load_data
from fusionrun.errors import DataError
from fusionrun.schema.data import Npz
from fusionrun.schema.splits import FileSplit

DIGITS = Npz(source="npz", path="package:handwritten_digits")


def test_the_digits_reach_training_row_by_row() -> None:
    parts = load_data(DIGITS, read_summary(DIGITS, Path()))
    with np.load(datasets.path_of("handwritten_digits")) as archive:
        for rows in parts.values():
            np.testing.assert_array_equal(rows.labels, archive["label"][rows.ids])
            for view, values in rows.views.items():
                np.testing.assert_array_equal(values, archive[view][rows.ids])
                assert values.dtype == np.float32
                assert values.flags.c_contiguous


def test_parts_share_no_row() -> None:
    parts = load_data(DIGITS, read_summary(DIGITS, Path()))
    ids = np.concatenate([rows.ids for rows in parts.values()])
    assert sorted(ids.tolist()) == list(range(2000))


def test_named_files_load_as_they_are(tmp_path: Path) -> None:
    for name, first in (("a", 0), ("b", 100)):
        values = np.arange(first, first + 8).reshape(4, 2)
        np.savez(tmp_path / f"{name}.npz", v=values, label=["x", "y", "x", "y"])
    data = Npz(source="npz", split=FileSplit(train="a.npz", test="b.npz"))
    parts = load_data(data, read_summary(data, tmp_path))
    assert parts["test"].views["v"].tolist() == [[100, 101], [102, 103], [104, 105], [106, 107]]
    assert parts["train"].labels.tolist() == [0, 1, 0, 1]
    assert parts["val"].views["v"].shape == (0, 2)


def test_images_get_a_channel(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 255, (10, 6, 7), np.uint8)
    np.savez(tmp_path / "d.npz", image=values, label=np.arange(10) % 2)
    data = Npz(source="npz", path="d.npz")
    train = load_data(data, read_summary(data, tmp_path))["train"]
    np.testing.assert_array_equal(train.views["image"][:, 0], values[train.ids])


@pytest.mark.parametrize("view", ["fourier", "profile_correlations", "morphological"])
def test_scaling_is_that_of_scikit_learn(view: str) -> None:
    train = load_data(DIGITS, read_summary(DIGITS, Path()))["train"].views[view]
    mean, std = fit_scaling(train)
    peer = StandardScaler().fit(train.astype(np.float64))
    np.testing.assert_allclose(mean, peer.mean_, rtol=1e-6)
    np.testing.assert_allclose(std, peer.scale_, rtol=1e-6)
    np.testing.assert_allclose((train - mean) / std, peer.transform(train), atol=1e-5)


def test_images_are_scaled_by_channel() -> None:
    images = np.random.default_rng(0).normal([[[5.0]], [[-2.0]]], 3, (5000, 2, 3, 4))
    mean, std = fit_scaling(images.astype(np.float32))
    assert mean.shape == std.shape == (2, 1, 1)
    np.testing.assert_allclose(mean[:, 0, 0], images.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std[:, 0, 0], images.std(axis=(0, 2, 3)), rtol=1e-6)


@given(st.floats(-(2.0**100), 2.0**100, width=32), st.integers(1, 50))
def test_equal_values_have_a_deviation_of_one(value: float, rows: int) -> None:
    _, std = fit_scaling(np.full((rows, 2), value, np.float32))
    assert std.tolist() == [1, 1]


def test_a_large_mean_costs_no_precision() -> None:
    values = np.float32(1e6) + np.arange(9000, dtype=np.float32).reshape(-1, 1) % 2
    assert fit_scaling(values)[1].tolist() == [0.5]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "nan in row 3, column 1"),
        (np.inf, "inf in row 3, column 1"),
        (1e300, r"1e\+300 \(too large for float32\) in row 3, column 1"),
    ],
)
def test_values_that_are_not_finite_are_refused(tmp_path: Path, value: float, message: str) -> None:
    values = np.zeros((10, 2))
    values[[3, 5], 1] = value
    np.savez(tmp_path / "d.npz", v=values, label=np.arange(10) % 2)
    data = Npz(source="npz", path="d.npz")
    with pytest.raises(DataError, match=rf"{message}.*2 such values in 2 rows and 1 column"):
        load_data(data, read_summary(data, tmp_path))


def test_one_value_that_is_not_finite_is_counted_in_the_singular(tmp_path: Path) -> None:
    values = np.zeros((10, 2))
    values[3, 1] = np.nan
    np.savez(tmp_path / "d.npz", v=values, label=np.arange(10) % 2)
    data = Npz(source="npz", path="d.npz")
    with pytest.raises(DataError, match=r"1 such value in 1 row and 1 column\n"):
        load_data(data, read_summary(data, tmp_path))


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"v": np.zeros((12, 2)), "label": np.arange(12) % 2}, "rows"),
        ({"v": np.zeros((10, 3)), "label": np.arange(10) % 2}, "views"),
        ({"v": np.zeros((10, 2)), "label": np.arange(10) % 2 + 1}, "classes"),
        ({"v": np.zeros((10, 2)), "label": [0, 1, 0, 1, 0, 1, 0, 1, 1, 1]}, "class_counts"),
    ],
)
def test_a_file_that_changed_since_the_plan_is_refused(
    tmp_path: Path, changed: dict[str, np.ndarray], name: str
) -> None:
    data = Npz(source="npz", path="d.npz")
    np.savez(tmp_path / "d.npz", v=np.zeros((10, 2)), label=np.arange(10) % 2)
    summary = read_summary(data, tmp_path)
    np.savez(tmp_path / "d.npz", **changed)
    with pytest.raises(DataError, match=f"changed since the plan was made: {name}"):
        load_data(data, summary)


def test_a_file_that_is_gone_since_the_plan_is_refused(tmp_path: Path) -> None:
    data = Npz(source="npz", path="d.npz")
    np.savez(tmp_path / "d.npz", v=np.zeros((10, 2)), label=np.arange(10) % 2)
    summary = read_summary(data, tmp_path)
    (tmp_path / "d.npz").unlink()
    with pytest.raises(DataError, match="no such file"):
        load_data(data, summary)


def test_the_hash_is_that_of_the_bytes() -> None:
    path = datasets.path_of("handwritten_digits")
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    assert content_hash({"all": str(path)}) == {"all": expected}


def test_what_ships_is_there_and_attributed() -> None:
    attribution = (Path(datasets.__file__).parent / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for name in datasets.shipped():
        assert datasets.path_of(name).is_file()
        assert f"## {datasets.path_of(name).name}" in attribution
    assert "10.24432/C5HC70" in attribution


def test_the_scaling_of_bytes_is_that_of_the_same_numbers() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 5), dtype=np.uint8)
    images[:, 1] = 7
    for found, expected in zip(
        fit_scaling(images), fit_scaling(images.astype(np.float32)), strict=True
    ):
        assert found.shape == (3, 1, 1)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_images_of_bytes_in_an_archive_stay_bytes(tmp_path: Path) -> None:
    images = np.arange(10 * 12, dtype=np.uint8).reshape(10, 3, 4)
    np.savez(tmp_path / "d.npz", image=images, flat=images.reshape(10, 12), label=np.arange(10) % 2)
    data = Npz(source="npz", path="d.npz")
    train = load_data(data, read_summary(data, tmp_path))["train"]
    assert {view: values.dtype for view, values in train.views.items()} == {
        "image": np.uint8,
        "flat": np.float32,
    }
