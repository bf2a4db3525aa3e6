"""Encoded images as arrays of bytes. Pillow is imported inside: it is an extra.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from fusionrun.data.report import data_error

if TYPE_CHECKING:
    from fusionrun.schema.images import Images

Bytes = NDArray[np.uint8]
Encoded = tuple[str, Any]
"""What an error calls an image; and its file, its bytes, or the image as Pillow has it."""

_AT_ONCE: Final = 4096
"""Encoded images that are held at a time, waiting for a thread."""


def decode_all(
    encoded: Iterable[Encoded], rows: int, shape: tuple[int, ...], images: Images
) -> Bytes:
    """Decode images in their order, in as many threads as there are processors.

    Args:
        encoded: the images.
        rows: N, how many.
        shape: (C, H, W) of each.
        images: how they get that shape.

    Returns:
        (N, C, H, W).

    Raises:
        DataError: Pillow is not there; an image cannot be read, or has another size.
    """
    decode = decoder(shape, images)
    pixels = np.empty((rows, *shape), np.uint8)
    source, done = iter(encoded), 0
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        while block := list(islice(source, _AT_ONCE)):
            for image in threads.map(decode, block):
                pixels[done] = image
                done += 1
    return pixels


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
                expected="a whole image",
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
    opened: AbstractContextManager[Any] = pillow.open(source)
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
