"""The manifest of a components directory: what it holds, where that came from, and its hashes.

Reading and checking one needs no more than the standard library. Knows nothing of tensors' bytes:
that is `components`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from fusionrun import __version__
from fusionrun.errors import ComponentError, Problem
from fusionrun.nearest import did_you_mean
from fusionrun.regular import read_regular
from fusionrun.store import atomic
from fusionrun.store.layout import MANIFEST, component_path
from fusionrun.store.safetensors_header import unreadable

__all__ = [
    "FORMAT",
    "ChosenOn",
    "ComponentRecord",
    "Manifest",
    "TensorSpec",
    "digest_of",
    "manifest_head",
    "read_manifest",
]

FORMAT: Final = 1
"""The version of the manifest's format that this module writes, and the only one it reads."""

_DIGEST: Final = "sha256"

# What reading JSON of the wrong shape raises.
_MALFORMED: Final = (
    AttributeError,
    ComponentError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)

T = TypeVar("T")


@dataclass(frozen=True)
class TensorSpec:
    """What a tensor is, without its numbers: safetensors' word for its type, and its shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ComponentRecord:
    """One component's file.

    Attributes:
        file: relative to the components directory, with `/`.
        bytes: size of the file.
        sha256: of the whole file, hexadecimal.
        tensors: by name, in the file's order; none for a component without weights.
    """

    file: str
    bytes: int
    sha256: str
    tensors: Mapping[str, TensorSpec]


@dataclass(frozen=True)
class ChosenOn:
    """The number that made this epoch the best: `{split, path, metric, value}`."""

    split: str
    path: str
    metric: str
    value: float | None


@dataclass(frozen=True)
class Manifest:
    """What a components directory holds and where it came from.

    Attributes:
        run_id: the run that trained the components.
        plan_hash: of the plan they were trained by.
        which: `best` or `last`.
        epoch: counted from 0; the weights are those at its end.
        step: batches trained on until then.
        chosen_on: why this epoch; None when it is simply the last one.
        test_split: a sentence on what the test split was used for.
        classes: their names, in the order of the outputs.
        fusionrun: the version that wrote the files.
        components: by name.
    """

    run_id: str
    plan_hash: str
    which: str
    epoch: int
    step: int
    chosen_on: ChosenOn | None
    test_split: str
    classes: tuple[str, ...]
    fusionrun: str
    components: Mapping[str, ComponentRecord]

    def to_json(self) -> dict[str, Any]:
        """The manifest as the file holds it, with a digest of its own content at the end."""
        value = {"format": FORMAT, **dataclasses.asdict(self)}
        # Through JSON once, so that the digest is of what a reader will see (tuples are lists).
        value = json.loads(json.dumps(atomic.finite(value)))
        return {**value, _DIGEST: digest_of(value)}

    def record(self, name: str) -> ComponentRecord:
        """One component's record. Raises ComponentError naming the nearest for an unknown one."""
        if name in self.components:
            return self.components[name]
        where = f"the {self.which} components of {self.run_id}"
        known = ", ".join(self.components)
        hint = did_you_mean(name, self.components)
        raise ComponentError(Problem(None, where, repr(name), known, hint))


_RECORD_KEYS: Final = {field.name for field in dataclasses.fields(Manifest)} - {
    "fusionrun",
    "components",
}


def manifest_head(record: Mapping[str, Any]) -> Manifest:
    """A manifest of no components yet. Raises ValueError for a key too few or too many."""
    if record.keys() != _RECORD_KEYS:
        wrong = ", ".join(sorted(record.keys() ^ _RECORD_KEYS))
        raise ValueError(f"a manifest's record must have exactly its keys; look at: {wrong}")
    chosen = record["chosen_on"]
    if isinstance(chosen, Mapping):
        chosen = ChosenOn(**chosen)
    values = {**record, "chosen_on": chosen, "classes": tuple(record["classes"])}
    return Manifest(**values, fusionrun=__version__, components={})


def read_manifest(directory: Path) -> Manifest:
    """Reads and checks a components directory's manifest; not the files it tells of.

    Raises:
        ComponentError: there is none, or it is not as it was written.
    """
    path = directory / MANIFEST
    try:
        raw = json.loads(read_regular(path))
    except FileNotFoundError as error:
        raise _no_manifest(directory) from error
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise _bad_manifest(path, f"text that is not JSON: {error}") from error
    return _parse_manifest(raw, path)


def _no_manifest(directory: Path) -> ComponentError:
    others = sorted(p.parent.name for p in directory.parent.glob(f"*/{MANIFEST}"))
    fix = f"There is: {', '.join(others)}." if others else "No components were saved there."
    return ComponentError(Problem(None, str(directory), f"no {MANIFEST}", "", fix))


def _bad_manifest(path: Path, got: str) -> ComponentError:
    fix = "Copy the whole directory again, or export from another run."
    return ComponentError(Problem(None, str(path), got, "what fusionrun wrote", fix))


def digest_of(value: Mapping[str, Any]) -> str:
    """SHA-256 of JSON content, whatever the order of its keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _parse_manifest(raw: object, path: Path) -> Manifest:
    if not isinstance(raw, dict) or "format" not in raw:
        raise _bad_manifest(path, "JSON that is no manifest")
    if raw["format"] != FORMAT:
        expected = f"format {FORMAT}; fusionrun {__version__} reads no other"
        raise ComponentError(Problem(None, str(path), f"format {raw['format']!r}", expected))
    content = {key: value for key, value in raw.items() if key != _DIGEST}
    try:
        if raw.get(_DIGEST) == digest_of(content):
            return _manifest_from(content)
    except _MALFORMED as error:
        raise _bad_manifest(path, f"a manifest of another shape: {error!r}") from error
    raise _bad_manifest(path, "content that does not match its own sha256")


def _manifest_from(content: Mapping[str, Any]) -> Manifest:
    chosen = content["chosen_on"]
    return Manifest(
        run_id=_typed(content["run_id"], str),
        plan_hash=_typed(content["plan_hash"], str),
        which=_typed(content["which"], str),
        epoch=_typed(content["epoch"], int),
        step=_typed(content["step"], int),
        chosen_on=None if chosen is None else ChosenOn(**chosen),
        test_split=_typed(content["test_split"], str),
        classes=tuple(_typed(name, str) for name in content["classes"]),
        fusionrun=_typed(content["fusionrun"], str),
        components=_each(content["components"], _record_from),
    )


def _record_from(name: str, raw: Mapping[str, Any]) -> ComponentRecord:
    # The path follows from the name alone, so no manifest can point out of its directory.
    file = str(component_path(name))
    if raw["file"] != file:
        raise ValueError(f"{name} in {raw['file']!r}")
    tensors = _each(raw["tensors"], _spec_from)
    return ComponentRecord(file, _typed(raw["bytes"], int), _typed(raw["sha256"], str), tensors)


def _spec_from(_: str, raw: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(_typed(raw["dtype"], str), tuple(_typed(n, int) for n in raw["shape"]))


def _each(raw: Mapping[str, Any], build: Callable[[str, Mapping[str, Any]], T]) -> dict[str, T]:
    return {name: build(name, value) for name, value in raw.items()}


def _typed(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r} is no {kind.__name__}")
    return value
