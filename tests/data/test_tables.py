"""csv and Parquet: the same rows as the archive they were written from, and every bad cell."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fusionrun import datasets
from fusionrun.data.header import read_summary
from fusionrun.data.load import Rows, load_data
from fusionrun.data.report import FaultyDataError
from fusionrun.errors import DataError
from fusionrun.schema.data import Csv, Data, Npz, Parquet
from fusionrun.schema.splits import FileSplit

VIEWS = ("fourier", "morphological")


def load(data: Data, base_dir: Path) -> dict[str, Rows]:
    return load_data(data, read_summary(data, base_dir))


@pytest.fixture(scope="module")
def digits() -> dict[str, np.ndarray]:
    with np.load(datasets.path_of("handwritten_digits")) as archive:
        return {name: archive[name] for name in (*VIEWS, "label")}


@pytest.fixture(scope="module")
def from_npz() -> dict[str, Rows]:
    return load(Npz(source="npz", path="package:handwritten_digits", views=VIEWS), Path())


def assert_same(found: dict[str, Rows], expected: dict[str, Rows]) -> None:
    for part, rows in expected.items():
        np.testing.assert_array_equal(found[part].ids, rows.ids)
        np.testing.assert_array_equal(found[part].labels, rows.labels)
        for view in VIEWS:
            np.testing.assert_array_equal(found[part].views[view], rows.views[view])


def test_digits_as_csv_are_the_same_rows(
    tmp_path: Path, digits: dict[str, np.ndarray], from_npz: dict[str, Rows]
) -> None:
    names = [f"{view}_{i}" for view in VIEWS for i in range(digits[view].shape[1])]
    with open(tmp_path / "d.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "label"])
        table = np.hstack([digits[view].astype(np.float64) for view in VIEWS]).tolist()
        for row, label in zip(table, digits["label"].tolist(), strict=True):
            writer.writerow([*row, label])
    views = {view: f"{view}_*" for view in VIEWS}
    data = Csv.model_validate({"source": "csv", "path": "d.csv", "views": views})
    assert_same(load(data, tmp_path), from_npz)


def test_digits_as_parquet_are_the_same_rows(
    tmp_path: Path, digits: dict[str, np.ndarray], from_npz: dict[str, Rows]
) -> None:
    width = digits["fourier"].shape[1]
    fourier = pa.FixedSizeListArray.from_arrays(pa.array(digits["fourier"].ravel()), width)
    columns = {f"m{i}": pa.array(column) for i, column in enumerate(digits["morphological"].T)}
    table = pa.table({"fourier": fourier, **columns, "label": pa.array(digits["label"])})
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=300)
    data = parquet(views={"fourier": "fourier", "morphological": "m?"})
    assert_same(load(data, tmp_path), from_npz)


def parquet(**fields: Any) -> Parquet:
    return Parquet.model_validate({"source": "parquet", "path": "d.parquet", **fields})


def table(tmp_path: Path, text: str, **fields: Any) -> Csv:
    (tmp_path / "d.csv").write_text(text, encoding="utf-8")
    return Csv.model_validate({"source": "csv", "path": "d.csv", "views": {"v": "x*"}, **fields})


def rows(*lines: str, header: str = "x1,x2,label") -> str:
    good = [f"{i},{i / 2},{'ab'[i % 2]}" for i in range(10)]
    return "\n".join([header, *good, *lines]) + "\n"


def test_columns_keep_the_order_that_is_written(tmp_path: Path) -> None:
    data = table(tmp_path, rows(), views={"v": ("x2", "x1"), "w": ("x1",)})
    summary = read_summary(data, tmp_path)
    train = load_data(data, summary)["train"]
    assert summary.views == {"v": (2,), "w": (1,)}
    np.testing.assert_array_equal(train.views["v"][:, 1], train.ids)


def test_a_glob_never_takes_the_label(tmp_path: Path) -> None:
    assert read_summary(table(tmp_path, rows(), views={"v": "*"}), tmp_path).views == {"v": (2,)}


@pytest.mark.parametrize(
    ("written", "classes"),
    [
        (("1", "0"), (0, 1)),
        (("10", "9"), (9, 10)),
        (("-1", " 1 "), (-1, 1)),
        (("07", "7"), ("07", "7")),
        (("1.0", "2"), ("1.0", "2")),
        (("1", "x"), ("1", "x")),
    ],
)
def test_csv_labels_are_text_unless_all_are_whole_numbers(
    tmp_path: Path, written: tuple[str, str], classes: tuple[Any, ...]
) -> None:
    text = "x1,label\n" + "".join(f"0,{written[i % 2]}\n" for i in range(10))
    assert read_summary(table(tmp_path, text), tmp_path).classes == classes


def test_labels_of_several_files_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,label\n1,1\n1,2\n1,x\n")
    (tmp_path / "b.csv").write_text("x,label\n1,1\n1,2\n")
    split = FileSplit(train="a.csv", test="b.csv")
    data = Csv(source="csv", views={"v": ("x",)}, split=split)
    assert read_summary(data, tmp_path).class_counts["test"] == (1, 1, 0)


def test_excel_writes_a_mark_and_semicolons(tmp_path: Path) -> None:
    text = "\ufeff" + rows().replace(",", ";")
    data = table(tmp_path, text.replace("\n", "\r\n"), delimiter=";", label="label")
    assert read_summary(data, tmp_path).rows == 10


def test_quoted_cells_may_hold_delimiters_and_line_breaks(tmp_path: Path) -> None:
    text = rows('1,2,"a, or\nb"', '1,2,"a, or\nb"', '1,2,"a, or\nb"', "", "")
    assert read_summary(table(tmp_path, text), tmp_path).classes == ("a", "a, or\nb", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (rows("1,2"), r"d\.csv:12\n  got +2 cells\n  expected  3"),
        (rows("1,2,a,4"), r"d\.csv:12\n  got +4 cells"),
        (rows("1,two,a"), r"d\.csv:12  column 'x2'\n  got +'two'\n  expected  a number"),
        (rows("1,,a"), r"d\.csv:12  column 'x2'\n  got +an empty cell"),
        (rows("1,2,"), r"d\.csv:12  column 'label'\n  got +no label \(''\)"),
        (rows("1,2,NaN"), r"d\.csv:12  column 'label'\n  got +no label \('NaN'\)"),
        (rows('1,2,"a'), r"d\.csv:12\n  got +a row that begins here and goes on to line 12: csv"),
        (rows('1,2,"a', "1,2,b", "1,2,b"), r"d\.csv:12\n  got +a row .* goes on to line 14: csv"),
        (rows('1,2,"a', '1,2,"b"'), r"d\.csv:12\n  got +a row .* goes on to line 13: csv"),
        (rows(header="x1,x2,labl"), r"(?s)no column for data\.label.*did you mean 'labl'\?"),
        (rows(header="y1,y2,label"), r"(?s)no column matches in .*got +'x\*'\n.*one of y1, y2"),
        (rows(header="x1,x1,label"), r"d\.csv:1\n  got +two columns named 'x1'"),
        ("", r"d\.csv is empty"),
        ("x1,x2,label\n", r"d\.csv has no rows"),
    ],
)
def test_a_bad_table_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_summary(table(tmp_path, text), tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("x1", "label"), r"data\.views\.v takes the labels"),
        (("x1", "x*"), r"takes a column of .* twice\n  got +'x1'"),
        (("x1", "x3"), r"no column of that name in .*\n  got +'x3'"),
    ],
)
def test_bad_columns_of_a_view(tmp_path: Path, columns: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_summary(table(tmp_path, rows(), views={"v": columns}), tmp_path)


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    data = table(tmp_path, rows())
    (tmp_path / "d.csv").write_bytes(rows("1,2,Käfer").encode("latin-1"))
    with pytest.raises(DataError, match=r"d\.csv:12\n  got +the byte 0xe4, which is not UTF-8"):
        read_summary(data, tmp_path)


def test_all_missing_columns_are_told_at_once(tmp_path: Path) -> None:
    data = table(tmp_path, rows(), label="labl", views={"v": ("y1", "x1", "y2"), "w": ("z*",)})
    with pytest.raises(FaultyDataError, match="no column for") as caught:
        read_summary(data, tmp_path)
    assert [fault.blamed for fault in caught.value.faults] == [
        ("data", "label"),
        ("data", "views", "v", 0),
        ("data", "views", "v", 2),
        ("data", "views", "w", 0),
    ]


def test_columns_that_no_view_asks_for_are_offered_first_as_labels(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one of label, x1, x2"):
        read_summary(table(tmp_path, rows(), label="kind"), tmp_path)


def test_files_of_a_split_that_are_missing_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,label\n1,1\n1,2\n")
    split = FileSplit(train="a.csv", val="b.csv", test="c.csv")
    data = Csv(source="csv", views={"v": ("x",)}, split=split)
    with pytest.raises(FaultyDataError, match="no such file") as caught:
        read_summary(data, tmp_path)
    blamed = [fault.blamed for fault in caught.value.faults]
    assert blamed == [("data", "split", "val"), ("data", "split", "test")]


def test_a_csv_value_that_is_not_finite_is_refused_when_loaded(tmp_path: Path) -> None:
    data = table(tmp_path, rows("1,inf,a"))
    with pytest.raises(DataError, match="inf in row 10, column 1"):
        load(data, tmp_path)


def test_reading_csv_imports_no_numpy(tmp_path: Path) -> None:
    table(tmp_path, rows())
    script = """
import sys
from pathlib import Path
from fusionrun.data.header import read_summary
from fusionrun.schema.data import Csv
read_summary(Csv(source="csv", path="d.csv", views={"v": ("x*",)}), Path(sys.argv[1]))
sys.exit("numpy" in sys.modules or "torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script, tmp_path], check=False).returncode == 0


def write(tmp_path: Path, **columns: Any) -> None:
    columns = {"label": pa.array(["a", "b"] * 5), **columns}
    pq.write_table(pa.table(columns), tmp_path / "d.parquet")


def lists(*sizes: int, dtype: str = "f4") -> pa.Array:
    array = pa.array(np.arange(10 * int(np.prod(sizes)), dtype=dtype))
    for size in reversed(sizes):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


def test_each_column_of_lists_is_a_view_by_itself(tmp_path: Path) -> None:
    write(tmp_path, a=lists(4), image=lists(2, 3, dtype="u1"), id=pa.array(range(10)))
    summary = read_summary(parquet(), tmp_path)
    assert summary.views == {"a": (4,), "image": (1, 2, 3)}
    train = load_data(parquet(), summary)["train"]
    expected = np.arange(60).reshape(10, 1, 2, 3)[train.ids]
    np.testing.assert_array_equal(train.views["image"], expected)


@pytest.mark.parametrize(
    "labels",
    [
        pa.array([3, 7] * 5, pa.uint8()),
        pa.array([3.0, 7.0] * 5),
        pa.array(["3", "7"] * 5).dictionary_encode(),
        pa.array([False, True] * 5),
    ],
)
def test_parquet_labels(tmp_path: Path, labels: pa.Array) -> None:
    write(tmp_path, a=lists(4), label=labels)
    found = [int(label) for label in read_summary(parquet(), tmp_path).classes]
    assert found in ([3, 7], [0, 1])


@pytest.mark.parametrize(
    ("columns", "views", "message"),
    [
        ({"x": pa.array(range(10))}, None, "no column of fixed-size lists"),
        ({"x": pa.array([[1.0]] * 10)}, {"v": "x"}, r"(?s)got +list<.*cast it to pyarrow\.list_"),
        ({"x": pa.array(["1"] * 10)}, {"v": "x"}, r"the column 'x' of .*\n  got +string"),
        ({"x": lists(4), "y": pa.array(range(10))}, {"v": ("x", "y")}, "a column of lists among 2"),
        ({"x": lists(4)}, {"v": "y"}, r"no column of that name"),
        ({"x": lists(4), "label": pa.array([1, None] * 5)}, None, "nothing in row 1"),
        ({"x": lists(4), "label": pa.array([1.0, np.nan] * 5)}, None, "NaN in row 1"),
        ({"x": lists(4), "label": lists(4)}, None, "labels of type list"),
    ],
)
def test_a_bad_parquet_table_is_refused(
    tmp_path: Path, columns: dict[str, Any], views: Any, message: str
) -> None:
    write(tmp_path, **columns)
    with pytest.raises(DataError, match=message):
        read_summary(parquet(views=views), tmp_path)


def test_plain_columns_are_offered_first_as_labels_of_parquet(tmp_path: Path) -> None:
    write(tmp_path, x=lists(4), y=pa.array(range(10)))
    with pytest.raises(DataError, match=r"one of (y, label|label, y), x"):
        read_summary(parquet(label="kind"), tmp_path)


def test_label_and_views_of_parquet_are_told_at_once(tmp_path: Path) -> None:
    write(tmp_path, x=lists(4))
    with pytest.raises(FaultyDataError, match="no column for") as caught:
        read_summary(parquet(label="kind", views={"v": "y"}), tmp_path)
    blamed = [fault.blamed for fault in caught.value.faults]
    assert blamed == [("data", "label"), ("data", "views", "v", 0)]


def test_empty_parquet_cells_are_refused_when_loaded(tmp_path: Path) -> None:
    write(tmp_path, x=pa.array([1.0, None] * 5))
    with pytest.raises(DataError, match="5 empty cells in the column 'x'"):
        load(parquet(views={"v": "x"}), tmp_path)


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_text("label\n")
    with pytest.raises(DataError, match=r"cannot read .* as Parquet"):
        read_summary(parquet(), tmp_path)


def test_without_pyarrow_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, a=lists(4))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'fusionrun\[parquet\]'"):
        read_summary(parquet(), tmp_path)
