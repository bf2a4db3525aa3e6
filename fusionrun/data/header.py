"""What a data set holds, told without loading it: views, classes, rows, sizes of the parts.

No torch, no numpy: a plan asks for this. pyarrow is imported for Parquet files only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fusionrun.data.columns import LABEL
from fusionrun.data.own_rows import OwnRows
from fusionrun.data.parts import HOLDOUT, held, val_share
from fusionrun.data.paths import resolve_path
from fusionrun.data.reading import ALL, key_of, reader_of
from fusionrun.data.report import Faults, blaming, data_error, listing
from fusionrun.data.scan import FileScan, Label
from fusionrun.data.shares import Share
from fusionrun.schema.data import Data
from fusionrun.schema.splits import FileSplit, FoldSplit, OfficialSplit, Split

__all__ = ["ALL", "DataSummary", "read_summary", "resolve_path", "summarise"]


class DataSummary(NamedTuple):
    """A data set as its files' headers tell it.

    Attributes:
        files: absolute path of each file or directory, by what it is for: `{"all": …}`, or one or
            more for each part.
        views: shape of one sample of each view: (F,) or (channels, height, width).
        classes: the distinct labels in order; a class's index is its place here.
        rows: samples in all parts together.
        sizes: rows in `train`, `val` and `test`, 0 where there is no such part; in
            `fusion_holdout` where the recipe asks for one.
        class_counts: rows of each class in each part, in the order of `classes`. Of a drawn split
            without `stratify` only `all` parts together: the rest only the drawing tells.
        found: the parts that the data comes in, or `all`; other parts were taken from these.
        shares: what each expert's pretraining sees of `train`; empty where all see all.
        own: where a run trains on less than the training part: on what. `sizes` and
            `class_counts` are then of that.
    """

    files: Mapping[str, str]
    views: Mapping[str, tuple[int, ...]]
    classes: tuple[Label, ...]
    rows: int
    sizes: Mapping[str, int]
    class_counts: Mapping[str, tuple[int, ...]]
    found: tuple[str, ...] = (ALL,)
    shares: Mapping[str, Share] = {}
    own: OwnRows | None = None

    def to_json(self) -> dict[str, Any]:
        """The summary in types that JSON has; shares and own rows only where there are any."""
        shares = {expert: share._asdict() for expert, share in self.shares.items()}
        return {
            "files": dict(self.files),
            "views": {view: list(shape) for view, shape in self.views.items()},
            "classes": list(self.classes),
            "rows": self.rows,
            "sizes": dict(self.sizes),
            "class_counts": {part: list(counts) for part, counts in self.class_counts.items()},
            "found": list(self.found),
            **({"shares": shares} if shares else {}),
            **({"own": self.own._asdict()} if self.own else {}),
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
            found=tuple(content.get("found", (ALL,))),
            shares={
                expert: Share(share["rows"], tuple(share["classes"]))
                for expert, share in content.get("shares", {}).items()
            },
            own=OwnRows(**content["own"]) if "own" in content else None,
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
    reader = reader_of(data)
    files = reader.find(data, base_dir)
    return summarise(data, reader.scan(data, files), files)


def summarise(data: Data, scans: Mapping[str, FileScan], files: Mapping[str, Path]) -> DataSummary:
    """Put what the files hold together.

    Args:
        data: the recipe's section.
        scans: what was found, by part, the training part or all rows first.
        files: what was read, by what it is for.

    Raises:
        DataError: files that do not belong together, too little data, or too few classes.
    """
    first = next(iter(scans.values()))
    faults, counts = Faults(), dict[str, tuple[int, ...]]()
    for part, scan in scans.items():
        with faults.collected(), blaming(key_of(part)):
            _require_like(scan, first)
    faults.raise_any()
    classes = _classes(first)
    for part, scan in scans.items():
        with faults.collected(), blaming(key_of(part)):
            counts[part] = _count(scan, classes, first)
    faults.raise_any()
    _require_one_validation(data.split, counts)
    sizes, class_counts = held(data, counts)
    _require_parts(sizes, data, "val" in counts)
    return DataSummary(
        files={name: str(path) for name, path in files.items()},
        views=dict(first.views),
        classes=classes,
        rows=sum(len(scan.labels) for scan in scans.values()),
        sizes=sizes,
        class_counts=class_counts,
        found=tuple(counts),
    )


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


def _require_one_validation(split: Split, counts: Mapping[str, tuple[int, ...]]) -> None:
    if isinstance(split, OfficialSplit) and "val" in counts and val_share(split, True):
        raise data_error(
            "the data has a validation part of its own",
            got=f"val: {split.val:g}, a share of the training part",
            expected="no val, or 0",
            blamed=("data", "split", "val"),
        )


def _require_parts(sizes: Mapping[str, int], data: Data, has_val: bool) -> None:
    """No part that the recipe asks for is empty."""
    split, wanted = data.split, {"train"}
    if isinstance(split, FileSplit | OfficialSplit):
        wanted |= {"val"} if val_share(split, has_val) else set()
    else:
        wanted |= {"val"} if split.val else set()
        wanted |= {"test"} if isinstance(split, FoldSplit) or split.test else set()
    wanted |= {HOLDOUT} if data.fusion_holdout else set()
    for part in sizes:
        if part in wanted and not sizes[part]:
            raise data_error(
                f"data.split leaves no rows for {part}",
                got=", ".join(f"{name} {rows}" for name, rows in sizes.items()),
                expected=f"at least one row in {part}",
                fix="more rows, another fraction, or stratify: false",
                blamed=("data", HOLDOUT) if part == HOLDOUT else ("data", "split"),
            )
