"""Data sets of another package, installed for the test as a real distribution with entry points."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionrun.data.header import read_summary
from fusionrun.data.load import load_data, rows_hash
from fusionrun.errors import DataError
from fusionrun.schema.image_data import PythonData

PACKAGE = '''
"""Two moons, and a picture of each."""


class Moons:
    def __init__(self, rows, parts, wrong):
        self.views = {"point": (2,), "picture": (1, 4, 4)}
        self.labels = {part: [row % 2 for row in range(rows)] for part in parts}
        self._wrong = wrong

    def load(self, part):
        import numpy as np

        rows = len(self.labels[part]) - self._wrong
        numbers = np.random.default_rng(len(part))
        pictures = numbers.integers(0, 256, (rows, 1, 4, 4), dtype=np.uint8)
        return {"point": numbers.normal(size=(rows, 2)), "picture": pictures}


def moons(rows=20, parts=("train", "test"), wrong=0):
    return Moons(rows, parts, wrong)


def nothing():
    return object()
'''
ENTRY_POINTS = (
    "[fusionrun.datasets]\nmoons = moons_of_a_test:moons\nodd = moons_of_a_test:nothing\n"
)


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "moons_of_a_test.py").write_text(PACKAGE)
    info = tmp_path / "moons-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: moons\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("moons_of_a_test", None)


def offered(name: str = "moons", **more: Any) -> PythonData:
    return PythonData.model_validate({"source": "python", "name": name, **more})


def test_its_parts_are_kept_and_a_tenth_of_train_validates() -> None:
    summary = read_summary(offered(), Path())
    assert summary.views == {"point": (2,), "picture": (1, 4, 4)}
    assert summary.sizes == {"train": 18, "val": 2, "test": 20}
    rows = load_data(offered(), summary)
    assert {view: values.dtype for view, values in rows["train"].views.items()} == {
        "point": np.float32,
        "picture": np.uint8,
    }


def test_options_are_what_the_function_is_called_with() -> None:
    data = offered(options={"rows": 30, "parts": ("all",)}, split={"folds": 3})
    assert read_summary(data, Path()).sizes["test"] == 10


def test_parts_that_the_split_does_not_fit_are_refused() -> None:
    with pytest.raises(
        DataError, match=r"(?s)'moons' does not come in the parts.*leave data.split"
    ):
        read_summary(offered(split={"folds": 3}), Path())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"name": "mons"}, r"(?s)no installed package offers.*did you mean 'moons'"),
        ({"name": "odd"}, r"(?s)'odd' does not tell what it holds.*no attribute 'views'"),
        ({"name": "moons", "options": {"row": 3}}, r"(?s)cannot be made.*argument 'row'"),
    ],
)
def test_what_cannot_be_made_is_named(data: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_summary(offered(**data), Path())


def test_numbers_of_another_shape_than_was_told_are_refused() -> None:
    data = offered(options={"wrong": 1})
    with pytest.raises(DataError, match=r"(?s)view 'point'.*got       \(19, 2\).*\(20, 2\)"):
        load_data(data, read_summary(data, Path()))


def test_its_hash_is_that_of_its_numbers() -> None:
    one, same, other = (
        rows_hash(load_data(data, read_summary(data, Path())))
        for data in (offered(), offered(), offered(options={"rows": 22}))
    )
    assert one == same
    assert one != other
