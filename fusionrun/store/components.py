"""Component files and the manifest that vouches for them.

A components directory holds one safetensors file for each component and a `manifest.json` with
each file's tensors and SHA-256. It is always replaced as a whole, so its files belong to one
moment of one run. Only `save_components`, `load_component` and `load_file` import torch; reading
a manifest and verifying need no more than the standard library.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fusionrun.errors import ComponentError, Problem
from fusionrun.store import atomic
from fusionrun.store.layout import MANIFEST, component_path
from fusionrun.store.manifest import (
    ComponentRecord,
    Manifest,
    TensorSpec,
    manifest_head,
    read_manifest,
)
from fusionrun.store.safetensors_header import (
    LENGTH_BYTES,
    Header,
    TensorInfo,
    open_component,
    parse_header,
    read_header,
    sha256,
    unreadable,
)

if TYPE_CHECKING:
    import torch

__all__ = ["load_component", "load_file", "save_components", "verify"]

_ALIGNMENT: Final = 8


def save_components(
    directory: Path,
    components: Mapping[str, Mapping[str, torch.Tensor]],
    *,
    record: Mapping[str, Any],
) -> Manifest:
    """Writes all components and their manifest, in place of what `directory` held before.

    The same weights give the same bytes. Tensors may live on any device, be views into one
    storage, or have any strides.

    Args:
        directory: `RunLayout.components(which)`; its parents are created.
        components: name (`experts.fourier`, `fusion`, …) to the tensors of its state.
        record: what the manifest says of all of them: exactly `run_id`, `plan_hash`, `which`,
            `epoch`, `step`, `chosen_on` (a mapping, a `ChosenOn` or None), `test_split`, `classes`.

    Raises:
        ComponentError: a name that no component can bear.
        ValueError: `record` lacks a key or has one too many.
        OSError: what the file system says; the old components are then untouched.
    """
    head = manifest_head(record)
    records: dict[str, ComponentRecord] = {}

    def fill(aside: Path) -> None:
        for name, tensors in components.items():
            records[name] = _write(aside, name, _serialize(name, tensors, head.plan_hash))
        manifest = dataclasses.replace(head, components=records)
        atomic.write_json(aside / MANIFEST, manifest.to_json())

    tensors = (tensor for own in components.values() for tensor in own.values())
    atomic.require_space(directory, sum(tensor.nbytes for tensor in tensors))
    atomic.replace_directory(directory, fill)
    return dataclasses.replace(head, components=records)


def verify(directory: Path, names: Iterable[str] | None = None) -> None:
    """Checks files against their manifest: hash, size, and every tensor's type and shape.

    Args:
        directory: a components directory.
        names: the components to check; all when None.

    Raises:
        ComponentError: naming every file that is missing or damaged, and how.
    """
    manifest = read_manifest(directory)
    problems = []
    for name in manifest.components if names is None else names:
        record = manifest.record(name)
        try:
            _check_size(directory / record.file, record)
            _check_hash(directory / record.file, sha256(directory / record.file), name, manifest)
            _check_tensors(directory / record.file, read_header(directory / record.file), record)
        except ComponentError as error:
            problems.append(str(error))
    if problems:
        raise ComponentError("\n\n".join(problems))


def load_component(directory: Path, name: str) -> dict[str, torch.Tensor]:
    """Loads one component of a components directory, on the CPU.

    The bytes that are checked against the manifest are the bytes that become tensors.

    Raises:
        ComponentError: no such component, or its file is not what was saved.
    """
    manifest = read_manifest(directory)
    record = manifest.record(name)
    path = directory / record.file
    sizes = {each.bytes for each in manifest.components.values()}
    if not path.is_file() or path.stat().st_size not in sizes:  # (else it may be another's content)
        _check_size(path, record)  # before room is made for it
    data = _read(path)
    _check_hash(path, hashlib.sha256(data).hexdigest(), name, manifest)
    header = parse_header(data, str(path))
    _check_tensors(path, header, record)
    return _deserialize(data, header, path)


def load_file(path: Path, *, expected_sha256: str | None = None) -> dict[str, torch.Tensor]:
    """Loads one safetensors file, on the CPU; its tensors come in the header's order.

    Args:
        path: the file.
        expected_sha256: refuse any other content; None takes whatever is sound.

    Raises:
        ComponentError: no such file, not safetensors, or not the content that was expected.
    """
    if expected_sha256 is None:
        read_header(path)  # before room is made for the rest
    data = _read(path)
    if expected_sha256 is not None:
        _require_hash(path, hashlib.sha256(data).hexdigest(), expected_sha256)
    return _deserialize(data, parse_header(data, str(path)), path)


def _serialize(name: str, tensors: Mapping[str, torch.Tensor], plan_hash: str) -> bytes:
    import torch
    from safetensors.torch import save

    # Copied: safetensors refuses tensors that share a storage, as views into a flat buffer do.
    owned = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in tensors.items()
    }
    return _with_metadata(save(owned), {"component": name, "format": "pt", "plan": plan_hash})


def _with_metadata(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """Puts metadata into a file that has none.

    safetensors can write it, but in an order that differs from one process to the next, and the
    same weights must give the same hash.
    """
    end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    tensors = json.loads(data[LENGTH_BYTES:end])
    header = {"__metadata__": dict(sorted(metadata.items())), **tensors}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text + data[end:]


def _deserialize(data: bytes, header: Header, path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
    except (SafetensorError, KeyError) as error:  # KeyError: a type that torch does not have
        got = f"tensors that torch cannot hold: {error}"
        raise ComponentError(Problem(None, str(path), got)) from error
    return {name: tensors[name] for name in header.tensors}


def _read(path: Path) -> bytes:
    try:
        with open_component(path) as file:
            return file.read()
    except OSError as error:
        raise unreadable(path, error) from error
    except MemoryError as error:
        got = f"{path.stat().st_size:,} bytes, which do not fit in memory"
        raise ComponentError(Problem(None, str(path), got)) from error


def _write(directory: Path, name: str, data: bytes) -> ComponentRecord:
    file = component_path(name)
    path = directory / file
    path.parent.mkdir(exist_ok=True)
    # (a new file: two names that one file system cannot tell apart must not meet)
    digest = atomic.create_bytes(path, data)
    specs = _specs(parse_header(data, str(path)).tensors)
    return ComponentRecord(str(file), len(data), digest, specs)


def _specs(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(info.dtype, info.shape) for name, info in tensors.items()}


def _check_size(path: Path, record: ComponentRecord) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise _damaged(path, "no such file", f"{record.bytes} bytes") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if size != record.bytes:
        raise _damaged(path, f"{size} bytes", f"{record.bytes} bytes")


def _check_hash(path: Path, got: str, name: str, manifest: Manifest) -> None:
    for other, record in manifest.components.items():
        if other != name and got == record.sha256 != manifest.components[name].sha256:
            raise _damaged(path, f"the content of {other}", f"that of {name}")
    _require_hash(path, got, manifest.components[name].sha256)


def _require_hash(path: Path, got: str, expected: str) -> None:
    if got != expected:
        raise _damaged(path, f"sha256 {got}", expected)


def _check_tensors(path: Path, header: Header, record: ComponentRecord) -> None:
    if _specs(header.tensors) != dict(record.tensors):
        raise _damaged(path, "tensors other than its manifest lists", ", ".join(record.tensors))


def _damaged(path: Path, got: str, expected: str) -> ComponentError:
    fix = "It is not the file that was saved: copy it again, or export from another run."
    return ComponentError(Problem(None, str(path), got, expected, fix))
