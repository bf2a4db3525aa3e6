"""The numbers of a data set, as numpy arrays; scaling fitted on training rows.

Legend: N rows, F features, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
import zipfile
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fusionrun.data.csv_file import scan_csv
from fusionrun.data.header import ALL, DataSummary, scan_files, summarise
from fusionrun.data.npz_file import BROKEN, arrays_by_view, damaged
from fusionrun.data.parquet_file import columns_by_view, open_parquet
from fusionrun.data.paths import require_file
from fusionrun.data.report import counted, data_error, listing
from fusionrun.data.scan import FileScan
from fusionrun.data.split import PARTS, split_indices
from fusionrun.schema.data import Csv, Data, FileSplit, Npz, Parquet

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

_BLOCK_ROWS: Final = 4096
"""Rows that are widened to float64 at a time: a whole view of images would not fit twice."""

_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, eq=False)
class Rows:
    """One part of a data set, in memory.

    Attributes:
        views: (N, F) or (N, C, H, W) of each view, as in the file: not scaled.
        labels: (N,) class indices, in the order of the summary's `classes`.
        ids: (N,) row numbers in the file, from 0.
    """

    views: Mapping[str, Floats]
    labels: Integers
    ids: Integers


def load_data(data: Data, summary: DataSummary) -> dict[str, Rows]:
    """Read the files that a summary was made of, and split them.

    Returns:
        `train`, `val` and `test`; a part that the split does not have has no rows.

    Raises:
        DataError: the files are not what the summary says, are damaged, or hold values that
            are not finite.
    """
    files = {part: Path(path) for part, path in summary.files.items()}
    for path in files.values():
        require_file(path)
    scans = scan_files(data, files)
    _require_unchanged(summarise(data, scans), summary)
    loaded = {part: _load_file(data, scan, summary) for part, scan in scans.items()}
    if isinstance(data.split, FileSplit):
        nothing = _take(loaded["train"], np.arange(0))
        return {part: loaded.get(part, nothing) for part in PARTS}
    whole = loaded.pop(ALL)
    indices = split_indices(whole.labels, data.split)
    return {part: _take(whole, indices[part]) for part in PARTS}


def fit_scaling(view: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of training rows, accumulated in float64.

    Args:
        view: (N, F), scaled by feature, or (N, C, H, W), scaled by channel; N at least 1.

    Returns:
        mean, std: (F,) or (C, 1, 1). Where all values are equal, std is 1.
    """
    axes = (0,) if view.ndim == 2 else (0, 2, 3)
    count = view.size // view.shape[1]
    blocks = range(0, len(view), _BLOCK_ROWS)
    mean = view.mean(axis=axes, dtype=np.float64, keepdims=True)[0]
    squares = np.zeros_like(mean)
    for start in blocks:
        centred = view[start : start + _BLOCK_ROWS].astype(np.float64) - mean
        squares += np.square(centred).sum(axis=axes, keepdims=True)[0]
    std = np.sqrt(squares / count).astype(np.float32)
    # Asked for, not concluded from std == 0: beyond 2**29 values of 24 bits a float64 sum is
    # rounded, and equal values (a black channel of many images) would show a tiny deviation.
    constant = view.max(axis=axes, keepdims=True)[0] == view.min(axis=axes, keepdims=True)[0]
    std[constant | (std < np.finfo(np.float32).tiny)] = 1
    return mean.astype(np.float32), std


def content_hash(files: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of each file's bytes, as hexadecimal text, by the keys of `files`."""
    return {part: _sha256(Path(path)) for part, path in files.items()}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise data_error(f"cannot read {path}", got=str(error)) from error
    return digest.hexdigest()


def _require_unchanged(now: DataSummary, planned: DataSummary) -> None:
    for name in ("views", "classes", "rows", "sizes", "class_counts"):
        found, expected = now.to_json()[name], planned.to_json()[name]
        if found != expected:
            raise data_error(
                f"the data has changed since the plan was made: {name}",
                got=str(found),
                expected=str(expected),
                fix=f"plan again, or put the old file back: {listing(planned.files.values())}",
            )


def _load_file(data: Data, scan: FileScan, summary: DataSummary) -> Rows:
    index_of = {label: index for index, label in enumerate(summary.classes)}
    labels = np.array([index_of[label] for label in scan.labels], dtype=np.int64)
    views = {}
    for view, values in _LOADERS[type(data)](scan, data).items():
        shape = (len(labels), *summary.views[view])
        views[view] = _finite_float32(values.reshape(shape), view, scan.path)
    return Rows(views, labels, np.arange(len(labels)))


def _take(rows: Rows, indices: Integers) -> Rows:
    views = {view: values[indices] for view, values in rows.views.items()}
    return Rows(views, rows.labels[indices], rows.ids[indices])


def _finite_float32(values: NDArray[Any], view: str, path: Path) -> Floats:
    with np.errstate(over="ignore"):  # reported below, with the place
        narrow = np.ascontiguousarray(values, dtype=np.float32)
    bad = ~np.isfinite(narrow.reshape(len(narrow), -1))
    if bad.any():
        row, column = (int(n) for n in np.argwhere(bad)[0])
        value = values.reshape(len(values), -1)[row, column]
        reason = " (too large for float32)" if np.isfinite(value) else ""
        raise data_error(
            f"the view '{view}' of {path} has values that are not finite",
            got=f"{value}{reason} in row {row}, column {column} (counted from 0); "
            f"{counted(int(bad.sum()), 'such value')} in "
            f"{counted(int(bad.any(axis=1).sum()), 'row')} "
            f"and {counted(int(bad.any(axis=0).sum()), 'column')}",
            expected="finite numbers",
            fix="remove those rows, or fill them, for instance with the column's median",
        )
    return narrow


def _load_npz(scan: FileScan, data: Npz) -> dict[str, NDArray[Any]]:
    try:
        with np.load(scan.path, allow_pickle=False) as archive:
            sources = arrays_by_view(data, archive.files, scan.path)
            return {view: _array(archive, name, scan.path) for view, name in sources.items()}
    except (zipfile.BadZipFile, OSError) as error:
        raise data_error(f"cannot read {scan.path}", got=str(error)) from error


def _array(archive: Any, name: str, path: Path) -> NDArray[Any]:
    try:
        return np.asarray(archive[name])
    except (*BROKEN, ValueError) as error:
        raise damaged(path, name, error) from error
    except MemoryError as error:
        raise data_error(
            f"the array '{name}' of {path} does not fit in memory",
            got=str(error) or "no memory is left",
            fix="train on a machine with more, or leave it out of data.views",
        ) from error


def _load_csv(scan: FileScan, data: Csv) -> dict[str, NDArray[Any]]:
    numbers = array("d")
    scan_csv(scan.path, data, numbers.extend)
    table = np.frombuffer(numbers).reshape(len(scan.labels), -1)
    ends = np.cumsum([prod(shape) for shape in scan.views.values()])[:-1]
    return dict(zip(scan.views, np.split(table, ends, axis=1), strict=True))


def _load_parquet(scan: FileScan, data: Parquet) -> dict[str, NDArray[Any]]:
    with open_parquet(scan.path) as file:
        chosen = columns_by_view(file.schema_arrow, data, scan.path)
        return {
            view: np.hstack([_column(file, name, view, scan) for name in names])
            for view, names in chosen.items()
        }


def _column(file: Any, name: str, view: str, scan: FileScan) -> NDArray[Any]:
    """(N, 1) numbers of a plain column, (N, size) of a column of lists; none may be empty."""
    import pyarrow

    values = pyarrow.concat_arrays(file.read(columns=[name]).column(0).chunks)
    num_empty = values.null_count
    while pyarrow.types.is_fixed_size_list(values.type):
        values = values.flatten()
        num_empty += values.null_count
    if num_empty:
        raise data_error(
            f"the view '{view}' of {scan.path}",
            got=f"{counted(num_empty, 'empty cell')} in the column {name!r}",
            expected="a number in every cell",
            fix="remove those rows, or fill them, for instance with the column's median",
        )
    numbers: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return numbers.reshape(len(scan.labels), -1)


_LOADERS: Final[Mapping[type[Data], Callable[[FileScan, Any], Mapping[str, NDArray[Any]]]]] = {
    Npz: _load_npz,
    Csv: _load_csv,
    Parquet: _load_parquet,
}
