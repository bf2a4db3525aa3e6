"""What one data file turned out to hold, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

Label = int | str


class FileScan(NamedTuple):
    """Header of one file.

    Attributes:
        path: the file.
        views: shape of one sample of each view: (F,) or (channels, height, width).
        labels: class of each row, in the file's order.
    """

    path: Path
    views: Mapping[str, tuple[int, ...]]
    labels: Sequence[Label]
