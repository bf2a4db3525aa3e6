"""Height and width from an image's first bytes: PNG, JPEG, GIF and BMP. Standard library alone."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from fusionrun.data.report import data_error

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_LONGEST: Final = 1 << 20
"""Where a JPEG's size must have come: thumbnails and colour profiles stand before it."""

_SIZES: Final = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
"""The markers of a JPEG that tell its size, one for each way of coding."""

_BARE: Final = {0x01, *range(0xD0, 0xD9)}
"""The markers of a JPEG that nothing belongs to."""


def size_of_file(path: Path) -> tuple[int, int]:
    """(height, width) of an image file.

    Raises:
        DataError: it cannot be read, or is none of the known kinds.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(_LONGEST)
    except OSError as error:
        raise data_error(f"cannot read {path}", got=str(error)) from error
    return image_size(start, str(path))


def image_size(start: bytes, name: str) -> tuple[int, int]:
    """(height, width) of an image, from its first bytes.

    Args:
        start: a mebibyte, or all of it.
        name: what an error calls the image.

    Raises:
        DataError: it is none of the known kinds, or damaged.
    """
    try:
        size = _size(start)
    except (struct.error, IndexError) as error:
        raise data_error(f"{name} is damaged", got="an image that is cut short") from error
    if size is not None and min(size) < 1:
        raise data_error(f"{name} is damaged", got=f"an image of {size[0]} × {size[1]} pixels")
    if size is None:
        raise data_error(
            f"cannot tell the size of {name}",
            got=f"a file that begins with {start[:8]!r}" if start else "an empty file",
            expected="a PNG, JPEG, GIF or BMP image",
            fix="give the size that all images shall have: images: {size: [height, width]}",
        )
    return size


def _size(start: bytes) -> tuple[int, int] | None:
    if start.startswith(_PNG):
        width, height = struct.unpack(">II", start[16:24])
    elif start[:4] == b"GIF8":
        width, height = struct.unpack("<HH", start[6:10])
    elif start[:2] == b"BM":
        width, height = struct.unpack("<ii", start[18:26])
    elif start[:3] == b"\xff\xd8\xff":
        return _jpeg_size(start)
    else:
        return None
    return abs(height), width


def _jpeg_size(start: bytes) -> tuple[int, int]:
    """The size stands in one of several segments, each of which says how long it is."""
    at = 2
    while True:
        marker = start[at + 1]
        if marker in _SIZES:
            height, width = struct.unpack(">HH", start[at + 5 : at + 9])
            return height, width
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _BARE:
            at += 2
        else:
            at += 2 + struct.unpack(">H", start[at + 2 : at + 4])[0]
