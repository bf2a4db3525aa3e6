"""Headers read without torch agree with safetensors' own reader and never trust a number."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.torch import save, save_file

from fusionrun.errors import ComponentError
from fusionrun.store.safetensors_header import (
    MAX_HEADER_BYTES,
    TensorInfo,
    parse_header,
    read_header,
    sha256,
)


def file_bytes(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(dtype: object, shape: object, *offsets: object) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


SOUND = {"a": tensor("F32", [2], 0, 8), "b": tensor("BF16", [1, 3], 8, 14)}


def test_a_header_tells_names_types_shapes_and_metadata() -> None:
    header = parse_header(file_bytes({"__metadata__": {"k": "v"}, **SOUND}, bytes(14)), "f")
    assert header.tensors == {
        "a": TensorInfo("F32", (2,), (0, 8)),
        "b": TensorInfo("BF16", (1, 3), (8, 14)),
    }
    assert header.metadata == {"k": "v"}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_torchs_is_told_what_converts_it(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "my model.pt"
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ComponentError, match=r"`fusionrun convert '.*my model\.pt' -o FILE\."):
        read_header(path)


def test_every_type_of_torch_is_read_as_safetensors_reads_it(tmp_path: Path) -> None:
    from safetensors.torch import _TYPES

    tensors = {name: torch.zeros(3, 2).to(dtype) for name, dtype in _TYPES.items()}
    tensors |= {"empty": torch.zeros(4, 0), "number": torch.tensor(1)}
    save_file(tensors, tmp_path / "f", metadata={"format": "pt"})
    header = read_header(tmp_path / "f")
    with safe_open(tmp_path / "f", "pt") as theirs:
        assert set(header.tensors) == set(theirs.keys())
        assert header.metadata == theirs.metadata()
        for name, info in header.tensors.items():
            part = theirs.get_slice(name)
            assert (info.dtype, list(info.shape)) == (part.get_dtype(), part.get_shape())


def test_the_tensors_bytes_begin_where_the_header_says(tmp_path: Path) -> None:
    data = save({"a": torch.tensor([1, 2, 3], dtype=torch.uint8)})
    begin = parse_header(data, "f").header_bytes
    assert data[begin:] == b"\x01\x02\x03"


def test_a_file_without_tensors_is_sound() -> None:
    assert parse_header(save({}), "f").tensors == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a file of 0 bytes"),
        (b"1234567", "a file of 7 bytes"),
        ((MAX_HEADER_BYTES + 1).to_bytes(8, "little"), "a header of 100000001 bytes"),
        (b"\xff" * 8 + b"{}", "a header of 18446744073709551615 bytes"),
        ((5).to_bytes(8, "little") + b"{}", "a header of 5 bytes in a file of 10"),
        (file_bytes(b"[]"), r"a header that begins b'\[\]'"),
        (file_bytes(b" {}"), "begins b' {}'"),
        (file_bytes(b"{"), "not JSON"),
        (file_bytes(b'{"a": "\xff"}'), "not JSON: 'utf-8' codec"),
        (file_bytes(b'{"a":' * 100_000), "not JSON"),
        (file_bytes(b'{"a": 1, "a": 2}'), "one name stands twice"),
        (file_bytes(b'{"a": ' + b"1" * 5000 + b"}"), "not JSON: Exceeds the limit"),
        (file_bytes({"__metadata__": {"k": 1}}), "a mapping of text to text"),
        (file_bytes({"__metadata__": []}), "a mapping of text to text"),
        (file_bytes({"a": 1}), "tensor 'a' described by 1"),
        (file_bytes({"a": {"dtype": "F32"}}), "tensor 'a' described by"),
        (file_bytes({"a": {**tensor("U8", [], 0, 1), "x": 1}}, b"1"), "tensor 'a' described by"),
        (file_bytes({"a": tensor("F99", [1], 0, 4)}, bytes(4)), "type 'F99'"),
        (file_bytes({"a": tensor("U8", [True], 0, 1)}, b"1"), "tensor 'a' described by"),
        (file_bytes({"a": tensor("U8", [-1], 0, 1)}, b"1"), "tensor 'a' described by"),
        (file_bytes({"a": tensor("U8", [1.0], 0, 1)}, b"1"), "tensor 'a' described by"),
        (file_bytes({"a": tensor("U8", [2**63], 0, 1)}, b"1"), "tensor 'a' described by"),
        (file_bytes({"a": tensor("U8", [1], 0, 1, 2)}, b"1"), "tensor 'a' described by"),
        (file_bytes({"a": tensor("U8", [2**62] * 64, 0, 1)}, b"1"), "tensor 'a' in 1 bytes"),
        (file_bytes({"a": tensor("U8", [1] * 65, 0, 1)}, b"1"), "tensor 'a' of 65 dimensions"),
        (file_bytes({"a": tensor("F4", [3], 0, 1)}, b"1"), "tensor 'a' in 1 bytes"),
        (file_bytes({"a": tensor("F32", [2], 0, 4)}, bytes(4)), "what F32 of shape .2. takes"),
        (file_bytes({"a": tensor("U8", [1], 2, 1)}, bytes(4)), "tensor 'a' in -1 bytes"),
        (file_bytes({"a": tensor("U8", [1], 1, 2)}, bytes(2)), "byte 1: bytes of no tensor"),
        (
            file_bytes({"a": tensor("U8", [2], 0, 2), "b": tensor("U8", [2], 1, 3)}, bytes(3)),
            "tensor 'b' from byte 1: it overlaps",
        ),
        (file_bytes(SOUND, bytes(13)), "13 bytes of tensors: cut short"),
        (file_bytes(SOUND, bytes(16)), "16 bytes of tensors: 2 trailing bytes"),
    ],
)
def test_a_header_that_is_not_sound_is_refused_with_what_is_wrong(
    tmp_path: Path, data: bytes, message: str
) -> None:
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(ComponentError, match=message) as caught:
        read_header(tmp_path / "x.safetensors")
    assert str(tmp_path / "x.safetensors") in str(caught.value)


@settings(max_examples=200)
@given(st.binary(max_size=100), st.binary(max_size=20))
def test_random_bytes_are_refused_as_a_component_error_and_never_otherwise(
    header: bytes, data: bytes
) -> None:
    for whole in (header, file_bytes(header, data), file_bytes(b"{" + header, data)):
        with contextlib.suppress(ComponentError):
            parse_header(whole, "f")


TEXT = st.text("aF32", max_size=3)
ATOMS = st.none() | st.booleans() | st.integers(-2, 20) | st.floats() | TEXT
ANY_JSON = ATOMS | st.lists(ATOMS, max_size=3) | st.dictionaries(TEXT, ATOMS, max_size=2)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "BF16", "F4", "BOOL"]) | ANY_JSON,
        "shape": st.lists(st.integers(0, 3), max_size=2) | ANY_JSON,
        "data_offsets": st.tuples(st.integers(0, 9), st.integers(0, 9)).map(list) | ANY_JSON,
    }
)
HEADERS = st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ENTRIES | ANY_JSON)


@settings(max_examples=300)
@given(HEADERS, st.integers(0, 12))
def test_what_is_accepted_safetensors_accepts_too(header: dict[str, Any], size: int) -> None:
    data = file_bytes(header, bytes(size))
    try:
        parsed = parse_header(data, "f")
    except ComponentError:
        return
    assert {name for name, _ in deserialize(data)} == set(parsed.tensors)


@settings(max_examples=200)
@given(st.data())
def test_one_changed_byte_of_a_header_is_accepted_by_both_readers_or_by_neither(
    data: st.DataObject,
) -> None:
    whole = bytearray(file_bytes({"__metadata__": {"k": "v"}, **SOUND}, bytes(14)))
    place = data.draw(st.integers(0, len(whole) - 15))
    whole[place] = data.draw(st.integers(0, 255))
    try:
        parse_header(bytes(whole), "f")
    except ComponentError:
        return
    try:
        deserialize(bytes(whole))
    except SafetensorError as error:
        pytest.fail(f"safetensors refuses what we accept: {error}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=r"gone\.safetensors\n  got       no such file"):
        read_header(tmp_path / "gone.safetensors")


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ComponentError, match="not a regular file"):
        sha256(tmp_path / "pipe")


def test_sha256_is_that_of_the_whole_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 3_000_000)
    assert sha256(tmp_path / "f") == hashlib.sha256(b"x" * 3_000_000).hexdigest()
