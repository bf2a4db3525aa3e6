"""Small files that ask for large memory are refused before any of it is taken.

Each is read by a process of its own that may have no more than `MEMORY`.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MEMORY = 600 << 20
PROGRAM = """\
import resource, sys
from pathlib import Path
from fusionrun.data.header import read_summary
from fusionrun.data.plain_pickle import load_plain
from fusionrun.errors import FusionrunError
from fusionrun.schema.data import Npz
from fusionrun.store.manifest import read_manifest
from fusionrun.store.safetensors_header import parse_header, read_header, sha256

resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))
path = Path(sys.argv[1])
try:
    print({call})
except FusionrunError as error:
    print(f"refused: {{error}}")
"""
HEADER = "read_header(path)"
PICKLE = "load_plain(path)"
ARCHIVE = "read_summary(Npz(source='npz', path=str(path), label='label'), path.parent)"


def read(path: Path, call: str, memory: int = MEMORY) -> str:
    """What a process with little memory says of a file; it must not end by a traceback."""
    program = PROGRAM.format(memory=memory, call=call)
    argv = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-2000:]
    return done.stdout


def refused(path: Path, call: str) -> str:
    said = read(path, call)
    assert said.startswith("refused: ")
    return said


# ------------------------------------------------------------------ safetensors


def safetensors(path: Path, header: dict[str, Any], size: int = 0) -> Path:
    """A file with a header and `size` bytes of nothing, which take no room on the disk."""
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)
    return path


def tensor(shape: list[int], end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


def test_the_memory_of_these_tests_is_limited(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(AssertionError, match="MemoryError"):
        read(tmp_path / "x", f"len(bytes({MEMORY}))")


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 10**12, 100_000_001])
def test_a_headers_length_is_checked_before_it_is_read(tmp_path: Path, length: int) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(1 << 42)
    assert f"a header of {length} bytes" in refused(tmp_path / "x", HEADER)


def test_the_longest_header_is_read_and_no_more(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.write((100_000_000).to_bytes(8, "little"))
        file.truncate(1 << 42)
    assert "a header that begins" in refused(tmp_path / "x", HEADER)


@pytest.mark.parametrize(
    "shape", [[2**62], [2**32, 2**32], [2**62] * 64, [10**9, 10**9, 10**9], [1] * 100_000]
)
def test_a_shape_that_the_file_does_not_hold_takes_no_memory(
    tmp_path: Path, shape: list[int]
) -> None:
    path = safetensors(tmp_path / "x", tensor(shape, 4), 4)
    assert "tensor 'x' " in refused(path, HEADER)


def test_a_huge_file_with_a_sound_header_is_not_read_to_be_understood(tmp_path: Path) -> None:
    size = 1 << 42
    path = safetensors(tmp_path / "x", tensor([size // 4], size), size)
    assert f"shape=({size // 4},)" in read(path, HEADER)


def test_huge_weights_that_do_not_fit_are_refused_by_their_shape(tmp_path: Path) -> None:
    size = 1 << 42
    path = safetensors(tmp_path / "x", tensor([size // 4], size), size)
    call = (
        "__import__('fusionrun.store.fit').store.fit.check_fit("
        "read_header(path), {'x': ('F32', (3,))}, 'x')"
    )
    assert "needed is F32 [3]" in refused(path, call)


# ------------------------------------------------------------------ npz


def npy(dtype: str, shape: tuple[int, ...], length: int | None = None) -> bytes:
    """How an array begins: of format 2, whose header may claim gigabytes."""
    text = str({"descr": dtype, "fortran_order": False, "shape": shape}).encode("latin-1") + b"\n"
    counted = struct.pack("<I", len(text) if length is None else length)
    return b"\x93NUMPY\x02\x00" + counted + text


def deflated(start: bytes, zeros: int) -> bytes:
    """`start` and many zeros, packed: the same packed piece over and over."""
    piece = 16 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    each = packer.compress(bytes(piece)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = packer.compress(bytes(zeros % piece)) + packer.flush(zlib.Z_FINISH)
    return first + each * (zeros // piece) + rest


def archive(path: Path, members: dict[str, tuple[bytes, int, int]]) -> Path:
    """A zip file by hand. Of each member: its packed bytes, the size it claims, the method."""
    body, index, beyond = b"", b"", 2**32 - 1
    for name, (packed, size, method) in members.items():
        raw, wide = f"{name}.npy".encode(), struct.pack("<HHQ", 1, 8, size)
        sizes = struct.pack("<IIIHH", zlib.crc32(packed), len(packed), beyond, len(raw), len(wide))
        fields = struct.pack("<HHHHH", 45, 0, method, 0, 0) + sizes
        place = struct.pack("<HHHII", 0, 0, 0, 0, len(body))
        index += b"PK\x01\x02" + struct.pack("<H", 45) + fields + place + raw + wide
        body += b"PK\x03\x04" + fields + raw + wide + packed
    count = len(members)
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(index), len(body), 0)
    path.write_bytes(body + index + b"PK\x05\x06" + end)
    return path


def stored(data: bytes) -> tuple[bytes, int, int]:
    return data, len(data), zipfile.ZIP_STORED


def honest(dtype: str, shape: tuple[int, ...], num_bytes: int) -> tuple[bytes, int, int]:
    """An array of zeros that is all there, and packed a thousandfold."""
    start = npy(dtype, shape)
    return deflated(start, num_bytes), len(start) + num_bytes, zipfile.ZIP_DEFLATED


def whole(values: Any) -> tuple[bytes, int, int]:
    array = np.asarray(values)
    return stored(npy(array.dtype.str, array.shape) + array.tobytes())


LABEL = whole(np.arange(40) % 2)
VIEW = whole(np.ones((40, 3)))
BOMBS = {
    "more labels than any data set has": (
        {"label": honest("|u1", (2 * 10**8,), 2 * 10**8), "v": VIEW},
        "200,000,000 rows in 200,000,000 bytes",
    ),
    "labels of gigabytes": (
        {"label": honest("<i8", (2**28,), 2**31), "v": VIEW},
        "268,435,456 rows in 2,147,483,648 bytes",
    ),
    "labels of no bytes": (
        {"label": stored(npy("<U0", (10**12,))), "v": VIEW},
        "1,000,000,000,000 rows in 0 bytes",
    ),
    "labels that claim to be more than they can unpack to": (
        {"label": (deflated(npy("|u1", (10**8,)), 1000), 10**8 + 128, 8), "v": VIEW},
        "bytes that claim to unpack to 100,000,128",
    ),
    "stored labels that claim to be more than is stored": (
        {"label": (npy("<i8", (10**9,)), 8 * 10**9, 0), "v": VIEW},
        "bytes that claim to unpack to 8,000,000,000",
    ),
    "labels packed in a way without bounds": (
        {"label": (b"BZh9" + bytes(50), 10**6, zipfile.ZIP_BZIP2), "v": VIEW},
        "the zip method 12, which numpy never writes",
    ),
    "a view packed in a way without bounds": (
        {"label": LABEL, "v": (bytes(50), 10**6, zipfile.ZIP_LZMA)},
        "the zip method 14, which numpy never writes",
    ),
    "a view of more numbers than its bytes": (
        {"label": LABEL, "v": stored(npy("<f4", (40, 10**12)) + bytes(480))},
        "480 bytes where (40, 1000000000000) takes",
    ),
    "a view of numbers without size": (
        {"label": LABEL, "v": stored(npy("<f0", (40, 10**30)))},
        "got       an array of <f0",
    ),
    "a view of a type without end": (
        {"label": LABEL, "v": stored(npy("<f" + "9" * 5000, (40,)))},
        "got       an array of <f999",
    ),
    "a header of gigabytes": (
        {"label": LABEL, "v": stored(npy("<f4", (40, 3), length=2**32 - 1))},
        "a header of 4,294,967,295 bytes",
    ),
    "a header that is nested without end": (
        {"label": LABEL, "v": stored(b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000)},
        "the array 'v'",
    ),
}


def test_the_archives_of_these_tests_are_archives(tmp_path: Path) -> None:
    path = archive(tmp_path / "d.npz", {"label": LABEL, "v": VIEW})
    with zipfile.ZipFile(path) as found:
        assert found.testzip() is None
    assert "'v': (3,)" in read(path, ARCHIVE)


@pytest.mark.parametrize("bomb", BOMBS)
def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path: Path, bomb: str) -> None:
    members, expected = BOMBS[bomb]
    path = archive(tmp_path / "d.npz", members)
    assert path.stat().st_size < 4 << 20
    assert expected in refused(path, ARCHIVE)


def test_a_view_that_no_memory_holds_is_planned_and_explained_when_it_is_loaded(
    tmp_path: Path,
) -> None:
    width = 25_000_000
    view = honest("<f4", (40, width), 160 * width)
    path = archive(tmp_path / "d.npz", {"label": LABEL, "v": view})
    assert f"'v': ({width},)" in read(path, ARCHIVE)
    call = (
        "(load := __import__('fusionrun.data.load').data.load.load_data)"
        f"(data := Npz(source='npz', path=str(path), label='label'), {ARCHIVE})"
    )
    said = read(path, call, memory=3 << 30)
    assert "the array 'v' of" in said
    assert "does not fit in memory" in said


# ------------------------------------------------------------------ pickles of CIFAR

ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x00(J\xff\xff\xff\x7ftcnumpy\ndtype\n(Vu1\ntR"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x80\x02Nr\xff\xff\xff\xff.", "slot 4294967295 after 2 operations"),
        (b"\x80\x02Nr\xff\xff\xff\x0f.", "slot 268435455 after 2 operations"),
        (b"\x80\x02Np99999999999\n.", "slot 99999999999 after 2 operations"),
        (b"\x80\x02" + ARRAY + b"I00\nJ\xff\xff\xff\x7ftb.", "whose content is int"),
    ],
)
def test_a_pickle_that_would_fill_the_memory_is_refused(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    (tmp_path / "x").write_bytes(content)
    assert expected in refused(tmp_path / "x", PICKLE)
