"""Reading a pickle that holds nothing but data: arrays, bytes, text, numbers and containers.

A pickle can name any function of any module and have it called. This reader knows the handful of
names that an array is written with, and gives stand-ins for them; it imports nothing, whatever a
file asks for, and refuses the file by the name that it asked for.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple

from fusionrun.data.report import data_error

_BROKEN = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    KeyError,
    ImportError,
    MemoryError,
    OverflowError,
)
"""What comes of a file that is cut short, or is no pickle."""


class PlainArray(NamedTuple):
    """An array as it was written: bytes in rows, in C order."""

    shape: tuple[int, ...]
    content: bytes


def load_plain(path: Path) -> Any:
    """What a pickle holds: an array of bytes, or a dict of them, as `PlainArray`; text of Python 2
    as bytes.

    Raises:
        DataError: it names anything else, is damaged, or cannot be read.
    """
    try:
        content = path.read_bytes()
        _refuse_far_slots(content)
        return _finished(_Reader(content).load())
    except _ForeignError as error:
        raise data_error(
            f"{path} is refused",
            got=f"a pickle that asks for {error}",
            expected="arrays, bytes, text, numbers, lists, tuples and dicts, and nothing else",
            fix="such a file can run any code when it is read: take the binary version, from a "
            "source that you trust",
        ) from error
    except _BROKEN as error:
        raise data_error(
            f"{path} is damaged", got=f"{type(error).__name__}: {error}", fix="copy it again"
        ) from error
    except OSError as error:
        raise data_error(f"cannot read {path}", got=str(error)) from error


_PUTS: Final = {"PUT", "BINPUT", "LONG_BINPUT"}
"""What puts a value into a numbered slot, to be taken from there once more."""


def _refuse_far_slots(content: bytes) -> None:
    """A pickle numbers its slots one after the other. The reader takes memory for all up to the
    highest number: 60 GB for one that a file of a few bytes can ask for.
    """
    for number, (operation, slot, _) in enumerate(pickletools.genops(content)):
        if operation.name in _PUTS and int(slot or 0) > number:
            raise ValueError(f"slot {slot} after {number} operations")


class _ForeignError(Exception):
    """The name of something that is no data."""


class _Array:
    """Stands for an array while its parts come in."""

    def __init__(self) -> None:
        self.value: PlainArray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, content = state
        self.value = _plain_array(content, dtype, shape, is_fortran)


class _Bytes:
    """Stands for the type of an array's numbers: bytes, the only one that is taken."""

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like mean nothing for bytes."""


class _Reader(pickle.Unpickler):
    """An unpickler that finds stand-ins where a file names what an array is made of."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in; never anything that a module holds."""
        found = _stand_ins().get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise _ForeignError(f"{module}.{name}")
        return found

    def persistent_load(self, pid: Any) -> Any:
        """Refuse what stands outside of the file."""
        raise _ForeignError(f"the object {pid!r} of another place")


def _stand_ins() -> Mapping[tuple[str, str], Callable[..., Any]]:
    """New ones each time: a file may set attributes of what it was given."""

    def reconstruct(*_: Any) -> _Array:
        return _Array()

    def frombuffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
        array = _Array()
        array.value = _plain_array(content, dtype, shape, order != "C")
        return array

    def ndarray() -> None:
        raise _ForeignError("an array of its own making")

    def dtype(kind: Any, *_: Any) -> _Bytes:
        if kind not in ("u1", b"u1"):
            raise _ForeignError(f"numbers of type {kind!r}")
        return _Bytes()

    def empty() -> bytes:
        return b""

    def encode(text: str, encoding: str) -> bytes:
        return text.encode("latin-1") if encoding in ("latin1", b"latin1") else text.encode()

    return {
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy.core.numeric", "_frombuffer"): frombuffer,
        ("numpy", "ndarray"): ndarray,
        ("numpy", "dtype"): dtype,
        ("_codecs", "encode"): encode,
        # (what Python 3 writes of b"" in Python 2's protocols)
        ("__builtin__", "bytes"): empty,
    }


def _plain_array(content: Any, dtype: Any, shape: Any, is_fortran: Any) -> PlainArray:
    if not isinstance(dtype, _Bytes) or is_fortran:
        raise ValueError("an array of other numbers than bytes in C order")
    if not isinstance(content, (bytes, bytearray)):  # (`bytes` makes a gigabyte of a number)
        raise ValueError(f"an array whose content is {type(content).__name__}")
    sizes = tuple(int(size) for size in shape)
    if len(content) != prod(sizes):
        raise ValueError(f"{len(content)} bytes for an array of {sizes}")
    return PlainArray(sizes, bytes(content))


def _finished(value: Any) -> Any:
    """The same with every array in its last form: the array itself, or those of a dict."""
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("an array without content")
        return value.value
    if isinstance(value, dict):
        arrays = {key: _finished(item) for key, item in value.items() if isinstance(item, _Array)}
        return {**value, **arrays}
    return value
