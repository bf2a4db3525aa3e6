"""Directories of image files: classes, parts, sizes, and every file that cannot be used by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fusionrun.data.content import content_hash
from fusionrun.data.header import read_summary
from fusionrun.data.image_header import image_size
from fusionrun.data.load import load_data
from fusionrun.errors import DataError
from fusionrun.schema.image_data import ImageFolder
from tests.data.written import images

WHOLE = {"train": 0.5, "val": 0.25, "test": 0.25}


def folder_of(path: str = "set", **more: Any) -> ImageFolder:
    return ImageFolder.model_validate({"source": "image_folder", "path": path, **more})


def save(path: Path, pixels: np.ndarray, **options: Any) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return pixels


def write_classes(root: Path, rows: int = 4, names: tuple[str, ...] = ("cat", "dog")) -> None:
    for seed, name in enumerate(names):
        for row, pixels in enumerate(images(rows, 6, 9, 3, seed=seed)):
            save(root / name / f"{row}.png", pixels)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    for part, rows in (("train", 10), ("test", 3)):
        write_classes(tmp_path / "set" / part, rows)
    return tmp_path


def test_published_parts_are_kept_and_a_tenth_of_train_validates(published: Path) -> None:
    summary = read_summary(folder_of(), published)
    assert summary.views == {"image": (3, 6, 9)}
    assert summary.classes == ("cat", "dog")
    assert summary.sizes == {"train": 18, "val": 2, "test": 6}


def test_a_validation_directory_is_the_validation_part(published: Path) -> None:
    write_classes(published / "set" / "val", 5)
    assert read_summary(folder_of(), published).sizes == {"train": 20, "val": 10, "test": 6}


def test_a_share_beside_a_validation_directory_is_refused(published: Path) -> None:
    write_classes(published / "set" / "val", 5)
    with pytest.raises(DataError, match="has a validation part of its own"):
        read_summary(folder_of(split={"val": 0.2}), published)


def test_pixels_come_back_in_the_order_of_names(published: Path) -> None:
    data = folder_of(split={"val": 0.0})
    train = load_data(data, read_summary(data, published))["train"]
    assert train.labels.tolist() == [0] * 10 + [1] * 10
    expected = np.concatenate([images(10, 6, 9, 3, seed=seed) for seed in (0, 1)])
    assert np.array_equal(train.views["image"], np.moveaxis(expected, -1, 1))
    assert train.views["image"].dtype == np.uint8


def test_one_directory_is_divided_by_fractions(tmp_path: Path) -> None:
    write_classes(tmp_path / "set")
    data = folder_of(split=WHOLE)
    summary = read_summary(data, tmp_path)
    assert summary.sizes == {"train": 4, "val": 2, "test": 2}
    assert len(load_data(data, summary)["val"].labels) == 2


def test_each_part_may_have_a_directory_of_any_name(tmp_path: Path) -> None:
    write_classes(tmp_path / "a", 10)
    write_classes(tmp_path / "b", 3)
    split = {"train": "a", "val": 0.2, "test": "b"}
    data = ImageFolder.model_validate({"source": "image_folder", "split": split})
    assert read_summary(data, tmp_path).sizes == {"train": 16, "val": 4, "test": 6}


def test_directories_named_by_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    write_classes(tmp_path / "set", names=tuple(map(str, range(11))))
    assert read_summary(folder_of(split=WHOLE), tmp_path).classes == tuple(range(11))


def test_classes_in_place_of_parts_are_told_how_to_be_divided(tmp_path: Path) -> None:
    write_classes(tmp_path / "set")
    with pytest.raises(DataError, match=r"(?s)no directory 'train'.*cat, dog.*split: \{train:"):
        read_summary(folder_of(), tmp_path)


def test_parts_are_not_taken_for_classes(published: Path) -> None:
    with pytest.raises(DataError, match="would be taken for a class"):
        read_summary(folder_of(split=WHOLE), published)


def test_the_first_image_of_another_size_is_named(published: Path) -> None:
    for name in ("7.png", "8.png"):
        save(published / "set" / "train" / "dog" / name, images(5, 9, 3))
    data = folder_of()
    with pytest.raises(DataError, match=r"(?s)dog/7\.png has another size.*5 × 9.*6 × 9.*crop"):
        load_data(data, read_summary(data, published))


@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_images_are_brought_to_one_size(published: Path, fit: str) -> None:
    save(published / "set" / "train" / "dog" / "7.png", images(50, 90, 3))
    data = folder_of(images={"size": (4, 4), "fit": fit})
    summary = read_summary(data, published)
    assert summary.views == {"image": (3, 4, 4)}
    assert load_data(data, summary)["test"].views["image"].shape == (6, 3, 4, 4)


def test_crop_keeps_the_centre_and_stretch_all_of_it(tmp_path: Path) -> None:
    pixels = np.zeros((4, 12, 3), np.uint8)
    pixels[:, :4] = 255  # a third that is cut off
    for name in ("a", "b"):
        save(tmp_path / "set" / "train" / name / "0.png", pixels)
    found = {}
    for fit in ("crop", "stretch"):
        data = folder_of(images={"size": (4, 4), "fit": fit}, split={"val": 0.0})
        train = load_data(data, read_summary(data, tmp_path))["train"]
        found[fit] = train.views["image"].mean() / 255
    assert found == {"crop": 0.0, "stretch": pytest.approx(1 / 3, abs=0.02)}


def test_grey_is_one_channel(published: Path) -> None:
    data = folder_of(images={"channels": 1})
    summary = read_summary(data, published)
    assert summary.views == {"image": (1, 6, 9)}
    assert load_data(data, summary)["train"].views["image"].shape == (18, 1, 6, 9)


def test_an_image_that_cannot_be_read_is_named(published: Path) -> None:
    file = published / "set" / "train" / "cat" / "3.png"
    file.write_bytes(file.read_bytes()[:60])
    data = folder_of()
    with pytest.raises(DataError, match=r"cannot read the image .*cat/3\.png"):
        load_data(data, read_summary(data, published))


def test_sixteen_bits_are_not_cut_to_eight(published: Path) -> None:
    save(published / "set" / "train" / "cat" / "3.png", np.full((6, 9), 40_000, np.uint16))
    data = folder_of()
    with pytest.raises(DataError, match=r"(?s)3\.png.*more than eight bits a channel"):
        load_data(data, read_summary(data, published))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("set/train/cat/notes.txt", r"notes\.txt is no image that is known by its name"),
        ("set/train/stray.png", r"stray\.png belongs to no class"),
    ],
)
def test_files_that_belong_to_nothing_are_named(published: Path, name: str, words: str) -> None:
    (published / name).write_bytes(b"")
    with pytest.raises(DataError, match=words):
        read_summary(folder_of(), published)


def test_hidden_files_are_none_of_the_datas(published: Path) -> None:
    (published / "set" / "train" / "cat" / ".DS_Store").write_bytes(b"")
    assert read_summary(folder_of(), published).rows == 26


def test_an_empty_class_is_named(published: Path) -> None:
    (published / "set" / "train" / "bird").mkdir()
    with pytest.raises(DataError, match="bird holds no images"):
        read_summary(folder_of(), published)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp"])
@pytest.mark.parametrize("options", [{}, {"progressive": True, "exif": b"Exif\0\0" + b"x" * 5000}])
def test_a_size_is_told_without_pillow(
    tmp_path: Path, suffix: str, options: dict[str, Any]
) -> None:
    file = tmp_path / f"a.{suffix}"
    save(file, images(13, 300, 3), **(options if suffix == "jpg" else {}))
    assert image_size(file.read_bytes(), "a") == (13, 300)


@pytest.mark.parametrize(
    "start",
    [b"", b"RIFF....WEBP", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a" + bytes(4)],
)
def test_a_size_that_cannot_be_told_is_asked_for(start: bytes) -> None:
    with pytest.raises(DataError, match=r"cannot tell the size of a\.x|a\.x is damaged"):
        image_size(start, "a.x")


def test_webp_needs_a_size_and_then_is_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / "set" / "train" / name / "0.webp", images(8, 8, 3), lossless=True)
    with pytest.raises(DataError, match=r"images: \{size: \[height, width\]\}"):
        read_summary(folder_of(split={"val": 0.0}), tmp_path)
    data = folder_of(split={"val": 0.0}, images={"size": (8, 8)})
    train = load_data(data, read_summary(data, tmp_path))["train"]
    assert np.array_equal(train.views["image"][0], np.moveaxis(images(8, 8, 3), -1, 0))


_READ = """
import sys
from pathlib import Path
from fusionrun.data.header import read_summary
from fusionrun.schema.image_data import ImageFolder
read_summary(ImageFolder(source="image_folder", path="set"), Path({folder!r}))
sys.exit(", ".join(sorted({{"numpy", "torch", "PIL"}} & set(sys.modules))))
"""


def test_a_plan_lists_directories_without_numpy_and_pillow(published: Path) -> None:
    command = [sys.executable, "-c", _READ.format(folder=str(published))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_a_directorys_hash_is_that_of_its_names_and_bytes(published: Path, tmp_path: Path) -> None:
    files = {"train": str(published / "set" / "train")}
    before = content_hash(files)
    assert content_hash(files) == before
    file = published / "set" / "train" / "cat" / "3.png"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    changed = content_hash(files)
    file.write_bytes(content)
    file.rename(file.with_name("renamed.png"))
    assert len({before["train"], changed["train"], content_hash(files)["train"]}) == 3


def test_a_large_directorys_hash_is_that_of_its_names_and_sizes(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fusionrun.data.content.MOST_BYTES", 100)
    files = {"train": str(published / "set" / "train")}
    before = content_hash(files)
    file = published / "set" / "train" / "cat" / "3.png"
    file.touch()
    assert content_hash(files) == before
    file.write_bytes(file.read_bytes() + b"\0")
    assert content_hash(files) != before


def test_what_is_no_image_is_not_opened_whatever_it_is_called(published: Path) -> None:
    os.mkfifo(published / "set" / "train" / "cat" / "pipe.png")
    with pytest.raises(DataError, match=r"(?s)pipe\.png is no file.*expected  an image"):
        read_summary(folder_of(), published)
    (published / "set" / "train" / "cat" / "pipe.png").unlink()
    (published / "set" / "train" / "cat" / "link.png").symlink_to("gone.png")
    with pytest.raises(DataError, match=r"link\.png leads nowhere"):
        read_summary(folder_of(), published)


def test_a_pipe_among_the_files_is_not_waited_for(published: Path) -> None:
    os.mkfifo(published / "set" / "pipe")
    with pytest.raises(DataError, match=r"(?s)cannot read .*not a regular file.*pipe"):
        content_hash({"train": str(published / "set")})


def test_postscript_is_handed_to_no_program(published: Path) -> None:
    path = published / "set" / "train" / "cat" / "0.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 6\n%%EndComments\nshowpage\n")
    data = folder_of(images={"size": (6, 9)})
    with pytest.raises(DataError, match=r"(?s)0\.png.*cannot identify.*expected  a whole image"):
        load_data(data, read_summary(data, published))
