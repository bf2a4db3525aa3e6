"""What a data set's files hold, as one hash each: does a run go on with the data it began with?

No numpy: asked for before a run is made, too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from fusionrun.data.reading import ROOT
from fusionrun.data.report import data_error
from fusionrun.regular import open_regular

MOST_BYTES: Final = 256 << 20
"""A directory of more is not read through: at a gigabyte a second that would delay every start."""

_BLOCK_BYTES: Final = 1 << 20


def content_hash(files: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of each file's bytes, as hexadecimal text, by the keys of `files`.

    Of a directory: of the names and bytes of all files below it; where they come to more than
    `MOST_BYTES`, of their names and sizes, which a copy keeps (as it does not keep dates). A
    directory that holds other things too has none.

    Raises:
        DataError: a file cannot be read.
    """
    return {part: _hash(Path(path)) for part, path in files.items() if part != ROOT}


def _hash(path: Path) -> str:
    try:
        return _folder_hash(path) if path.is_dir() else _sha256(path)
    except OSError as error:
        raise data_error(f"cannot read {path}", got=str(error)) from error


def _folder_hash(folder: Path) -> str:
    files = [(path, os.stat(path).st_size) for path in _below(folder)]
    is_read = sum(size for _, size in files) <= MOST_BYTES
    digest = hashlib.sha256()
    for path, size in files:
        name = os.path.relpath(path, folder)
        held = _sha256(Path(path)) if is_read else str(size)
        digest.update(f"{name}\0{held}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _below(folder: Path) -> Iterator[str]:
    """Every file below a directory, in the order of names."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (os.path.join(root, name) for name in sorted(names))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
