"""Data sets that another package offers by an entry point, of the group `fusionrun.datasets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from fusionrun.data.labels import as_classes
from fusionrun.data.reading import require_parts
from fusionrun.data.report import data_error, listing
from fusionrun.data.scan import FileScan
from fusionrun.nearest import did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from numpy.typing import NDArray

    from fusionrun.schema.image_data import PythonData

GROUP: Final = "fusionrun.datasets"
_NAME: Final = ("data", "name")
_OPTIONS: Final = ("data", "options")


class Dataset(Protocol):
    """What the function behind an entry point returns, called with the recipe's `options`.

    A plan calls it too and reads both attributes: what is slow or imports much belongs in `load`.

    Attributes:
        views: shape of one sample of each view: (F,) or (channels, height, width).
        labels: class of each row, by part: `train`, and as there are `val` and `test`; or `all`,
            from which the recipe's split draws.
    """

    views: Mapping[str, tuple[int, ...]]
    labels: Mapping[str, Sequence[int | str]]

    def load(self, part: str) -> Mapping[str, NDArray[Any]]:
        """The numbers of a part: view → (N, *shape), in the order of its labels.

        Images of uint8 stay so; all else becomes float32.
        """


def find(data: PythonData, base_dir: Path) -> dict[str, Path]:
    """No files: only the package knows where its data is."""
    return {}


def scan(data: PythonData, files: Mapping[str, Path]) -> dict[str, FileScan]:
    """Views and labels, as the package tells them.

    Raises:
        DataError: nothing of that name is offered, it fails, or does not tell what it should.
    """
    dataset = _dataset(data)
    try:
        views = {str(view): tuple(int(n) for n in shape) for view, shape in dataset.views.items()}
        labels = {part: _plain(own) for part, own in dataset.labels.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise data_error(
            f"the data set {data.name!r} does not tell what it holds",
            got=f"{type(error).__name__}: {error}",
            expected="views: name → shape; labels: part → the class of each row",
            blamed=_NAME,
        ) from error
    require_parts(labels, data.split, f"the data set {data.name!r}")
    return {
        part: FileScan(Path(data.name), views, as_classes(own, f"labels {part!r}"), (dataset, part))
        for part, own in labels.items()
    }


def load(data: PythonData, scan: FileScan) -> Mapping[str, NDArray[Any]]:
    """The numbers of a part, as the package gives them.

    Raises:
        DataError: a view is missing, or of another shape than was told.
    """
    import numpy as np

    dataset, part = cast("tuple[Dataset, str]", scan.origin)
    given = dataset.load(part)
    arrays = {view: np.asarray(given[view]) for view in scan.views if view in given}
    for view, shape in scan.views.items():
        expected = (len(scan.labels), *shape)
        found = arrays[view].shape if view in arrays else "nothing"
        if found != expected:
            raise data_error(
                f"the view {view!r} of the data set {data.name!r}, part {part!r}",
                got=str(found),
                expected=f"{expected}, as its views and labels tell",
                blamed=_NAME,
            )
    return arrays


def _dataset(data: PythonData) -> Dataset:
    point = _entry_point(data.name)
    try:
        return cast("Dataset", point.load()(**data.options))
    except Exception as error:
        raise data_error(
            f"the data set {data.name!r} ({point.value}) cannot be made",
            got=f"{type(error).__name__}: {error}",
            expected="a function that takes data.options",
            blamed=_OPTIONS if data.options else _NAME,
        ) from error


def _entry_point(name: str) -> EntryPoint:
    from importlib.metadata import entry_points

    offered = {point.name: point for point in entry_points(group=GROUP)}
    if name not in offered:
        raise data_error(
            f"no installed package offers the data set {name!r}",
            got=repr(name),
            expected=listing(sorted(offered)) if offered else "a package that offers one",
            fix=did_you_mean(name, sorted(offered))
            or f"install the package that names it in its entry points, group {GROUP!r}",
            blamed=_NAME,
        )
    return offered[name]


def _plain(labels: Any) -> Sequence[Any]:
    """Labels as Python's own numbers or text, whatever array they came in."""
    return cast("Sequence[Any]", labels.tolist() if hasattr(labels, "tolist") else list(labels))
