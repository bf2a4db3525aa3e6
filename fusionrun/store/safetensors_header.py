"""What a safetensors file holds, read from its header alone. No torch, no safetensors.

The format (huggingface.co/docs/safetensors): 8 bytes, little-endian, the header's length; the
header, a JSON object of tensor name → {dtype, shape, data_offsets} with a `__metadata__` of text to
text; the tensors' bytes, in which the offsets tile every byte exactly once. All of it is checked,
so whoever gets a `Header` may trust its numbers.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, BinaryIO, Final

from fusionrun.errors import ComponentError, Problem

__all__ = ["Header", "TensorInfo", "parse_header", "read_header", "sha256"]

MAX_HEADER_BYTES: Final = 100_000_000
"""The format's own bound, checked before anything of that size is read."""

MAX_DIMENSIONS: Final = 64
"""More than any tensor has; the product of a million sizes would take hours."""

LENGTH_BYTES: Final = 8

# Bits, since the smallest types do not fill a byte.
_BITS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E5M2", "F8_E4M3", "F8_E5M2FNUZ", "F8_E4M3FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}

_TORCHS: Final = (b"PK\x03\x04", b"\x80\x02\x8a")
"""How a file of torch.save begins: a zip archive, or before torch 1.6 a pickle."""

_FIX: Final = "The file is damaged or not safetensors: copy or export it again."


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the header tells of it.

    Attributes:
        dtype: the format's own word, such as `F32` or `BF16`.
        shape: empty for a single number.
        offsets: first byte and the one after the last, counted from the end of the header.
    """

    dtype: str
    shape: tuple[int, ...]
    offsets: tuple[int, int]


@dataclass(frozen=True)
class Header:
    """A header that was found whole and consistent with the file's size.

    Attributes:
        tensors: by name, in the header's order.
        metadata: text to text.
        header_bytes: where the tensors' bytes begin: the length's 8 bytes and the JSON.
    """

    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    header_bytes: int


def read_header(path: Path) -> Header:
    """Reads and checks a file's header, and nothing of its tensors.

    Raises:
        ComponentError: there is no such file, or it is not whole and sound.
    """
    try:
        with open_component(path) as file:
            return _parse(file, os.fstat(file.fileno()).st_size, str(path))
    except OSError as error:
        raise unreadable(path, error) from error


def parse_header(data: bytes, where: str) -> Header:
    """Like `read_header`, for a whole file that is in memory; `where` names it in errors."""
    return _parse(io.BytesIO(data), len(data), where)


def sha256(path: Path) -> str:
    """A file's SHA-256 in hexadecimal. Raises ComponentError when it cannot be read."""
    try:
        with open_component(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, error) from error


def open_component(path: Path) -> io.BufferedReader:
    """Opens a regular file for reading; a pipe or a device would block or never end.

    Raises:
        ComponentError: there is no such file.
        OSError: it cannot be opened.
    """
    if not path.is_file():
        got = "not a regular file" if path.exists() else "no such file"
        raise ComponentError(Problem(None, str(path), got, "a safetensors file"))
    return path.open("rb")


def unreadable(path: Path, error: OSError) -> ComponentError:
    """The error for a file that the system would not let us read."""
    got = error.strerror or str(error)
    return ComponentError(Problem(None, str(path), got, "a file that can be read"))


def _damaged(where: str, got: str, expected: str) -> ComponentError:
    return ComponentError(Problem(None, where, got, expected, _FIX))


def _parse(file: BinaryIO, size: int, where: str) -> Header:
    length = _header_length(file, size, where)
    raw = _json_object(file.read(length), where)
    metadata = _metadata(raw.pop("__metadata__", {}), where)
    tensors = {name: _tensor(name, entry, where) for name, entry in raw.items()}
    _check_tiling(tensors, size - LENGTH_BYTES - length, where)
    return Header(tensors, metadata, LENGTH_BYTES + length)


def _header_length(file: BinaryIO, size: int, where: str) -> int:
    if size < LENGTH_BYTES:
        raise _damaged(where, f"a file of {size} bytes", "at least 8, the header's length")
    first = file.read(LENGTH_BYTES)
    length = int.from_bytes(first, "little")
    if length > MAX_HEADER_BYTES and first.startswith(_TORCHS):
        got, expected = "what torch.save writes: a pickle, which is not read", "a safetensors file"
        fix = f"`fusionrun convert {quote(where)} -o FILE.safetensors` makes one of it."
        raise ComponentError(Problem(None, where, got, expected, fix).render())
    if length > MAX_HEADER_BYTES:
        raise _damaged(where, f"a header of {length} bytes", f"at most {MAX_HEADER_BYTES}")
    if length > size - LENGTH_BYTES:
        got = f"a header of {length} bytes in a file of {size}"
        raise _damaged(where, got, f"at most {size - LENGTH_BYTES}")
    return length


def _json_object(text: bytes, where: str) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise _damaged(where, f"a header that begins {text[:16]!r}", "one that begins with {")
    try:
        value = json.loads(text.decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _damaged(where, f"a header that is not JSON: {error}", "JSON in UTF-8") from error
    return dict(value)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("one name stands twice")
    return unique


def _metadata(raw: object, where: str) -> dict[str, str]:
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise _damaged(where, "a __metadata__ that is not", "a mapping of text to text")
    return raw


def _tensor(name: str, entry: object, where: str) -> TensorInfo:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end], **rest}:
            if len(shape) > MAX_DIMENSIONS:
                got = f"tensor {name!r} of {len(shape):,} dimensions"
                raise _damaged(where, got, f"at most {MAX_DIMENSIONS}")
            if not rest and all(_is_size(number) for number in (*shape, begin, end)):
                info = TensorInfo(dtype, tuple(shape), (begin, end))
                _check_length(name, info, where)
                return info
    expected = "dtype (text), shape (sizes) and data_offsets (begin, end)"
    raise _damaged(where, f"tensor {name!r} described by {_short(entry)}", expected)


def _is_size(number: object) -> bool:
    return type(number) is int and 0 <= number < 2**63  # True is an int, and no size


def _check_length(name: str, info: TensorInfo, where: str) -> None:
    if info.dtype not in _BITS:
        known = ", ".join(_BITS)
        raise _damaged(where, f"tensor {name!r} of type {info.dtype!r}", f"one of {known}")
    begin, end = info.offsets
    bits = math.prod(info.shape) * _BITS[info.dtype]
    if bits != 8 * (end - begin):
        # The wanted number of bytes is left out: of a hostile shape it can be too long to print.
        expected = f"what {info.dtype} of shape {_short(list(info.shape))} takes"
        raise _damaged(where, f"tensor {name!r} in {end - begin} bytes", expected)


def _check_tiling(tensors: Mapping[str, TensorInfo], size: int, where: str) -> None:
    """Whether the tensors fill `size` bytes without gap or overlap."""
    position = 0
    for name, info in sorted(tensors.items(), key=lambda item: item[1].offsets):
        begin, end = info.offsets
        if begin != position:
            got = f"tensor {name!r} from byte {begin}"
            kind = "it overlaps the one before" if begin < position else "bytes of no tensor"
            raise _damaged(where, f"{got}: {kind}", f"byte {position}")
        position = end
    if position != size:
        got = f"{size} bytes of tensors"
        kind = "cut short" if size < position else f"{size - position} trailing bytes"
        raise _damaged(where, f"{got}: {kind}", f"{position} bytes")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "…"
