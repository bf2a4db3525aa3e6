"""The numbers of a data set, as numpy arrays; scaling fitted on training rows.

Legend: N rows, F features, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fusionrun.data.decode import Pictures
from fusionrun.data.header import DataSummary, summarise
from fusionrun.data.own_rows import narrowed, own_rows
from fusionrun.data.parts import rows_of_parts
from fusionrun.data.reading import Reader, reader_of
from fusionrun.data.report import counted, data_error, listing
from fusionrun.data.scan import FileScan
from fusionrun.data.split import PARTS
from fusionrun.schema.data import Data

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
View = Floats | Bytes | Pictures

_BLOCK_ROWS: Final = 4096
"""Rows that are widened to float64 at a time: a whole view of images would not fit twice."""


@dataclass(frozen=True, eq=False)
class Rows:
    """One part of a data set, in memory.

    Attributes:
        views: (N, F) or (N, C, H, W) of each view, as in the file: not scaled. float32, or uint8
            where the file has images of bytes, or those still encoded.
        labels: (N,) class indices, in the order of the summary's `classes`.
        ids: (N,) row numbers in the file, from 0.
    """

    views: Mapping[str, View]
    labels: Integers
    ids: Integers


def load_data(data: Data, summary: DataSummary) -> dict[str, Rows]:
    """Read the files that a summary was made of, and split them.

    Returns:
        `train`, `val` and `test`; a part that the split does not have has no rows. `train` has
        what the summary says that the run trains on.

    Raises:
        DataError: the files are not what the summary says, are damaged, or hold values that
            are not finite.
    """
    files = {name: Path(path) for name, path in summary.files.items()}
    reader = reader_of(data)
    scans = reader.scan(data, files)
    _require_unchanged(narrowed(data, summarise(data, scans, files), summary.own), summary)
    loaded = {part: _load_part(reader, data, scan, summary) for part, scan in scans.items()}
    labels = {part: rows.labels for part, rows in loaded.items()}
    drawn = rows_of_parts(data, labels)
    taken = own_rows(data, drawn, labels, summary.own, len(summary.classes))
    parts = {part: _take(loaded[t.loaded], t.rows) for part, t in taken.items()}
    nothing = _take(next(iter(loaded.values())), np.arange(0))
    return dict.fromkeys(PARTS, nothing) | parts


def fit_scaling(view: View) -> tuple[Floats, Floats]:
    """Mean and standard deviation of training rows, accumulated in float64; of bytes exactly.

    Args:
        view: (N, F), scaled by feature, or (N, C, H, W), scaled by channel; N at least 1.

    Returns:
        mean, std: (F,) or (C, 1, 1). Where all values are equal, std is 1.
    """
    if isinstance(view, Pictures) or view.dtype == np.uint8:
        return _fit_bytes(view)
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


def _fit_bytes(view: NDArray[Any] | Pictures) -> tuple[Floats, Floats]:
    """As `fit_scaling`, from how often each of the 256 values occurs in each channel."""
    often = np.zeros((view.shape[1], 256), np.int64)
    for block in _blocks(view):
        for channel, counts in enumerate(often):
            counts += np.bincount(block[:, channel].ravel(), minlength=256)
    values, total = np.arange(256, dtype=np.float64), often.sum(axis=1)
    mean = often @ values / total
    squares = (np.square(values - mean[:, None]) * often).sum(axis=1)
    std = np.where(np.count_nonzero(often, axis=1) > 1, np.sqrt(squares / total), 1.0)
    return _by_channel(mean), _by_channel(std)


def _by_channel(numbers: NDArray[Any]) -> Floats:
    return numbers.astype(np.float32).reshape(-1, 1, 1)


def _blocks(view: NDArray[Any] | Pictures) -> Iterator[NDArray[Any]]:
    if isinstance(view, Pictures):
        yield from view.blocks()
    else:
        for start in range(0, len(view), _BLOCK_ROWS):
            yield view[start : start + _BLOCK_ROWS]


def rows_hash(parts: Mapping[str, Rows]) -> dict[str, str]:
    """SHA-256 of each part's numbers and labels: for data whose files only its package knows."""
    hashes = {}
    for part, rows in parts.items():
        digest = hashlib.sha256(rows.labels.tobytes())
        for view in sorted(rows.views):
            for block in _blocks(rows.views[view]):
                digest.update(np.ascontiguousarray(block).data)
        hashes[part] = digest.hexdigest()
    return hashes


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


def _load_part(reader: Reader, data: Data, scan: FileScan, summary: DataSummary) -> Rows:
    index_of = {label: index for index, label in enumerate(summary.classes)}
    labels = np.array([index_of[label] for label in scan.labels], dtype=np.int64)
    views = dict[str, View]()
    for view, values in reader.load(data, scan).items():
        views[view] = _stored(values, (len(labels), *summary.views[view]), view, scan.path)
    return Rows(views, labels, np.arange(len(labels)))


def _stored(values: NDArray[Any] | Pictures, shape: tuple[int, ...], view: str, path: Path) -> View:
    """Images of bytes stay bytes, a quarter of the size; all else is float32."""
    if isinstance(values, Pictures):
        return values
    if values.dtype == np.uint8 and len(shape) == 4:
        return np.ascontiguousarray(values.reshape(shape))
    return _finite_float32(values.reshape(shape), view, path)


def _take(rows: Rows, indices: Integers | None) -> Rows:
    if indices is None:
        return rows
    views = {
        view: values.take(indices) if isinstance(values, Pictures) else values[indices]
        for view, values in rows.views.items()
    }
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
