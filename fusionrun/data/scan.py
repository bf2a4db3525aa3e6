"""What one data file, or one part of a data set, turned out to hold, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Label = int | str


class FileScan(NamedTuple):
    """Header of one file.

    Attributes:
        path: the file, or the directory.
        views: shape of one sample of each view: (F,) or (channels, height, width).
        labels: class of each row, in the file's order.
        origin: where the rows are, for who loads them, in the format's own words.
    """

    path: Path
    views: Mapping[str, tuple[int, ...]]
    labels: Sequence[Label]
    origin: Any = None
