"""The numbers of npz, csv and parquet files, as numpy arrays, not yet checked."""

from __future__ import annotations

import zipfile
from array import array
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fusionrun.data.csv_file import scan_csv
from fusionrun.data.npz_file import BROKEN, arrays_by_view, damaged
from fusionrun.data.parquet_file import (
    columns_by_view,
    encoded_images,
    images_of,
    is_picture,
    open_parquet,
)
from fusionrun.data.report import counted, data_error
from fusionrun.data.scan import FileScan
from fusionrun.schema.data import Csv, Data, Npz, Parquet

if TYPE_CHECKING:
    from fusionrun.data.decode import Pictures


def load_values(data: Data, scan: FileScan) -> Mapping[str, NDArray[Any] | Pictures]:
    """View → its numbers, one row a sample.

    Raises:
        DataError: the file is damaged, or a cell is empty.
    """
    return _LOADERS[type(data)](scan, data)


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


def _load_parquet(scan: FileScan, data: Parquet) -> dict[str, NDArray[Any] | Pictures]:
    with open_parquet(scan.path) as file:
        schema = file.schema_arrow
        return {
            view: _pictures(file, names[0], view, data, scan)
            if is_picture(schema, names)
            else np.hstack([_column(file, name, view, scan) for name in names])
            for view, names in columns_by_view(schema, data, scan.path).items()
        }


def _pictures(
    file: Any, name: str, view: str, data: Parquet, scan: FileScan
) -> NDArray[Any] | Pictures:
    from fusionrun.data.decode import held

    encoded = list(encoded_images(file, name, scan.path))
    return held(encoded, scan.views[view], images_of(data))


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


_LOADERS: Final[
    Mapping[type[Data], Callable[[FileScan, Any], Mapping[str, NDArray[Any] | Pictures]]]
] = {
    Npz: _load_npz,
    Csv: _load_csv,
    Parquet: _load_parquet,
}
