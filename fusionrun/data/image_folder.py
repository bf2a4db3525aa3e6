"""A directory of image files, one directory a class. No numpy but in `load`.

Classes and files stand in the order of their names, whatever order the file system lists them in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fusionrun.data.image_header import size_of_file
from fusionrun.data.labels import numbers_if_all_whole
from fusionrun.data.paths import resolve_path
from fusionrun.data.reading import ALL, key_of
from fusionrun.data.report import Faults, blaming, data_error, listing
from fusionrun.data.scan import FileScan
from fusionrun.data.split import PARTS
from fusionrun.data.tables import named_paths
from fusionrun.schema.splits import OfficialSplit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fusionrun.data.decode import Pictures
    from fusionrun.schema.image_data import ImageFolder

IMAGES: Final = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff"),
)
"""How the names of image files end."""

_FRACTIONS: Final = "split: {train: 0.6, val: 0.2, test: 0.2}"


def find(data: ImageFolder, base_dir: Path) -> dict[str, Path]:
    """The directory of each part, or the one of all rows.

    Raises:
        DataError: one is not there, or parts are taken for classes.
    """
    faults, folders = Faults(), dict[str, Path]()
    for part, path in named_paths(data).items():
        with faults.collected(), blaming(key_of(part)):
            folders[part] = _folder(resolve_path(path, base_dir))
    faults.raise_any()
    if ALL not in folders:
        return folders
    with blaming(key_of(ALL)):
        below = {p: folders[ALL] / p for p in PARTS if (folders[ALL] / p).is_dir()}
        if isinstance(data.split, OfficialSplit):
            return _published(folders[ALL], below)
        return _drawn(folders[ALL], below)


def scan(data: ImageFolder, files: Mapping[str, Path]) -> dict[str, FileScan]:
    """The view and the labels of each part; directories that are all numbers give numbers."""
    faults, found = Faults(), dict[str, tuple[list[str], list[Path]]]()
    for part, folder in files.items():
        with faults.collected(), blaming(key_of(part)):
            found[part] = _classes_and_files(folder)
    faults.raise_any()
    first = next(iter(found.values()))[1][0]
    size = data.images.size or size_of_file(first)
    views = {data.view: data.images.shape(*size)}
    labels = numbers_if_all_whole([names for names, _ in found.values()])
    return {
        part: FileScan(files[part], views, own, origin=paths)
        for (part, (_, paths)), own in zip(found.items(), labels, strict=True)
    }


def load(data: ImageFolder, scan: FileScan) -> Mapping[str, NDArray[Any] | Pictures]:
    """The images, (N, channels, height, width) bytes, in memory or in their files."""
    from fusionrun.data.decode import held

    encoded = [(str(path), path) for path in scan.origin]
    return {data.view: held(encoded, scan.views[data.view], data.images)}


def _folder(path: Path) -> Path:
    if path.is_dir():
        return path
    raise data_error(
        f"{path} is not a directory" if path.exists() else f"no such directory: {path}",
        expected="a directory with one directory of images for each class",
    )


def _published(root: Path, below: Mapping[str, Path]) -> dict[str, Path]:
    if "train" not in below:
        raise data_error(
            f"{root} has no directory 'train'",
            got=listing(sorted(e.name for e in root.iterdir() if e.is_dir())) or "no directories",
            expected="train, and as you have them val and test, with a directory a class each",
            fix=f"where these are the classes, say how to divide them: {_FRACTIONS}",
        )
    return dict(below)


def _drawn(root: Path, below: Mapping[str, Path]) -> dict[str, Path]:
    if "train" in below:
        raise data_error(
            f"{root} has a directory 'train', which would be taken for a class",
            expected="one directory for each class",
            fix="leave data.split out, or give it no more than val: the parts are there",
            blamed=("data", "split"),
        )
    return {ALL: root}


def _classes_and_files(folder: Path) -> tuple[list[str], list[Path]]:
    """The class of each image, and its file."""
    labels, files = list[str](), list[Path]()
    for path in _sorted(folder):
        if path.is_dir():
            own = list(_images(path))
            if not own:
                raise data_error(f"{path} holds no images", expected=f"{listing(IMAGES)}")
            labels += [path.name] * len(own)
            files += own
        elif _is_image(path):
            raise data_error(
                f"{path} belongs to no class",
                expected="images in directories, one for each class",
            )
    if not files:
        raise data_error(f"{folder} is empty", expected="one directory of images for each class")
    return labels, files


def _images(folder: Path) -> Iterator[Path]:
    """The image files of a class, those in directories below it too."""
    for path in _sorted(folder):
        if path.is_dir():
            yield from _images(path)
        elif _is_image(path):
            yield _regular(path)
        else:
            raise data_error(
                f"{path} is no image that is known by its name",
                expected=listing(IMAGES),
                fix="remove it, or give it a name that begins with a dot",
            )


def _regular(path: Path) -> Path:
    """A pipe would keep whoever reads it waiting; a device never ends."""
    if path.is_file():
        return path
    raise data_error(
        f"{path} is no file" if path.exists() else f"{path} leads nowhere",
        expected="an image",
        fix="remove it, or give it a name that begins with a dot",
    )


def _sorted(folder: Path) -> list[Path]:
    """What a directory shows, in the order of names; hidden files are none of the data's."""
    return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]


def _is_image(path: Path) -> bool:
    return path.suffix.casefold() in IMAGES
