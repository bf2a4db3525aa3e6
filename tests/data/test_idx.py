"""IDX files: headers for the plan, bytes for the job, and every damaged file by name."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionrun.data.header import DataSummary, read_summary
from fusionrun.data.load import load_data
from fusionrun.errors import DataError
from fusionrun.schema.image_data import Idx
from tests.data.needs import FASHION, needs_fashion_mnist
from tests.data.written import images, write_idx, write_mnist


def idx(path: str = "mnist", **more: Any) -> Idx:
    return Idx.model_validate({"source": "idx", "path": path, **more})


def summary_of(folder: Path, path: str = "mnist", **more: Any) -> DataSummary:
    return read_summary(idx(path, **more), folder)


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_official_parts_are_kept_and_a_tenth_of_train_validates(
    tmp_path: Path, packed: str
) -> None:
    write_mnist(tmp_path / "mnist", packed=packed)
    summary = summary_of(tmp_path)
    assert summary.views == {"image": (1, 8, 10)}
    assert summary.classes == tuple(range(10))
    assert dict(summary.sizes) == {"train": 54, "val": 6, "test": 20}


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_images_come_back_as_the_bytes_that_were_written(tmp_path: Path, packed: str) -> None:
    write_mnist(tmp_path / "mnist", packed=packed)
    rows = load_data(idx(), summary_of(tmp_path))
    whole = images(60, 8, 10, seed=60)[:, None]
    for part in ("train", "val"):
        assert np.array_equal(rows[part].views["image"], whole[rows[part].ids])
        assert rows[part].labels.tolist() == (rows[part].ids % 10).tolist()
    assert rows["test"].views["image"].dtype == np.uint8
    assert np.array_equal(rows["test"].views["image"], images(20, 8, 10, seed=20)[:, None])


def test_a_prefix_names_the_files_of_one_set_among_others(tmp_path: Path) -> None:
    for name in ("digits", "letters"):
        write_mnist(tmp_path / name, packed="")
        for file in (tmp_path / name).iterdir():
            file.rename(tmp_path / f"emnist-{name}-{file.name.replace('t10k', 'test')}")
    summary = summary_of(tmp_path, "emnist-letters-")
    assert {Path(file).name.split("-")[1] for file in summary.files.values()} == {"letters"}


def test_a_missing_file_is_named_with_what_the_directory_holds(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"(?s)the test part's labels in .*got .*expected  t10k-l"):
        summary_of(tmp_path)


def test_a_directory_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    with pytest.raises(DataError, match=r"no such directory: .*mnits\n") as caught:
        summary_of(tmp_path, "mnits")
    assert str(caught.value).count("no such directory") == 1


def test_labels_of_another_length_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    write_idx(tmp_path / "mnist" / "train-labels-idx1-ubyte.gz", np.zeros(7, np.uint8))
    with pytest.raises(DataError, match=r"(?s)does not belong to .*got       7 labels"):
        summary_of(tmp_path)


def test_another_number_of_dimensions_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", packed="")
    write_idx(tmp_path / "mnist" / "train-images-idx3-ubyte", images(60, 80))
    with pytest.raises(DataError, match="2 dimensions of numbers of type 0x08"):
        summary_of(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG and so on", "is not an IDX file"),
        (b"\x00", "is damaged"),
        (b"", "is damaged"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    write_mnist(tmp_path / "mnist", packed="")
    (tmp_path / "mnist" / "train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=words):
        summary_of(tmp_path)


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_images_that_are_cut_short_are_refused_when_they_are_loaded(
    tmp_path: Path, packed: str
) -> None:
    write_mnist(tmp_path / "mnist", packed=packed)
    file = tmp_path / "mnist" / f"train-images-idx3-ubyte{packed}"
    summary = summary_of(tmp_path)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.* is damaged"):
        load_data(idx(), summary)


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_more_than_the_header_says_is_refused(tmp_path: Path, packed: str) -> None:
    write_mnist(tmp_path / "mnist", packed=packed)
    file = tmp_path / "mnist" / f"train-labels-idx1-ubyte{packed}"
    more = gzip.compress(b"\0" * 9) if packed else b"\0" * 9
    file.write_bytes(file.read_bytes() + more)
    with pytest.raises(DataError, match=r"(?s)labels.* is damaged.*more bytes where \(60,\)"):
        summary_of(tmp_path)


def test_images_without_pixels_are_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", packed="")
    write_idx(tmp_path / "mnist" / "train-images-idx3-ubyte", images(60, 8, 0))
    with pytest.raises(DataError, match="images of 8 × 0 pixels"):
        summary_of(tmp_path)


def test_what_is_no_gzip_file_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    file = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.decompress(file.read_bytes()))
    with pytest.raises(DataError, match=r"(?s)is damaged.*Not a gzipped file"):
        summary_of(tmp_path)


_READ = """
import sys
from pathlib import Path
from fusionrun.data.header import read_summary
from fusionrun.schema.image_data import Idx
read_summary(Idx(source="idx", path="mnist"), Path({folder!r}))
sys.exit(", ".join(sorted({{"numpy", "torch", "PIL"}} & set(sys.modules))))
"""


def test_headers_are_read_without_numpy(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    command = [sys.executable, "-c", _READ.format(folder=str(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


@needs_fashion_mnist
def test_fashion_mnist_is_what_its_paper_says() -> None:
    summary = summary_of(Path(), FASHION)
    assert summary.views == {"image": (1, 28, 28)}
    assert dict(summary.sizes) == {"train": 54_000, "val": 6_000, "test": 10_000}
    assert set(summary.class_counts["train"]) == {5_400}
    rows = load_data(idx(FASHION), summary)
    assert rows["train"].views["image"].mean() / 255 == pytest.approx(0.286, abs=0.001)
