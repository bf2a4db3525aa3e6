"""The header of an archive, read by hand, against what numpy wrote; and every damaged file."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusionrun.data.header import DataSummary, read_summary
from fusionrun.data.load import load_data
from fusionrun.data.report import FaultyDataError
from fusionrun.errors import DataError, NotYetError
from fusionrun.schema.data import Npz
from fusionrun.schema.splits import FileSplit, FractionSplit

ROWS = 20
LABELS = np.arange(ROWS) % 3


def npz(tmp_path: Path, **arrays: Any) -> DataSummary:
    np.savez_compressed(tmp_path / "d.npz", **arrays)
    return read_summary(Npz(source="npz", path="d.npz"), tmp_path)


def refused(tmp_path: Path, **arrays: Any) -> str:
    with pytest.raises(DataError, match=r"d\.npz") as caught:
        npz(tmp_path, **arrays)
    return str(caught.value)


def test_a_file_that_cannot_be_read_has_its_place() -> None:
    with pytest.raises(DataError, match=r"cannot read /proc/self/mem\n.*Input/output error"):
        read_summary(Npz(source="npz", path="/proc/self/mem"), Path("nowhere"))


def test_the_digits_that_ship() -> None:
    summary = read_summary(Npz(source="npz", path="package:handwritten_digits"), Path("nowhere"))
    assert summary.views == {
        "fourier": (76,),
        "karhunen_loeve": (64,),
        "morphological": (6,),
        "pixel_averages": (240,),
        "profile_correlations": (216,),
        "zernike": (47,),
    }
    assert summary.classes == tuple(range(10))
    assert (summary.rows, summary.sizes) == (2000, {"train": 1200, "val": 400, "test": 400})
    assert summary.class_counts["test"] == (40,) * 10


def test_a_summary_survives_json(tmp_path: Path) -> None:
    summary = npz(tmp_path, image=np.zeros((ROWS, 4, 5)), label=LABELS)
    assert DataSummary.from_json(summary.to_json()) == summary


@pytest.mark.parametrize(
    ("shape", "sample"),
    [((), (1,)), ((7,), (7,)), ((8, 9), (1, 8, 9)), ((3, 8, 9), (3, 8, 9))],
)
def test_shape_of_a_sample(tmp_path: Path, shape: Any, sample: Any) -> None:
    assert npz(tmp_path, v=np.zeros((ROWS, *shape)), label=LABELS).views == {"v": sample}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "kind", [*(f"{k}{n}" for k in "iu" for n in (1, 2, 4, 8)), "f2", "f4", "f8"]
)
def test_labels_of_every_number_type(tmp_path: Path, kind: str, order: str) -> None:
    labels = (LABELS + 5).astype(order + kind)
    assert npz(tmp_path, v=np.zeros((ROWS, 2)), label=labels).classes == (5, 6, 7)


@pytest.mark.parametrize("labels", [LABELS > 0, -(LABELS > 0).astype(int), (LABELS > 0)[:, None]])
def test_two_valued_labels(tmp_path: Path, labels: np.ndarray) -> None:
    summary = npz(tmp_path, v=np.zeros((ROWS, 2)), label=labels)
    assert summary.classes == tuple(sorted({int(n) for n in labels.ravel()}))


@pytest.mark.parametrize("dtype", ["<U9", ">U9", "S9"])
def test_text_labels(tmp_path: Path, dtype: str) -> None:
    names = np.array(["kitten", "dog", "ox"])[LABELS].astype(dtype)
    assert npz(tmp_path, v=np.zeros((ROWS, 2)), label=names).classes == ("dog", "kitten", "ox")


def test_text_labels_beyond_ascii(tmp_path: Path) -> None:
    names = np.array(["Käfer", "鳥", "🐟"])[LABELS]
    assert set(npz(tmp_path, v=np.zeros((ROWS, 2)), label=names).classes) == {"Käfer", "鳥", "🐟"}


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(["i1", ">i4", "u8", "f2", ">f4", "f8", "b1"]),
    st.sampled_from(["i2", ">i8", "u1", ">f8", "<U3", "S4"]),
    st.integers(4, 30),
    st.integers(1, 5),
    st.booleans(),
)
def test_header_and_load_agree_with_numpy(
    tmp_path_factory: Any, view: str, label: str, rows: int, width: int, fortran: bool
) -> None:
    folder = tmp_path_factory.mktemp("npz")
    rng = np.random.default_rng(rows)
    values = np.array(rng.integers(0, 2, (rows, width)), view, order="F" if fortran else "C")
    labels = (np.arange(rows) % 2).astype(label)
    np.savez(folder / "d.npz", v=values, label=labels)
    data = Npz(source="npz", path="d.npz", split=FractionSplit(stratify=False))
    summary = read_summary(data, folder)
    parts = load_data(data, summary)
    for part, found in parts.items():
        assert len(found.labels) == summary.sizes[part]
        np.testing.assert_array_equal(found.views["v"], values[found.ids].astype("f4"))
        text = [str(summary.classes[index]) for index in found.labels]
        assert text == [str(int(n)) for n in labels[found.ids].astype("f8")]


def test_named_files_are_parts(tmp_path: Path) -> None:
    for name, rows in (("a", 6), ("b", 3)):
        np.savez(tmp_path / f"{name}.npz", v=np.zeros((rows, 2)), label=np.arange(rows) % 3)
    data = Npz(source="npz", split=FileSplit(train="a.npz", test="b.npz"))
    summary = read_summary(data, tmp_path)
    assert summary.sizes == {"train": 6, "val": 0, "test": 3}
    assert summary.class_counts == {"train": (2, 2, 2), "test": (1, 1, 1)}
    assert summary.files["test"] == str(tmp_path / "b.npz")


def test_a_class_that_training_never_shows_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", v=np.zeros((4, 2)), label=[0, 1, 0, 1])
    np.savez(tmp_path / "b.npz", v=np.zeros((4, 2)), label=[0, 1, 7, 1])
    data = Npz(source="npz", split=FileSplit(train="a.npz", test="b.npz"))
    with pytest.raises(DataError, match=r"b\.npz has classes that .*a\.npz lacks\n  got +7"):
        read_summary(data, tmp_path)


def test_files_with_other_views_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", v=np.zeros((4, 2)), label=[0, 1, 0, 1])
    np.savez(tmp_path / "b.npz", v=np.zeros((4, 3)), label=[0, 1, 0, 1])
    data = Npz(source="npz", split=FileSplit(train="a.npz", test="b.npz"))
    with pytest.raises(DataError, match=r"got +v \(3,\)\n  expected  v \(2,\)"):
        read_summary(data, tmp_path)


def test_views_can_be_renamed_and_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", a=np.zeros((6, 2)), names=np.array(["x"]), label=np.arange(6) % 2)
    data = Npz(source="npz", path="d.npz", views={"eye": "a"})
    assert read_summary(data, tmp_path).views == {"eye": (2,)}


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({"eye": "fourir"}, r"(?s)data\.views\.eye: no array.*did you mean 'fourier'\?"),
        ({"eye": "label"}, r"data\.views\.eye takes the labels of .* as input"),
    ],
)
def test_a_view_of_the_wrong_array_is_refused(views: dict[str, str], message: str) -> None:
    data = Npz(source="npz", path="package:handwritten_digits", views=views)
    with pytest.raises(DataError, match=message):
        read_summary(data, Path())


def test_a_missing_label_names_the_nearest_array(tmp_path: Path) -> None:
    message = refused(tmp_path, v=np.zeros((4, 2)), labels=[0, 1, 0, 1])
    assert "one of labels, v" in message
    assert "did you mean 'labels'?" in message


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0, np.nan, 1.0], "NaN in row 2"),
        ([0.0, 1.5, 1.0, 1.0], "1.5 in row 1"),
        ([[1, 0], [0, 1], [1, 0], [0, 1]], "argmax"),
        ([1 + 2j, 1, 0, 0], "an array of <c16"),
        ([3, 3, 3, 3], "one class only"),
        (np.array([0, 1, 0, 1], object), "an array of Python objects"),
        (np.array([0, 1, 0, 1], [("a", "i4")]), "an array of records"),
        (np.array(4), "shape ()"),
    ],
)
def test_labels_that_are_no_classes(tmp_path: Path, labels: Any, message: str) -> None:
    assert message in refused(tmp_path, v=np.zeros((4, 2)), label=labels)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (np.zeros((3, 2)), "expected  4 rows, as many as 'label' has"),
        (np.array([[None]] * 4), "an array of Python objects"),
        (np.array([["x"]] * 4), "got       text"),
        (np.zeros((4, 1, 2, 3, 4)), "(rows, channels, height, width)"),
        (np.zeros((4, 0)), "got       shape (4, 0)"),
        (np.zeros(4, "M8[s]"), "an array of <M8[s]"),
    ],
)
def test_views_that_are_no_numbers(tmp_path: Path, view: Any, message: str) -> None:
    assert message in refused(tmp_path, v=view, label=[0, 1, 0, 1])


def test_no_rows(tmp_path: Path) -> None:
    assert "has no rows" in refused(tmp_path, v=np.zeros((0, 2)), label=np.zeros(0, int))


def test_no_views(tmp_path: Path) -> None:
    assert "has no views" in refused(tmp_path, label=LABELS)


def test_a_part_that_gets_no_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"leaves no rows for val\n  got +train 2, val 0, test 0"):
        npz(tmp_path, v=np.zeros((2, 2)), label=[0, 1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit.npz", r"did you mean 'digits\.npz'\?"),
        ("zzz", r"holds digits\.npz"),
        ("no/where/digits.npz", r"no/where does not exist"),
        (".", "is not a file"),
    ],
)
def test_a_missing_file_names_what_there_is(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "digits.npz").touch()
    with pytest.raises(DataError, match=message):
        read_summary(Npz(source="npz", path=name), tmp_path)


def test_an_unknown_shipped_name_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"did you mean 'package:handwritten_digits'\?"):
        read_summary(Npz(source="npz", path="package:handwriten_digit"), Path())


def test_arrays_of_one_class_a_row_are_offered_first_as_labels(tmp_path: Path) -> None:
    arrays = {f"view{i}": np.zeros((ROWS, 2)) for i in range(13)}
    np.savez(tmp_path / "d.npz", **arrays, kind=LABELS, column=LABELS[:, None])
    with pytest.raises(DataError, match="one of kind, column, view0, view1"):
        read_summary(Npz(source="npz", path="d.npz", label="view"), tmp_path)


def test_missing_arrays_are_told_at_once(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", v=np.zeros((ROWS, 2)), label=LABELS)
    data = Npz(source="npz", path="d.npz", label="lable", views={"a": "v", "b": "w", "c": "x"})
    with pytest.raises(FaultyDataError, match="no array for") as caught:
        read_summary(data, tmp_path)
    assert [fault.blamed for fault in caught.value.faults] == [
        ("data", "label"),
        ("data", "views", "b"),
        ("data", "views", "c"),
    ]


def test_arrays_that_do_not_fit_are_told_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, v=np.zeros((ROWS, 2)), w=np.zeros(3), x=["a"] * 20, label=LABELS)
    assert "the array 'w' of" in message
    assert "the array 'x' of" in message


def test_without_stratify_the_rows_of_each_class_are_counted_over_all_parts(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", v=np.zeros((ROWS, 2)), label=LABELS)
    data = Npz(source="npz", path="d.npz", split=FractionSplit(stratify=False))
    assert read_summary(data, tmp_path).class_counts == {"all": (7, 7, 6)}


def test_text_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_text("label,a\n0,1\n")
    with pytest.raises(DataError, match="no zip file, or one that is cut short"):
        read_summary(Npz(source="npz", path="d.npz"), tmp_path)


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", LABELS)
    with pytest.raises(DataError, match=r"(?s)a single array.*savez_compressed"):
        read_summary(Npz(source="npz", path="d.npy"), tmp_path)


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", v=np.zeros((ROWS, 5)), label=LABELS)
    whole = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(whole[:-40])
    with pytest.raises(DataError, match="cut short"):
        read_summary(Npz(source="npz", path="d.npz"), tmp_path)


def spoil(path: Path, array: str) -> None:
    """Turn over one byte of an array's numbers, as a bad disk would."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{array}.npy")
    content = bytearray(path.read_bytes())
    content[info.header_offset + 30 + len(info.filename) + 20 + info.file_size // 2] ^= 0xFF
    path.write_bytes(content)


def test_damaged_labels_are_noticed_in_the_header(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", v=np.zeros((ROWS, 5)), label=np.arange(2000) % 2)
    spoil(tmp_path / "d.npz", "label")
    with pytest.raises(DataError, match=r"the array 'label' of .* is damaged\n  got +Bad CRC-32"):
        read_summary(Npz(source="npz", path="d.npz"), tmp_path)


def test_a_damaged_view_is_noticed_when_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", v=np.ones((ROWS, 500)), label=LABELS)
    data = Npz(source="npz", path="d.npz")
    summary = read_summary(data, tmp_path)
    spoil(tmp_path / "d.npz", "v")
    with pytest.raises(DataError, match=r"the array 'v' of .* is damaged\n  got +Bad CRC-32"):
        load_data(data, summary)


@pytest.mark.parametrize(
    "content",
    [
        b"not an array",
        b"\x93NUMPY\x01\x00\x05\x00{'a':",
        b"\x93NUMPY\x01\x00\x02\x00{}",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        b"\x93NUM",
        b"\x93NUMPY\x01\x00\x31\x00{'descr': '<f8', 'shape': (9,), 'fortran_order': 0}",
    ],
)
def test_members_that_are_no_arrays_are_refused(tmp_path: Path, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("label.npy", content)
    with pytest.raises(DataError, match=r"the array 'label' of .* is damaged"):
        read_summary(Npz(source="npz", path="d.npz"), tmp_path)


class Later(Npz):
    """A source that another package understands and does not read yet."""

    reader = None


def test_a_source_that_nothing_reads_is_refused_by_name() -> None:
    data = Later(source="npz", path="x")
    with pytest.raises(NotYetError, match=r"(?s)npz is understood.*npz, csv, parquet"):
        read_summary(data, Path())


_READ = """
import sys
from pathlib import Path
from fusionrun.data.header import read_summary
from fusionrun.schema.data import Npz
{extra}
read_summary(Npz(source="npz", path="package:handwritten_digits"), Path())
sys.exit(", ".join(sorted({{"numpy", "torch", "pyarrow"}} & set(sys.modules))))
"""


def imported_by_reading(extra: str = "") -> str:
    command = [sys.executable, "-c", _READ.format(extra=extra)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr.strip()


def test_reading_a_header_imports_no_numpy_and_no_torch() -> None:
    assert imported_by_reading() == ""


def test_the_import_check_can_fail() -> None:
    assert imported_by_reading("import numpy") == "numpy"
