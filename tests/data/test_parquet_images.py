"""Tables with encoded images: bytes, or the struct of bytes and path that other libraries write."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fusionrun.data.header import read_summary
from fusionrun.data.load import load_data
from fusionrun.errors import DataError
from fusionrun.schema.data import Parquet
from tests.data.written import Bytes, images

PIXELS = images(20, 6, 9, 3)
LABELS = [row % 2 for row in range(20)]


def png(pixels: Bytes) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def table(**more: Any) -> Parquet:
    split = {"train": "train.parquet", "val": 0.2}
    return Parquet.model_validate({"source": "parquet", "split": split, **more})


def write(folder: Path, cells: list[Any], **columns: Any) -> None:
    held = pa.table({"image": cells, "label": LABELS[: len(cells)], **columns})
    pq.write_table(held, folder / "train.parquet", row_group_size=7)


@pytest.mark.parametrize("form", ["bytes", "struct"])
def test_encoded_images_are_a_view(tmp_path: Path, form: str) -> None:
    cells: list[Any] = [png(pixels) for pixels in PIXELS]
    if form == "struct":
        cells = [{"bytes": cell, "path": f"{row}.png"} for row, cell in enumerate(cells)]
    write(tmp_path, cells)
    summary = read_summary(table(), tmp_path)
    assert summary.views == {"image": (3, 6, 9)}
    assert summary.sizes == {"train": 16, "val": 4, "test": 0}
    train = load_data(table(), summary)["train"]
    assert np.array_equal(train.views["image"], np.moveaxis(PIXELS, -1, 1)[train.ids])
    assert train.views["image"].dtype == np.uint8


def test_images_and_numbers_may_stand_side_by_side(tmp_path: Path) -> None:
    write(tmp_path, [png(pixels) for pixels in PIXELS], age=list(range(20)))
    data = table(views={"photo": "image", "facts": "age"}, images={"size": (3, 3), "channels": 1})
    summary = read_summary(data, tmp_path)
    assert summary.views == {"photo": (1, 3, 3), "facts": (1,)}
    train = load_data(data, summary)["train"]
    assert train.views["facts"][:, 0].tolist() == train.ids.tolist()
    assert train.views["photo"].shape == (16, 1, 3, 3)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ({"bytes": None, "path": "x.png"}, r"(?s)no image in row 9 .*the path 'x\.png' and no"),
        ({"bytes": b"no image", "path": None}, "cannot read the image in row 9"),
        ({"bytes": png(PIXELS[0, :4]), "path": None}, "in row 9 .* has another size"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, cell: Any, words: str) -> None:
    cells: list[Any] = [{"bytes": png(pixels), "path": None} for pixels in PIXELS]
    write(tmp_path, [*cells[:9], cell, *cells[10:]])
    with pytest.raises(DataError, match=words):
        load_data(table(), read_summary(table(), tmp_path))


def test_a_size_for_a_table_without_images_is_refused(tmp_path: Path) -> None:
    held = {"v": [float(row) for row in range(20)], "label": LABELS}
    pq.write_table(pa.table(held), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"no view of .* has any"):
        read_summary(table(views={"v": "v"}, images={"size": (3, 3)}), tmp_path)
