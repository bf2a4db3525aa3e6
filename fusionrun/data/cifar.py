"""CIFAR-10 and CIFAR-100, in their binary version or the one for Python. No numpy but in `load`.

A row of the binary version is its label (coarse, then fine, in CIFAR-100) and 3 × 32 × 32 bytes.
The version for Python holds the same in pickles, which are read as plain data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fusionrun.data.paths import resolve_path
from fusionrun.data.plain_pickle import PlainArray, load_plain
from fusionrun.data.report import Faults, blaming, data_error, listing
from fusionrun.data.scan import FileScan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fusionrun.schema.image_data import Cifar

_SHAPE: Final = (3, 32, 32)
_NUM_PIXELS: Final = 3 * 32 * 32
_PATH: Final = ("data", "path")


class _Version(NamedTuple):
    """One form in which a CIFAR is published: its directory, and the files of each part."""

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]


_BATCHES: Final = tuple(f"data_batch_{n}" for n in range(1, 6))
_VERSIONS: Final[Mapping[int, tuple[_Version, ...]]] = {
    10: (
        _Version("cifar-10-batches-bin", tuple(f"{b}.bin" for b in _BATCHES), ("test_batch.bin",)),
        _Version("cifar-10-batches-py", _BATCHES, ("test_batch",)),
    ),
    100: (
        _Version("cifar-100-binary", ("train.bin",), ("test.bin",)),
        _Version("cifar-100-python", ("train",), ("test",)),
    ),
}


def find(data: Cifar, base_dir: Path) -> dict[str, Path]:
    """The files of the first version that is there whole, in `path` or in its own directory.

    Raises:
        DataError: no version is there, or files of it are missing.
    """
    with blaming(_PATH):
        path = resolve_path(data.path, base_dir)
        versions = _VERSIONS[data.classes]
        for version in versions:
            for folder in (path, path / version.folder):
                if (folder / version.test[0]).is_file():
                    return _files(folder, version)
        held = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
        raise data_error(
            f"no files of CIFAR-{data.classes} in {path}",
            got=listing(held) if held else "nothing" if path.is_dir() else "no such directory",
            expected=" or ".join(f"{version.folder}/{version.test[0]}" for version in versions),
        )


def scan(data: Cifar, files: Mapping[str, Path]) -> dict[str, FileScan]:
    """One view of images, and the labels, of `train` and `test`."""
    faults, scans = Faults(), dict[str, FileScan]()
    for part in ("train", "test"):
        own = [path for name, path in files.items() if name.split("_")[0] == part]
        labels: list[int] = []
        for path in own:
            with faults.collected(), blaming(_PATH):
                labels += _checked(_read(path, data).labels, path, data)
        scans[part] = FileScan(own[0], {data.view: _SHAPE}, labels, origin=own)
    faults.raise_any()
    return scans


def load(data: Cifar, scan: FileScan) -> Mapping[str, NDArray[Any]]:
    """The images, (N, 3, 32, 32) bytes."""
    import numpy as np

    blocks = []
    for path in scan.origin:
        batch = _read(path, data)
        rows = np.frombuffer(batch.content, np.uint8).reshape(len(batch.labels), -1)
        blocks.append(rows[:, -_NUM_PIXELS:])
    return {data.view: np.concatenate(blocks).reshape(-1, *_SHAPE)}


class _Batch(NamedTuple):
    """One file: its labels; its rows one after the other, of which the pixels come last."""

    labels: Sequence[int]
    content: bytes


def _files(folder: Path, version: _Version) -> dict[str, Path]:
    several = len(version.train) > 1
    files = {
        f"train_{number}" if several else "train": folder / name
        for number, name in enumerate(version.train, 1)
    }
    files["test"] = folder / version.test[0]
    missing = [path.name for path in files.values() if not path.is_file()]
    if missing:
        raise data_error(
            f"{folder} is not whole", got=f"no {listing(missing)}", fix="unpack the archive again"
        )
    return files


def _read(path: Path, data: Cifar) -> _Batch:
    return _read_binary(path, data) if path.suffix == ".bin" else _read_python(path, data)


def _read_binary(path: Path, data: Cifar) -> _Batch:
    num_labels = 1 if data.classes == 10 else 2
    size = num_labels + _NUM_PIXELS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise data_error(f"cannot read {path}", got=str(error)) from error
    if not content or len(content) % size:
        raise data_error(
            f"{path} is not a file of CIFAR-{data.classes}, or it is cut short",
            got=f"{len(content):,} bytes",
            expected=f"a multiple of {size:,}: {num_labels} of labels, {_NUM_PIXELS:,} of pixels",
            fix="unpack the archive again, or check data.classes",
        )
    first = 1 if data.classes == 100 and data.labels == "fine" else 0
    return _Batch(content[first::size], content)


def _read_python(path: Path, data: Cifar) -> _Batch:
    held = load_plain(path)
    key = "labels" if data.classes == 10 else f"{data.labels}_labels"
    found = held if isinstance(held, Mapping) else {}
    labels, pixels = (found.get(k.encode(), found.get(k)) for k in (key, "data"))
    is_whole = isinstance(labels, list) and isinstance(pixels, PlainArray)
    if not is_whole or pixels.shape != (len(labels), _NUM_PIXELS):
        raise data_error(
            f"{path} is not a file of CIFAR-{data.classes}",
            got=f"a pickle of {listing(map(str, found)) or type(held).__name__}",
            expected=f"'data', {_NUM_PIXELS:,} bytes a row, and as many '{key}'",
            fix="check data.classes",
        )
    return _Batch(labels, pixels.content)


def _checked(labels: Sequence[int], path: Path, data: Cifar) -> Sequence[int]:
    most = 20 if data.labels == "coarse" else data.classes
    wrong = [label for label in labels if type(label) is not int or not 0 <= label < most]
    if wrong:
        raise data_error(
            f"{path} is not a file of CIFAR-{data.classes}",
            got=f"the label {wrong[0]!r}",
            expected=f"labels from 0 to {most - 1}",
            fix="check data.classes",
        )
    return labels
