"""Small image data sets, written in the true formats."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def images(rows: int, *shape: int, seed: int = 0) -> Bytes:
    """Noise: (rows, *shape)."""
    return np.random.default_rng(seed).integers(0, 256, (rows, *shape), dtype=np.uint8)


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    """One IDX file of bytes; packed where its name ends in .gz."""
    content = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    content += values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_mnist(folder: Path, train: int = 60, test: int = 20, packed: str = ".gz") -> None:
    """The four files of an MNIST of ten classes, 8 × 10 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, rows in (("train", train), ("t10k", test)):
        write_idx(folder / f"{stem}-images-idx3-ubyte{packed}", images(rows, 8, 10, seed=rows))
        labels = (np.arange(rows) % 10).astype(np.uint8)
        write_idx(folder / f"{stem}-labels-idx1-ubyte{packed}", labels)
