"""Small image data sets, written in the true formats."""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Sequence
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


def write_cifar10(folder: Path, version: str = "bin", rows: int = 20) -> Bytes:
    """Five training batches and a test batch; returns the training images."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = [row % 10 for row in range(rows)]
    batches = [images(rows, 3, 32, 32, seed=number) for number in range(6)]
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for name, pixels in zip(names, batches, strict=True):
        if version == "bin":
            write_rows(folder / f"{name}.bin", [labels], pixels)
        else:
            held = {b"batch_label": name.encode(), b"labels": labels, b"data": flat(pixels)}
            write_python2(folder / name, held)
    return np.concatenate(batches[:5])


def write_cifar100(folder: Path, version: str = "bin", rows: int = 200) -> Bytes:
    """A training and a test file of fine and coarse labels; returns the training images."""
    folder.mkdir(parents=True, exist_ok=True)
    fine = [row % 100 for row in range(rows)]
    coarse = [label // 5 for label in fine]
    for name, seed in (("train", 0), ("test", 1)):
        pixels = images(rows, 3, 32, 32, seed=seed)
        if version == "bin":
            write_rows(folder / f"{name}.bin", [coarse, fine], pixels)
        else:
            held = {b"fine_labels": fine, b"coarse_labels": coarse, b"data": flat(pixels)}
            write_python2(folder / name, held)
    return images(rows, 3, 32, 32, seed=0)


def flat(pixels: Bytes) -> Bytes:
    """A row for each image."""
    return pixels.reshape(len(pixels), -1)


def write_rows(path: Path, labels: Sequence[Sequence[int]], pixels: Bytes) -> None:
    """CIFAR's binary version: the labels, then the pixels, of each row."""
    columns = [np.array(column, np.uint8)[:, None] for column in labels]
    path.write_bytes(np.hstack([*columns, flat(pixels)]).tobytes())


def write_python2(path: Path, held: object) -> None:
    """A pickle of protocol 2, in which numpy is called as it was in the days of Python 2."""
    content = pickle.dumps(held, protocol=2)
    path.write_bytes(content.replace(b"cnumpy._core.", b"cnumpy.core."))
