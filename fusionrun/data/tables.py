"""Tables in files: npz, csv and parquet. One file to be drawn from, or one for each part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Final, cast

from fusionrun.data.labels import numbers_if_all_whole
from fusionrun.data.paths import require_file, resolve_path
from fusionrun.data.reading import ALL, key_of
from fusionrun.data.report import Faults, blaming
from fusionrun.data.scan import FileScan
from fusionrun.data.split import PARTS
from fusionrun.schema.data import Csv, Data, FileData, Npz, Parquet, TableData
from fusionrun.schema.splits import FileSplit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fusionrun.data.decode import Pictures

# What reads a format is imported when a recipe asks for that format: a plan's start counts.
_SCANNERS: Final[Mapping[type[Data], str]] = {
    Npz: "fusionrun.data.npz_file:scan_npz",
    Csv: "fusionrun.data.csv_file:scan_csv",
    Parquet: "fusionrun.data.parquet_file:scan_parquet",
}


def find(data: TableData, base_dir: Path) -> dict[str, Path]:
    """The table's file, or one for each part."""
    faults, files = Faults(), dict[str, Path]()
    for part, path in named_paths(data).items():
        with faults.collected(), blaming(key_of(part)):
            files[part] = resolve_path(path, base_dir)
            require_file(files[part])
    faults.raise_any()
    return files


def named_paths(data: FileData) -> dict[str, str]:
    """What the recipe calls the file, or that of each part."""
    if isinstance(data.split, FileSplit):
        named = {part: getattr(data.split, part) for part in PARTS}
    else:
        named = {ALL: data.path}
    return {part: path for part, path in named.items() if isinstance(path, str)}


def scan(data: TableData, files: Mapping[str, Path]) -> dict[str, FileScan]:
    """Views and labels of each file. Text files' labels are numbers if all of them are."""
    scan_file: Callable[[Path, Any], FileScan] = resolve_name(_SCANNERS[type(data)])
    faults, scans = Faults(), dict[str, FileScan]()
    for part, path in files.items():
        with faults.collected(), blaming(key_of(part)):
            require_file(path)
            scans[part] = scan_file(path, data)
    faults.raise_any()
    if not isinstance(data, Csv):
        return scans
    texts = [cast("Sequence[str]", found.labels) for found in scans.values()]
    return {
        part: FileScan(found.path, found.views, labels)
        for (part, found), labels in zip(scans.items(), numbers_if_all_whole(texts), strict=True)
    }


def load(data: TableData, scan: FileScan) -> Mapping[str, NDArray[Any] | Pictures]:
    """Every view's numbers."""
    from fusionrun.data.table_values import load_values

    return load_values(data, scan)
