"""A safetensors file in memory, whose tensors are filled in again and again.

safetensors' own `save` goes from tensor to tensor, in Python, and the steps wait for its lock
meanwhile: 5 ms for the 180 small tensors of a digits checkpoint (measured). Here the header and
the places are made once, and a checkpoint is one copy into them: byte for byte the same file.

A GPU copies at its own memory's rate, and is asked to, not waited for; another thread brings the
copy over the bus by a stream of its own, while the steps go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from fusionrun.store.safetensors_header import LENGTH_BYTES

__all__ = ["TensorFile"]

_WORDS: Final = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The format's word for each type, in the order in which safetensors puts them into a file: so
every tensor begins at a multiple of its type's size."""
_ORDER: Final = list(_WORDS)
_ALIGNMENT: Final = 8


class _Form(NamedTuple):
    """A tensor's name, type and shape."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * int(torch.Size(self.shape).numel())


class TensorFile:
    """One file.

    Args:
        tensors: by name; their types and shapes are the file's. A GPU's are all on the same one.

    Raises:
        ValueError: a type that the format does not have.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._forms = _forms(tensors)
        self._device = next((t.device for t in tensors.values() if t.is_cuda), torch.device("cpu"))
        header = _header(self._forms)
        size = sum(form.nbytes for form in self._forms)
        self._whole = torch.empty(len(header) + size, dtype=torch.uint8)
        self._whole[: len(header)] = torch.frombuffer(bytearray(header), dtype=torch.uint8)
        self._data = self._whole[len(header) :]
        self._places = list(_places(self._data, self._forms))
        # A GPU's copy, and what comes after it: until it is fetched.
        self._aside: tuple[Tensor, torch.cuda.Event] | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return self._whole.numel()

    def fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether these have the file's names, types and shapes."""
        return _forms(tensors) == self._forms

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors that fit. `content` must not be read by another thread meanwhile."""
        own = [tensors[form.name].detach() for form in self._forms]
        self._aside = None
        if self._device.type == "cuda":
            try:
                self._aside = self._copied_aside(own)
            except torch.OutOfMemoryError:  # (then they are waited for)
                _copy(self._places, own)
        else:
            _copy(self._places, own)

    def content(self) -> memoryview:
        """The whole file. Waits for the copy, and for nothing that the device does later."""
        if self._aside is not None:
            copy, ready = self._aside
            stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            stream.wait_event(ready)
            with torch.cuda.stream(stream):
                self._data.copy_(copy)
            self._aside = None
        return self._whole.numpy().data

    def _copied_aside(self, own: list[Tensor]) -> tuple[Tensor, torch.cuda.Event]:
        copy = torch.empty_like(self._data, device=self._device)
        _copy(list(_places(copy, self._forms)), own)
        ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record()
        return copy, ready


def _copy(places: list[Tensor], tensors: list[Tensor]) -> None:
    if tensors:
        with torch.no_grad():
            torch._foreach_copy_(places, tensors)


def _forms(tensors: Mapping[str, Tensor]) -> list[_Form]:
    """In the order of the file."""
    forms = [_Form(name, t.dtype, tuple(t.shape)) for name, t in tensors.items()]
    return sorted(forms, key=lambda form: (_ORDER.index(form.dtype), form.name))


def _header(forms: Sequence[_Form]) -> bytes:
    entries: dict[str, dict[str, Any]] = {}
    end = 0
    for form in forms:
        start, end = end, end + form.nbytes
        entries[form.name] = {
            "dtype": _WORDS[form.dtype],
            "shape": form.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def _places(data: Tensor, forms: Sequence[_Form]) -> Iterator[Tensor]:
    """Where each tensor lies in the bytes behind the header."""
    end = 0
    for form in forms:
        start, end = end, end + form.nbytes
        yield data[start:end].view(form.dtype).view(form.shape)
