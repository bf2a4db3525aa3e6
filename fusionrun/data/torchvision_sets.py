"""Any data set of torchvision, by the name of its class. torchvision is an extra.

Its classes alone know their files, so a plan of such a data set imports torchvision, and torch
with it. Nothing is downloaded unless the recipe says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from fusionrun.data.labels import as_classes
from fusionrun.data.paths import resolve_path
from fusionrun.data.reading import ALL, ROOT, require_parts
from fusionrun.data.report import data_error, listing
from fusionrun.data.scan import FileScan
from fusionrun.nearest import did_you_mean
from fusionrun.schema.splits import OfficialSplit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fusionrun.schema.image_data import Torchvision

_NAME: Final = ("data", "name")
_LABELS: Final = ("targets", "labels", "_labels", "y")
"""What torchvision's classes call their labels; those that have none of these are read through."""


def find(data: Torchvision, base_dir: Path) -> dict[str, Path]:
    """The directory that the files are in, or shall be."""
    return {ROOT: resolve_path(data.root, base_dir)}


def scan(data: Torchvision, files: Mapping[str, Path]) -> dict[str, FileScan]:
    """View and labels of each part.

    Raises:
        DataError: torchvision is not there or has no such data set; the files are not there; or
            it does not give an image and a class for each row.
    """
    kind = _kind(data.name)
    scans = {}
    for part, arguments in _parts(kind, data).items():
        dataset = _made(kind, data, files[ROOT], arguments)
        labels = as_classes(_labels(dataset), f"the labels of torchvision's {data.name}")
        views = {data.view: data.images.shape(*(data.images.size or _size(dataset, data)))}
        scans[part] = FileScan(Path(data.name), views, labels, dataset)
    require_parts(scans, data.split, f"torchvision's {data.name}")
    return scans


def load(data: Torchvision, scan: FileScan) -> Mapping[str, NDArray[Any]]:
    """The images, (N, channels, height, width) bytes."""
    from fusionrun.data.decode import Pictures, decode_all

    encoded = _Given(scan.origin, data.name)
    return {data.view: decode_all(Pictures(encoded, scan.views[data.view], data.images))}


class _Given(Sequence[tuple[str, Any]]):
    """The images of a data set, each made when it is asked for."""

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name = dataset, name

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, row: Any) -> Any:
        return f"{row} of torchvision's {self._name}", self._dataset[row][0]


def _kind(name: str) -> Any:
    try:
        from torchvision import datasets
    except ModuleNotFoundError as error:
        raise data_error(
            "source: torchvision needs torchvision, which is not installed",
            fix="pip install 'fusionrun[torchvision]'",
        ) from error
    except (ImportError, RuntimeError) as error:  # what builds that do not fit each other raise
        raise data_error(
            "torchvision cannot be imported",
            got=f"{type(error).__name__}: {error}",
            expected="the build of torchvision that belongs to this torch",
            fix="install both from one place",
        ) from error
    if name not in datasets.__all__:
        raise data_error(
            "torchvision has no data set of that name",
            got=repr(name),
            expected=listing(datasets.__all__),
            fix=did_you_mean(name, datasets.__all__),
            blamed=_NAME,
        )
    return getattr(datasets, name)


def _parts(kind: Any, data: Torchvision) -> Mapping[str, Mapping[str, Any]]:
    """The arguments that make each part: as the recipe says, or as the class calls its parts."""
    if not isinstance(data.split, OfficialSplit):
        return {ALL: {}}
    if data.parts is not None:
        return {part: arguments for part, arguments in data.parts if arguments is not None}
    takes = signature(kind).parameters
    if "train" in takes:
        return {"train": {"train": True}, "test": {"train": False}}
    if "split" in takes:
        return {"train": {"split": "train"}, "test": {"split": "test"}}
    return {ALL: {}}


def _made(kind: Any, data: Torchvision, root: Path, arguments: Mapping[str, Any]) -> Any:
    takes = signature(kind).parameters
    given = {"root": str(root), "download": data.download}
    common = {name: value for name, value in given.items() if name in takes}
    try:
        return kind(**common, **{**data.options, **arguments})
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        absent = "download" in takes and not data.download and isinstance(error, RuntimeError)
        raise data_error(
            f"torchvision's {data.name} cannot be read from {root}",
            got=f"{type(error).__name__}: {error}",
            fix="'download: true' in data has it downloaded" if absent else "",
            blamed=("data", "root") if absent else _NAME,
        ) from error


def _labels(dataset: Any) -> Sequence[Any]:
    for name in _LABELS:
        found: Any = getattr(dataset, name, None)
        if found is not None:
            return cast(
                "Sequence[Any]", found.tolist() if hasattr(found, "tolist") else list(found)
            )
    return [dataset[row][1] for row in range(len(dataset))]


def _size(dataset: Any, data: Torchvision) -> tuple[int, int]:
    first: Any = dataset[0][0]
    if not hasattr(first, "height"):
        raise data_error(
            f"torchvision's {data.name} does not give images",
            got=type(first).__name__,
            expected="an image and a class for each row",
            blamed=_NAME,
        )
    return first.height, first.width
