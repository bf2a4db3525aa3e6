"""Encoded images as arrays of bytes. Pillow is imported inside: it is an extra.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fusionrun.data.free_memory import free_bytes
from fusionrun.data.report import data_error, listing
from fusionrun.schema.base import AUTO

if TYPE_CHECKING:
    from fusionrun.schema.images import Images

Bytes = NDArray[np.uint8]
Encoded = tuple[str, Any]
"""What an error calls an image; and its file, its bytes, or the image as Pillow has it."""

_MOST_SHARE: Final = 0.5
"""Of the free memory, for one part: while rows are taken from it, it is there twice."""

_FORMATS: Final = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
"""What is decoded, whatever a file is called: Pillow hands some others to programs (PostScript)."""

_BLOCK_ROWS: Final = 1024
"""Images that are decoded at a time where all of them are asked for."""


class Pictures:
    """Encoded images that look like an array (N, C, H, W) of bytes, decoded when they are taken.

    Args:
        encoded: the images.
        shape: (C, H, W) of each.
        images: how they get that shape.

    Raises:
        DataError: Pillow is not there.
    """

    dtype: Final = np.dtype(np.uint8)
    ndim: Final = 4

    def __init__(self, encoded: Sequence[Encoded], shape: tuple[int, ...], images: Images) -> None:
        self._encoded, self._images = encoded, images
        self.shape = (len(encoded), *shape)
        self._decode = decoder(shape, images)

    def __len__(self) -> int:
        return len(self._encoded)

    @property
    def nbytes(self) -> int:
        """What they take when they are decoded."""
        return prod(self.shape)

    def take(self, rows: Iterable[int]) -> Pictures:
        """Some of them, in this order, still encoded."""
        return Pictures([self._encoded[row] for row in rows], self.shape[1:], self._images)

    def decoded(self, rows: Sequence[int], threads: Executor) -> Bytes:
        """Some of them, (B, C, H, W): an image is a function of its row alone, so that the number
        of threads changes nothing.

        Raises:
            DataError: an image cannot be read, or has another size.
        """
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)
        encoded = (self._encoded[row] for row in rows)
        for place, image in enumerate(threads.map(self._decode, encoded)):
            pixels[place] = image
        return pixels

    def blocks(self) -> Iterator[Bytes]:
        """All of them, in pieces, in order."""
        with ThreadPoolExecutor(num_processors()) as threads:
            for start in range(0, len(self), _BLOCK_ROWS):
                rows = range(start, min(start + _BLOCK_ROWS, len(self)))
                yield self.decoded(rows, threads)


def num_processors() -> int:
    """The processors that this process may use: a batch system gives it some of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def decode_all(pictures: Pictures) -> Bytes:
    """All images, (N, C, H, W).

    Raises:
        DataError: an image cannot be read, or has another size.
    """
    pixels, done = np.empty(pictures.shape, np.uint8), 0
    for block in pictures.blocks():
        pixels[done : done + len(block)] = block
        done += len(block)
    return pixels


def held(encoded: Sequence[Encoded], shape: tuple[int, ...], images: Images) -> Bytes | Pictures:
    """Images as bytes in memory, or encoded as they are: as the recipe says, or as they fit."""
    pictures = Pictures(encoded, shape, images)
    wanted = images.in_memory
    if wanted == AUTO:
        free = free_bytes()
        wanted = free is None or pictures.nbytes <= _MOST_SHARE * free
    return decode_all(pictures) if wanted else pictures


def decoder(shape: tuple[int, ...], images: Images) -> Callable[[Encoded], Bytes]:
    """What makes (C, H, W) bytes of an image.

    Raises:
        DataError: Pillow is not there.
    """
    pillow = _pillow()

    def decode(encoded: Encoded) -> Bytes:
        name, content = encoded
        try:
            with _opened(content, pillow) as file:
                _require_bytes(file.mode, name)
                image = file.convert("L" if images.channels == 1 else "RGB")
        except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
            raise data_error(
                f"cannot read the image {name}",
                got=str(error),
                expected=f"a whole image: {listing(_FORMATS)}",
                fix="copy it again, or remove it",
            ) from error
        fitted = image if images.size is None else _fitted(image, images)
        if (fitted.height, fitted.width) != shape[1:]:
            raise _of_another_size(name, fitted, shape)
        pixels = np.asarray(fitted)
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)

    return decode


def _opened(content: Path | bytes | Any, pillow: Any) -> AbstractContextManager[Any]:
    if isinstance(content, pillow.Image):
        return nullcontext(content)
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    opened: AbstractContextManager[Any] = pillow.open(source, formats=_FORMATS)
    return opened


def _require_bytes(mode: str, name: str) -> None:
    """Pillow would cut what is above 255 off, without a word."""
    if mode.startswith(("I", "F")):
        raise data_error(
            f"the image {name}",
            got=f"more than eight bits a channel (mode {mode})",
            expected="eight bits a channel",
            fix="convert it, or give its numbers as an array in an .npz file",
        )


def _fitted(image: Any, images: Images) -> Any:
    """The image in the recipe's size, averaged where it gets smaller."""
    from PIL import Image, ImageOps

    height, width = images.size or (image.height, image.width)
    if images.fit == "stretch":
        return image.resize((width, height), Image.Resampling.BILINEAR)
    return ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)


def _of_another_size(name: str, image: Any, shape: tuple[int, ...]) -> Exception:
    return data_error(
        f"the image {name} has another size than the first one",
        got=f"{image.height} × {image.width} (height × width)",
        expected=f"{shape[1]} × {shape[2]}",
        fix=f"give all of them one size: images: {{size: [{shape[1]}, {shape[2]}], fit: crop}}",
        blamed=("data", "images"),
    )


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise data_error(
            "encoded images need Pillow, which is not installed",
            fix="pip install 'fusionrun[images]'",
        ) from error
    return Image
