"""IDX files, the format of MNIST and its relatives: images and labels of two parts, gzip or not.

A file is a magic word (two zeros, the type of a number, the number of dimensions), each dimension
as a big-endian integer, then the numbers. Of images only that header is read here; labels are
read whole. No numpy but in `load`.
"""

from __future__ import annotations

import glob
import gzip
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from fusionrun.data.paths import resolve_path
from fusionrun.data.report import Faults, FaultyDataError, blaming, data_error, listing
from fusionrun.data.scan import FileScan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fusionrun.schema.image_data import Idx

_BYTES: Final = 0x08
"""The magic word's type of unsigned bytes: the only one that image sets use."""

# As MNIST calls its parts, then as EMNIST does; likewise the dot that some copies have.
_STEMS: Final = {"train": ("train",), "test": ("t10k", "test")}
_KINDS: Final = {"": ("images", 3), "_labels": ("labels", 1)}
_BROKEN: Final = (gzip.BadGzipFile, zlib.error, EOFError, struct.error)
_PATH: Final = ("data", "path")


def find(data: Idx, base_dir: Path) -> dict[str, Path]:
    """The four files.

    Raises:
        DataError: one is not there, packed or not.
    """
    path = resolve_path(data.path, base_dir)
    with blaming(_PATH):
        _refuse_nothing(path)
    faults, files = Faults(), dict[str, Path]()
    for part in _STEMS:
        for suffix in _KINDS:
            with faults.collected(), blaming(_PATH):
                files[part + suffix] = _existing(path, part, suffix)
    faults.raise_any()
    return files


def scan(data: Idx, files: Mapping[str, Path]) -> dict[str, FileScan]:
    """One view of images, and the labels, of `train` and `test`."""
    faults, scans = Faults(), dict[str, FileScan]()
    for part in _STEMS:
        with faults.collected(), blaming(_PATH):
            scans[part] = _scan_part(data, files[part], files[f"{part}_labels"])
    faults.raise_any()
    return scans


def load(data: Idx, scan: FileScan) -> Mapping[str, NDArray[Any]]:
    """The images, (N, 1, height, width) bytes."""
    import numpy as np

    content, (rows, *size) = _read(scan.path, dimensions=3)
    return {data.view: np.frombuffer(bytearray(content), np.uint8).reshape(rows, 1, *size)}


def _refuse_nothing(path: Path) -> None:
    """What is no directory and begins no file's name is told once, not for each file."""
    folder = path.parent
    if path.is_dir() or (folder.is_dir() and any(folder.glob(f"{glob.escape(path.name)}?*"))):
        return
    raise data_error(
        f"no such directory: {path}",
        expected="the directory of the four files, such as train-images-idx3-ubyte.gz, or what "
        "their names begin with",
    )


def _existing(path: Path, part: str, suffix: str) -> Path:
    kind, dimensions = _KINDS[suffix]
    names = [
        f"{stem}-{kind}{mark}idx{dimensions}-ubyte{packed}"
        for stem in _STEMS[part]
        for mark in "-."
        for packed in ("", ".gz")
    ]
    folder, prefix = (path, "") if path.is_dir() else (path.parent, path.name)
    found = next((file for name in names if (file := folder / (prefix + name)).is_file()), None)
    if found is None:
        held = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
        raise data_error(
            f"no file of the {part} part's {kind} in {folder}",
            got=listing(held) if held else "no files" if folder.is_dir() else "no such directory",
            expected=f"{prefix}{names[0]}, packed (.gz) or not",
        )
    return found


def _scan_part(data: Idx, images: Path, labels: Path) -> FileScan:
    with _opened(images) as file:
        rows, *size = _header(file, images, 3)
    classes, _ = _read(labels, dimensions=1)
    if len(classes) != rows:
        raise data_error(
            f"{labels} does not belong to {images}",
            got=f"{len(classes):,} labels",
            expected=f"{rows:,}, one for each image",
        )
    return FileScan(images, {data.view: (1, *size)}, classes)


def _read(path: Path, dimensions: int) -> tuple[bytes, tuple[int, ...]]:
    """All numbers of a file, and their shape."""
    with _opened(path) as file:
        shape = _header(file, path, dimensions)
        # One byte more than there should be, so that a packed file cannot fill the memory.
        content = file.read(min(prod(shape) + 1, sys.maxsize))
    if len(content) != prod(shape):
        found = "more" if len(content) > prod(shape) else f"{len(content):,}"
        raise _damaged(path, f"{found} bytes where {shape} takes {prod(shape):,}")
    return content, shape


def _header(file: BinaryIO, path: Path, dimensions: int) -> tuple[int, ...]:
    zeros, kind, found = struct.unpack(">HBB", file.read(4))
    if zeros != 0:
        raise data_error(f"{path} is not an IDX file", expected="two zero bytes at its beginning")
    if kind != _BYTES or found != dimensions:
        raise data_error(
            f"{path}",
            got=f"{found} dimensions of numbers of type 0x{kind:02x}",
            expected=f"{dimensions} of unsigned bytes (0x{_BYTES:02x})",
        )
    shape: tuple[int, ...] = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
    if 0 in shape[1:]:
        raise _damaged(path, f"images of {' × '.join(map(str, shape[1:]))} pixels")
    return shape


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file's content, unpacked; what is wrong with it comes out as `DataError`."""
    try:
        with open(path, "rb") as packed:
            is_packed = path.suffix == ".gz"
            with gzip.GzipFile(fileobj=packed) if is_packed else nullcontext(packed) as file:
                yield cast("BinaryIO", file)
    except _BROKEN as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise data_error(f"cannot read {path}", got=str(error)) from error


def _damaged(path: Path, why: BaseException | str) -> FaultyDataError:
    return data_error(
        f"{path} is damaged", got=str(why) or type(why).__name__, fix="copy the file again"
    )
