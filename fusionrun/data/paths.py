"""From what a recipe calls a file to the file itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from fusionrun import datasets
from fusionrun.data.report import data_error, listing
from fusionrun.nearest import did_you_mean

PACKAGE: Final = "package:"


def resolve_path(path: str, base_dir: Path) -> Path:
    """The absolute path that a recipe means; the file need not exist, unless it ships.

    Args:
        path: relative to `base_dir`, absolute, from `~`, or `package:NAME`.
        base_dir: the recipe's directory.

    Symbolic links are kept: on a cluster the name a user writes is the one that every node
    knows, while the target may be an automounter's.

    Raises:
        DataError: `package:NAME` with a name that does not ship.
    """
    if not path.startswith(PACKAGE):
        return (base_dir / os.path.expanduser(path)).absolute()
    name = path.removeprefix(PACKAGE)
    if name not in datasets.shipped():
        raise data_error(
            "no data set of that name ships with fusionrun",
            got=repr(path),
            expected=listing(PACKAGE + known for known in datasets.shipped()),
            fix=did_you_mean(path, [PACKAGE + known for known in datasets.shipped()]),
        )
    return datasets.path_of(name)


def require_file(path: Path) -> None:
    """Refuse a path that is not a file, naming the nearest that exists.

    Raises:
        DataError: nothing is there, or something that is not a file.
    """
    if path.is_file():
        return
    if path.exists():
        raise data_error(f"{path} is not a file", expected="the path of one data file")
    raise data_error(f"no such file: {path}", fix=_nearest(path))


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        existing = next(parent for parent in path.parents if parent.is_dir())
        return f"the directory {path.parent} does not exist; {existing} does"
    names = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file())
    here = f"{path.parent} holds {listing(names) if names else 'no files'}"
    return did_you_mean(path.name, names) or here
