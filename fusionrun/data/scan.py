"""What one data file turned out to hold, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Label = int | str


@dataclass(frozen=True)
class FileScan:
    """Header of one file.

    Attributes:
        path: the file.
        views: shape of one sample of each view: (F,) or (channels, height, width).
        labels: class of each row, in the file's order.
    """

    path: Path
    views: Mapping[str, tuple[int, ...]]
    labels: Sequence[Label]
