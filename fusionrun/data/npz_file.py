"""Header of a NumPy archive, read by hand: no numpy, and never pickle.

An `.npz` is a zip of `.npy` members: a magic word, a Python literal with type and shape, then
the numbers (NumPy's format specification, NEP 1). Of the views only that header is read; the
labels are read whole, so their checksum is verified here, and the views' when they are loaded.
"""

from __future__ import annotations

import ast
import re
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from fusionrun.data.columns import LABEL, label_in_view, require_label, view_key
from fusionrun.data.labels import as_classes
from fusionrun.data.report import Faults, blaming, data_error, listing
from fusionrun.data.scan import FileScan, Label
from fusionrun.errors import DataError
from fusionrun.nearest import did_you_mean
from fusionrun.schema.data import Npz

_MAGIC: Final = b"\x93NUMPY"
_PLAIN: Final = re.compile(r"[<>|=](b1|[iu][1248]|f(2|4|8|12|16)|[US][0-9]{1,9})")
"""Types that are nothing but numbers or text of a fixed width."""

_PACKED: Final = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
"""How numpy packs an array → the most that one byte can unpack to (zlib's "Technical Details").
zipfile unpacks other methods in pieces of no limited size."""

MOST_LABEL_BYTES: Final = 1 << 30
MOST_ROWS: Final = 100_000_000
"""Labels are read whole to plan, so a small file must not grow without bound; assumed."""

_LONGEST_HEADER: Final = 10_000
"""As numpy's own limit: `literal_eval` on more could exhaust memory."""

_INTEGER_CODES: Final = {"i1": "b", "i2": "h", "i4": "i", "i8": "q"}
_NUMBER_CODES: Final = {
    **_INTEGER_CODES,
    **{f"u{kind[1]}": code.upper() for kind, code in _INTEGER_CODES.items()},
    "b1": "?",
    "f2": "e",
    "f4": "f",
    "f8": "d",
}
"""NumPy's kind and size → the letter of `struct`."""

BROKEN: Final = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, struct.error)
"""What zipfile raises for a member that is damaged, encrypted, or packed in an unknown way."""

_NO_LITERAL: Final = (ValueError, SyntaxError, MemoryError, RecursionError, KeyError, TypeError)
"""What comes of a header that is not a Python literal, or not the one it should be."""


class ArrayHeader(NamedTuple):
    """Type and shape of one array of an archive.

    Attributes:
        name: the array's name.
        dtype: as numpy writes it: byte order, kind, size, such as `<f4`.
        shape: of the whole array, rows first.
        num_header_bytes: what stands before the numbers.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    num_header_bytes: int

    @property
    def kind(self) -> str:
        """numpy's letter for the kind of number, and the size of one in bytes: `f4`."""
        return self.dtype[1:]

    @property
    def num_data_bytes(self) -> int:
        """Size of the numbers."""
        size = int(self.kind[1:]) * (4 if self.kind[0] == "U" else 1)
        return size * prod(self.shape)


def scan_npz(path: Path, data: Npz) -> FileScan:
    """Views and labels of an archive.

    Raises:
        DataError: not an archive, damaged, or without the arrays that the recipe asks for.
    """
    try:
        try:
            with zipfile.ZipFile(path) as archive:
                return _scan(archive, path, data)
        except zipfile.BadZipFile as error:
            raise _no_archive(path) from error
    except OSError as error:
        raise data_error(f"cannot read {path}", got=str(error)) from error


def arrays_by_view(
    data: Npz, names: Sequence[str], path: Path, likely_labels: Collection[str] = ()
) -> Mapping[str, str]:
    """View → array name.

    Args:
        data: the recipe's section.
        names: the archive's arrays.
        path: the archive.
        likely_labels: the arrays that can be labels; an error offers them first.

    Raises:
        DataError: no label, an array that is not there, or a view that is the label.
    """
    faults = Faults()
    with faults.collected():
        require_label(data.label, names, path, "array", likely_labels)
    for view, name in (data.views or {}).items():
        with faults.collected():
            _require_array(view, name, data.label, names, path)
    faults.raise_any()
    return data.views or {name: name for name in names if name != data.label}


def _require_array(view: str, name: str, label: str, names: Sequence[str], path: Path) -> None:
    if name not in names:
        raise data_error(
            f"data.views.{view}: no array of that name in {path}",
            got=repr(name),
            expected=f"one of {listing(names)}",
            fix=did_you_mean(name, names),
            blamed=view_key(view),
        )
    if name == label:
        raise label_in_view(view, name, path)


def damaged(path: Path, name: str, error: BaseException | str) -> Exception:
    """The error for an array that cannot be read back."""
    return data_error(
        f"the array '{name}' of {path} is damaged",
        got=str(error),
        fix="copy the file again, or write it again",
    )


def _scan(archive: zipfile.ZipFile, path: Path, data: Npz) -> FileScan:
    names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
    likely = () if data.label in names else _likely_labels(archive, names, path)
    sources = arrays_by_view(data, names, path, likely)
    with blaming(LABEL):
        labels = _labels(archive, path, data.label)
    faults, views = Faults(), dict[str, tuple[int, ...]]()
    for view, name in sources.items():
        with faults.collected(), blaming(view_key(view) if data.views else ()):
            header = _header(archive, path, name)
            _require_rows(header, len(labels), data, path)
            views[view] = _sample_shape(header, path)
    faults.raise_any()
    return FileScan(path, views, labels)


def _likely_labels(archive: zipfile.ZipFile, names: Sequence[str], path: Path) -> list[str]:
    """The arrays of one class a row; those that cannot be read are not among them."""
    likely = []
    for name in names:
        with suppress(DataError):
            header = _header(archive, path, name)
            if len(header.shape) == 1 or header.shape[1:] == (1,):
                likely.append(name)
    return likely


def _header(archive: zipfile.ZipFile, path: Path, name: str) -> ArrayHeader:
    info = archive.getinfo(f"{name}.npy")
    _refuse_bomb(info, path, name)
    try:
        with archive.open(info) as member:
            header = _read_header(member, name)
    except (*BROKEN, *_NO_LITERAL) as error:
        raise damaged(path, name, error) from error
    _require_plain(header, path)
    if header.num_header_bytes + header.num_data_bytes != info.file_size:
        held = info.file_size - header.num_header_bytes
        raise damaged(
            path, name, f"{held:,} bytes where {header.shape} takes {header.num_data_bytes:,}"
        )
    return header


def _refuse_bomb(info: zipfile.ZipInfo, path: Path, name: str) -> None:
    """What a member claims to unpack to, checked before any of it is unpacked."""
    most = _PACKED.get(info.compress_type)
    if most is None:
        raise damaged(path, name, f"the zip method {info.compress_type}, which numpy never writes")
    if info.file_size > most * (info.compress_size + 1):
        got = f"{info.compress_size:,} bytes that claim to unpack to {info.file_size:,}"
        raise damaged(path, name, got)


def _read_header(member: IO[bytes], name: str) -> ArrayHeader:
    """Type and shape from the start of a member.

    Raises:
        ValueError, SyntaxError, struct.error: that is not how an array begins.
    """
    start = member.read(8)
    if start[:6] != _MAGIC:
        raise ValueError("it does not begin as a NumPy array does")
    width, code = (2, "<H") if start[6] == 1 else (4, "<I")
    (length,) = struct.unpack(code, member.read(width))
    if length > _LONGEST_HEADER:
        raise ValueError(f"a header of {length:,} bytes")
    fields = ast.literal_eval(member.read(length).decode("latin-1").strip())
    dtype, shape = _type_and_shape(fields)
    return ArrayHeader(name, dtype, shape, 8 + width + length)


def _type_and_shape(fields: Any) -> tuple[str, tuple[int, ...]]:
    shape, descr = fields["shape"], fields["descr"]
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"the shape {shape!r}")
    return (descr if isinstance(descr, str) else "records"), shape


def _require_plain(header: ArrayHeader, path: Path) -> None:
    if not _PLAIN.fullmatch(header.dtype):
        kind = "Python objects" if header.dtype == "|O" else header.dtype
        raise data_error(
            f"the array '{header.name}' of {path}",
            got=f"an array of {kind}",
            expected="numbers (objects would need pickle, which can run any code)",
            fix="save it as a plain array, or leave it out of data.views",
        )


def _require_rows(header: ArrayHeader, rows: int, data: Npz, path: Path) -> None:
    if header.kind[0] in "US":
        raise data_error(
            f"the array '{header.name}' of {path}",
            got="text",
            expected="numbers, one row a sample",
            fix="leave it out of data.views" if data.views else "list the views in data.views",
        )
    if not header.shape or header.shape[0] != rows:
        raise data_error(
            f"the array '{header.name}' of {path} does not fit the labels",
            got=f"shape {header.shape}",
            expected=f"{rows} rows, as many as '{data.label}' has",
            fix="" if data.views else "if it is no view, list those that are in data.views",
        )


def _sample_shape(header: ArrayHeader, path: Path) -> tuple[int, ...]:
    sample = header.shape[1:]
    if len(sample) > 3 or 0 in sample:
        raise data_error(
            f"the array '{header.name}' of {path}",
            got=f"shape {header.shape}",
            expected="(rows, features), (rows, height, width) or (rows, channels, height, width)",
        )
    return {0: (1,), 2: (1, *sample)}.get(len(sample), sample)


def _labels(archive: zipfile.ZipFile, path: Path, name: str) -> Sequence[Label]:
    header = _header(archive, path, name)
    if header.shape[1:] not in {(), (1,)} or not header.shape:
        raise data_error(
            f"the labels '{name}' of {path}",
            got=f"shape {header.shape}",
            expected="(rows,): one class a row",
            fix="take the argmax of one-hot labels" if len(header.shape) == 2 else "",
        )
    _refuse_endless(header, path)
    try:
        raw = archive.read(f"{name}.npy")[header.num_header_bytes :]
        values = _decode(raw, header)
    except (*BROKEN, UnicodeDecodeError) as error:
        raise damaged(path, name, error) from error
    except KeyError as error:
        raise data_error(
            f"the labels '{name}' of {path}",
            got=f"numbers of type {header.dtype}",
            expected="integers, truth values, whole floats of at most 8 bytes, or text",
        ) from error
    return as_classes(values, f"the labels '{name}' of {path}")


def _refuse_endless(header: ArrayHeader, path: Path) -> None:
    if header.num_data_bytes > MOST_LABEL_BYTES or header.shape[0] > MOST_ROWS:
        raise data_error(
            f"the labels '{header.name}' of {path}",
            got=f"{header.shape[0]:,} rows in {header.num_data_bytes:,} bytes",
            expected=f"at most {MOST_ROWS:,} rows and {MOST_LABEL_BYTES:,} bytes",
            fix="check data.label; small integers take the least room",
        )


def _decode(raw: bytes, header: ArrayHeader) -> list[Any]:
    order = ">" if header.dtype[0] == ">" else "<"
    if header.kind[0] in "US":
        return _decode_text(raw, header, order)
    code = _NUMBER_CODES[header.kind]
    return list(struct.unpack(f"{order}{header.shape[0]}{code}", raw))


def _decode_text(raw: bytes, header: ArrayHeader, order: str) -> list[str]:
    """Text of a fixed width, padded with zeros: 4 bytes a character for U, 1 for S."""
    size = len(raw) // header.shape[0] if header.shape[0] else 0
    encoding = ("utf-32-le" if order == "<" else "utf-32-be") if header.kind[0] == "U" else "utf-8"
    cells = (raw[size * row : size * (row + 1)] for row in range(header.shape[0]))
    if header.kind[0] == "S":
        return [cell.rstrip(b"\0").decode(encoding) for cell in cells]
    return [cell.decode(encoding).rstrip("\0") for cell in cells]


def _no_archive(path: Path) -> Exception:
    with open(path, "rb") as file:
        is_array = file.read(6) == _MAGIC
    return data_error(
        f"{path} is not a NumPy archive",
        got="a single array (.npy)" if is_array else "no zip file, or one that is cut short",
        expected="an .npz file",
        fix="numpy.savez_compressed(path, name=array, label=labels) writes one",
    )
