"""The one way in for weights that are a pickle: a foreign torch state dict becomes safetensors.

Nothing else in fusionrun reads a pickle. This reads it with torch's own restricted reader
(`weights_only`), which builds tensors and plain containers and calls nothing else; whatever asks
for more is refused. Torch is imported inside the functions that hold tensors.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from fusionrun.errors import ComponentError, FusionrunError, Problem, UserError
from fusionrun.nearest import did_you_mean
from fusionrun.store import atomic
from fusionrun.store.foreign import DAMAGED, SAVE_AGAIN, Misfit, misfit
from fusionrun.store.safetensors_header import (
    TensorInfo,
    open_component,
    parse_header,
    read_header,
    sha256,
)

if TYPE_CHECKING:
    import torch

__all__ = ["Converted", "Renaming", "convert", "parse_map"]

KEYS: Final = ("state_dict", "model")
"""Where training scripts put the state dict beside their optimizer's and epoch."""

_MOST_TIMES: Final = 16
"""What is written may be so many times the file: its tensors may share memory, and are written
each on its own. A file of a few bytes may claim more than any memory holds.
"""

_METADATA: Final = {"format": "pt"}
_FORBIDDEN_NAME: Final = "__metadata__"
_GLOBAL: Final = re.compile(r"(?:GLOBAL|Unsupported class) ([\w.]+)")
_FOREIGN: Final = "a state dict written by torch.save(model.state_dict(), …)"


@dataclass(frozen=True)
class Renaming:
    """How tensors are called afterwards.

    Attributes:
        strip: taken away from the beginning of every name that begins so; empty for nothing.
        prefixes: old and new beginnings, applied after `strip`, one after the other.
    """

    strip: str = ""
    prefixes: Sequence[tuple[str, str]] = ()

    @property
    def steps(self) -> tuple[tuple[str, str, str], ...]:
        """Option, old and new beginning, in the order in which they are applied."""
        strip = [("--strip", self.strip, "")] if self.strip else []
        return (*strip, *(("--map", old, new) for old, new in self.prefixes))


@dataclass(frozen=True)
class Converted:
    """A safetensors file that was made of a state dict.

    Attributes:
        path: the file.
        key: where in the foreign file the state dict was; None: it was all of it.
        bytes: size of the file.
        sha256: of the file, hexadecimal.
        tensors: by name, in the file's order.
        names: new name to the one it had.
        unchanged: the file was there already, with this content, and was left alone.
    """

    path: Path
    key: str | None
    bytes: int
    sha256: str
    tensors: Mapping[str, TensorInfo]
    names: Mapping[str, str]
    unchanged: bool

    def to_json(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        content = {**dataclasses.asdict(self), "path": str(self.path)}
        del content["names"]
        content["tensors"] = {
            name: {"dtype": info.dtype, "shape": list(info.shape), "was": self.names[name]}
            for name, info in self.tensors.items()
        }
        return content


def parse_map(text: str) -> tuple[str, str]:
    """Reads `OLD=NEW`, of which NEW may be empty. Raises UserError for anything else."""
    old, equals, new = text.partition("=")
    if not old or not equals or "=" in new:
        expected = "OLD=NEW, such as --map encoder.=backbone."
        raise UserError(Problem(None, "--map", repr(text), expected))
    return old, new


def convert(
    source: Path,
    output: Path,
    *,
    key: str | None = None,
    renaming: Renaming | None = None,
    force: bool = False,
) -> Converted:
    """Writes the tensors of a foreign state dict as a safetensors file, in one step.

    Tensors that share memory are written each on its own. The same tensors give the same bytes.

    Args:
        source: what `torch.save` has written: a state dict, or a mapping that holds one.
        output: the file to write.
        key: where in that mapping it is; None: wherever `KEYS` say.
        renaming: how tensors are called afterwards; None: as before.
        force: replace a file with another content.

    Raises:
        ComponentError: the file is damaged, or no state dict; or it asks for more than tensors,
            and nothing of it was run.
        UserError: there is no such file, an option names what is not there, or the output cannot
            or must not be written.
    """
    _refuse_same(source, output)
    found, where = _state_dict(_loaded(source), source, key)
    names = _renamed(list(found), renaming or Renaming())
    _refuse_growing(found, source)
    tensors = {new: _owned(old, found[old], source) for new, old in names.items()}
    data = _bytes(tensors, source)
    digest = hashlib.sha256(data).hexdigest()
    unchanged = _stands(output, digest, force)
    if not unchanged:
        _write(output, data)
    infos = parse_header(data, str(output)).tensors
    return Converted(output, where, len(data), digest, infos, names, unchanged)


def _refuse_same(source: Path, output: Path) -> None:
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(f"{output}: is the file to convert; -o names another one")
    if output.is_dir() or (output.exists() and not output.is_file()):
        raise UserError(f"{output}: not a regular file; -o names the safetensors file to write")
    if not output.parent.is_dir():
        raise UserError(f"{output}: there is no directory {output.parent}; -o names another place")


def _loaded(source: Path) -> Any:
    if not source.is_file():
        got = "not a regular file" if source.exists() else "no such file"
        raise UserError(Problem(None, str(source), got, _FOREIGN))
    try:
        with open_component(source) as file:
            if found := misfit(file):
                raise _refused(source, found)
            return _read(file)
    except FusionrunError:
        raise
    except OSError as error:
        got = error.strerror or str(error)
        raise ComponentError(Problem(None, str(source), got, _FOREIGN)) from error
    except Exception as error:  # of a file that may hold anything
        raise _unreadable(source, error) from error


def _read(file: BinaryIO) -> Any:
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's inner workings: nothing the user can change
        return torch.load(file, map_location="cpu", weights_only=True)


def _unreadable(source: Path, error: Exception) -> ComponentError:
    """Never in torch's words: they advise to read the file without the restriction."""
    asked = _GLOBAL.search(str(error))
    if asked or type(error).__name__ == "UnpicklingError":
        what = f"asks for {asked[1]}" if asked else "torch's restricted reader cannot read"
        got = f"a pickle that {what}; nothing of it was run"
        expected = "tensors and plain containers alone, as torch.save writes them by itself"
        return ComponentError(Problem(None, str(source), got, expected, SAVE_AGAIN))
    return _refused(source, DAMAGED)


def _refused(source: Path, found: Misfit) -> ComponentError:
    if _is_safetensors(source):
        found = Misfit("safetensors", "Nothing to convert: `weights:` takes it as it is.")
    return ComponentError(Problem(None, str(source), found.what, _FOREIGN, found.fix))


def _is_safetensors(source: Path) -> bool:
    try:
        return bool(read_header(source))
    except ComponentError:
        return False


def _state_dict(
    loaded: object, source: Path, key: str | None
) -> tuple[Mapping[str, torch.Tensor], str | None]:
    """The state dict in what was loaded, and the key it was under."""
    if not isinstance(loaded, Mapping):
        raise _no_state_dict(str(source), loaded)
    if key is not None:
        if key not in loaded:
            keys = [name for name in loaded if isinstance(name, str)]
            expected = f"one of {', '.join(keys[:20])}" if keys else "a file with keys"
            fix = did_you_mean(key, keys)
            raise UserError(Problem(None, "--key", repr(key), expected, fix))
        return _checked(loaded[key], f"{source}: {key}"), key
    if not _all_tensors(loaded):
        for name in KEYS:
            if isinstance(loaded.get(name), Mapping):
                return _checked(loaded[name], f"{source}: {name}"), name
    return _checked(loaded, str(source)), None


def _all_tensors(loaded: Mapping[Any, object]) -> bool:
    import torch

    return bool(loaded) and all(isinstance(value, torch.Tensor) for value in loaded.values())


def _checked(found: object, where: str) -> Mapping[str, torch.Tensor]:
    """What was found, if it is a mapping of names to tensors and nothing else."""
    import torch

    if not isinstance(found, Mapping) or not found:
        raise _no_state_dict(where, found)
    for name, value in found.items():
        if not isinstance(name, str) or name == _FORBIDDEN_NAME or not name.isprintable():
            got = f"the key {str(name)[:80]!r}"
            raise ComponentError(Problem(None, where, got, "a tensor's name"))
        if not isinstance(value, torch.Tensor):
            keys = [key for key in found if isinstance(found[key], Mapping)]
            fix = f"--key says where it is: {', '.join(map(str, keys[:20]))}" if keys else ""
            got = f"{_kind(value)} under {name!r}"
            raise ComponentError(Problem(None, where, got, "tensors alone", fix))
    return found


def _no_state_dict(where: str, found: object) -> ComponentError:
    got = "an empty mapping" if isinstance(found, Mapping) else _kind(found)
    return ComponentError(Problem(None, where, got, "a mapping of names to tensors"))


def _kind(value: object) -> str:
    return "a mapping" if isinstance(value, Mapping) else f"a value of type {type(value).__name__}"


def _renamed(names: Sequence[str], renaming: Renaming) -> dict[str, str]:
    """New name → old name."""
    new = list(names)
    for option, old, begins in renaming.steps:
        if not any(name.startswith(old) for name in new):
            fix = did_you_mean(old, list(_beginnings(new)))
            expected = f"the beginning of a name, such as {', '.join(new[:3])}"
            raise UserError(Problem(None, option, repr(old), expected, fix))
        new = [begins + name[len(old) :] if name.startswith(old) else name for name in new]
    renamed: dict[str, str] = {}
    for after, before in zip(new, names, strict=True):
        if not after or after in renamed or after == _FORBIDDEN_NAME:
            other = f", as {renamed[after]!r} is" if after in renamed else ""
            got = f"{before!r} would be called {after!r}{other}"
            expected = "a name for each tensor"
            raise UserError(Problem(None, "--strip and --map", got, expected))
        renamed[after] = before
    return renamed


def _beginnings(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        parts = name.split(".")
        yield from (".".join(parts[:end]) + "." for end in range(1, len(parts)))


def _refuse_growing(tensors: Mapping[str, torch.Tensor], source: Path) -> None:
    """Before any of it is copied: a view may repeat one number a million million times."""
    sizes = {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}
    held = source.stat().st_size
    if sum(sizes.values()) > _MOST_TIMES * held:
        largest = max(sizes, key=lambda name: sizes[name])
        shape = list(tensors[largest].shape)
        got = f"tensors of {sum(sizes.values()):,} bytes in a file of {held:,}: {largest!r} {shape}"
        expected = f"at most {_MOST_TIMES} times the file, for tensors that share memory"
        raise ComponentError(Problem(None, str(source), got, expected, SAVE_AGAIN))


def _owned(name: str, tensor: torch.Tensor, source: Path) -> torch.Tensor:
    """A tensor of its own memory: others share one, which safetensors has no word for."""
    import torch

    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        kind = f"{tensor.layout}, {tensor.dtype} on {tensor.device.type}"
        got = f"{name!r}: {kind.replace('torch.', '')}"
        raise ComponentError(Problem(None, str(source), got, "a plain, dense tensor"))
    plain = tensor.detach().resolve_conj().resolve_neg()
    return plain.clone(memory_format=torch.contiguous_format)


def _bytes(tensors: Mapping[str, torch.Tensor], source: Path) -> bytes:
    from safetensors import SafetensorError
    from safetensors.torch import save

    try:
        return save(dict(tensors), metadata=dict(_METADATA))
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        got = f"tensors that safetensors cannot hold: {error}"
        raise ComponentError(Problem(None, str(source), got)) from error


def _stands(output: Path, digest: str, force: bool) -> bool:
    """Whether the file is there already; refused where another one is."""
    if not output.exists():
        return False
    if sha256(output) == digest:
        return True
    if not force:
        fix = "-o names another place, --force replaces it"
        raise UserError(f"{output}: there already, with other content; {fix}")
    return False


def _write(output: Path, data: bytes) -> None:
    try:
        atomic.write_bytes(output, data)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{output}: cannot be written: {why}; -o names another place") from error
