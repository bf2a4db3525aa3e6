"""What a data set holds, told without loading it: views, classes, rows, sizes of the parts.

No torch, no numpy: a plan asks for this. pyarrow is imported for Parquet files only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Final, NamedTuple, cast

from fusionrun.data.columns import LABEL
from fusionrun.data.labels import numbers_if_all_whole
from fusionrun.data.paths import require_file, resolve_path
from fusionrun.data.report import Faults, Key, blaming, data_error, listing
from fusionrun.data.scan import FileScan, Label
from fusionrun.data.split import PARTS, DrawnSplit, split_class_counts, split_sizes
from fusionrun.errors import NotYetError
from fusionrun.schema.data import DATA, Csv, Data, FileSplit, FoldSplit, Npz, Parquet, TableData

__all__ = ["DataSummary", "read_summary", "resolve_path", "scan_files", "summarise"]

ALL: Final = "all"
"""Key of the one file of a data set that is split by drawing."""

# What reads a format is imported when a recipe asks for that format: a plan's start counts.
_SCANNERS: Final[Mapping[type[Data], str]] = {
    Npz: "fusionrun.data.npz_file:scan_npz",
    Csv: "fusionrun.data.csv_file:scan_csv",
    Parquet: "fusionrun.data.parquet_file:scan_parquet",
}


class DataSummary(NamedTuple):
    """A data set as its files' headers tell it.

    Attributes:
        files: absolute path of each file: `{"all": …}`, or one for each part that is named.
        views: shape of one sample of each view: (F,) or (channels, height, width).
        classes: the distinct labels in order; a class's index is its place here.
        rows: samples in all parts together.
        sizes: rows in `train`, `val` and `test`; 0 where there is no such part.
        class_counts: rows of each class in each part, in the order of `classes`. Of a drawn split
            without `stratify` only `all` parts together: the rest only the drawing tells.
    """

    files: Mapping[str, str]
    views: Mapping[str, tuple[int, ...]]
    classes: tuple[Label, ...]
    rows: int
    sizes: Mapping[str, int]
    class_counts: Mapping[str, tuple[int, ...]]

    def to_json(self) -> dict[str, Any]:
        """The summary in types that JSON has."""
        return {
            "files": dict(self.files),
            "views": {view: list(shape) for view, shape in self.views.items()},
            "classes": list(self.classes),
            "rows": self.rows,
            "sizes": dict(self.sizes),
            "class_counts": {part: list(counts) for part, counts in self.class_counts.items()},
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> DataSummary:
        """The summary that `to_json` wrote."""
        return cls(
            files=dict(content["files"]),
            views={view: tuple(shape) for view, shape in content["views"].items()},
            classes=tuple(content["classes"]),
            rows=content["rows"],
            sizes=dict(content["sizes"]),
            class_counts={part: tuple(n) for part, n in content["class_counts"].items()},
        )


def read_summary(data: Data, base_dir: Path) -> DataSummary:
    """Find the files that a recipe names and say what they hold.

    Args:
        data: the recipe's section.
        base_dir: the recipe's directory.

    Raises:
        DataError: files are missing, damaged, or not what the recipe says: as many faults at
            once as can be told.
        NotYetError: the source is understood, and this version cannot read it.
    """
    return summarise(data, scan_files(data, _files(_readable(data), base_dir)))


def scan_files(data: Data, files: Mapping[str, Path]) -> dict[str, FileScan]:
    """Views and labels of each file. Text files' labels are numbers if all of them are."""
    scan: Callable[[Path, Any], FileScan] = resolve_name(_SCANNERS[type(data)])
    faults, scans = Faults(), dict[str, FileScan]()
    for part, path in files.items():
        with faults.collected(), blaming(_key_of(part)):
            scans[part] = scan(path, data)
    faults.raise_any()
    if not isinstance(data, Csv):
        return scans
    texts = [cast("Sequence[str]", found.labels) for found in scans.values()]
    return {
        part: FileScan(found.path, found.views, labels)
        for (part, found), labels in zip(scans.items(), numbers_if_all_whole(texts), strict=True)
    }


def summarise(data: Data, scans: Mapping[str, FileScan]) -> DataSummary:
    """Put what the files hold together.

    Raises:
        DataError: files that do not belong together, too little data, or too few classes.
    """
    first = next(iter(scans.values()))
    faults, counts = Faults(), dict[str, tuple[int, ...]]()
    for part, scan in scans.items():
        with faults.collected(), blaming(_key_of(part)):
            _require_like(scan, first)
    faults.raise_any()
    classes = _classes(first)
    for part, scan in scans.items():
        with faults.collected(), blaming(_key_of(part)):
            counts[part] = _count(scan, classes, first)
    faults.raise_any()
    sizes, class_counts = _parts(data, counts)
    return DataSummary(
        files={part: str(scan.path) for part, scan in scans.items()},
        views=dict(first.views),
        classes=classes,
        rows=sum(len(scan.labels) for scan in scans.values()),
        sizes=sizes,
        class_counts=class_counts,
    )


def _readable(data: Data) -> TableData:
    if isinstance(data, TableData) and type(data) in _SCANNERS:
        return data
    known = [name for name in DATA.names() if (kind := DATA.find(name)) and kind.readable]
    raise NotYetError(
        f"data.source: {data.source} is understood, but this version of fusionrun cannot read it\n"
        f"  expected  {listing(known)}"
    )


def _files(data: TableData, base_dir: Path) -> dict[str, Path]:
    if isinstance(data.split, FileSplit):
        named = {part: getattr(data.split, part) for part in PARTS}
    else:
        named = {ALL: data.path}
    faults, files = Faults(), dict[str, Path]()
    for part, path in named.items():
        if path:
            with faults.collected(), blaming(_key_of(part)):
                files[part] = resolve_path(path, base_dir)
                require_file(files[part])
    faults.raise_any()
    return files


def _key_of(part: str) -> Key:
    """Where a recipe names the file of a part."""
    return ("data", "path") if part == ALL else ("data", "split", part)


def _require_like(scan: FileScan, first: FileScan) -> None:
    if not scan.labels:
        raise data_error(f"{scan.path} has no rows", expected="at least one sample")
    if not scan.views:
        raise data_error(f"{scan.path} has no views", expected="an array beside the labels")
    if dict(scan.views) != dict(first.views):
        raise data_error(
            f"{scan.path} has other views than {first.path}",
            got=_shapes(scan.views),
            expected=_shapes(first.views),
        )


def _shapes(views: Mapping[str, tuple[int, ...]]) -> str:
    return listing(f"{view} {shape}" for view, shape in sorted(views.items()))


def _classes(train: FileScan) -> tuple[Label, ...]:
    classes = tuple(sorted(set(train.labels)))  # one kind in one file
    if len(classes) < 2:
        raise data_error(
            f"one class only in {train.path}",
            got=f"every label is {classes[0]!r}",
            expected="at least two classes",
            fix="check data.label",
            blamed=LABEL,
        )
    return classes


def _count(scan: FileScan, classes: tuple[Label, ...], train: FileScan) -> tuple[int, ...]:
    counts = Counter(scan.labels)
    unknown = [label for label in counts if label not in classes]
    if unknown:
        raise data_error(
            f"{scan.path} has classes that {train.path} lacks",
            got=listing(repr(label) for label in unknown),
            expected=listing(repr(label) for label in classes),
            fix="no model can learn a class it is never shown",
        )
    return tuple(counts[label] for label in classes)


def _parts(
    data: Data, counts: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Rows, and rows of each class, in each part."""
    if isinstance(data.split, FileSplit):
        return {part: sum(counts.get(part, ())) for part in PARTS}, dict(counts)
    sizes = split_sizes(counts[ALL], data.split)
    _require_parts(sizes, data.split)
    return sizes, split_class_counts(counts[ALL], data.split) or {ALL: counts[ALL]}


def _require_parts(sizes: Mapping[str, int], split: DrawnSplit) -> None:
    wanted = {"train": True, "val": split.val > 0, "test": True}
    if not isinstance(split, FoldSplit):
        wanted["test"] = split.test > 0
    for part in PARTS:
        if wanted[part] and not sizes[part]:
            raise data_error(
                f"data.split leaves no rows for {part}",
                got=", ".join(f"{name} {rows}" for name, rows in sizes.items()),
                expected=f"at least one row in {part}",
                fix="more rows, another fraction, or stratify: false",
                blamed=("data", "split"),
            )
