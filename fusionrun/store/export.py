"""Handing a component out of a run as a file, and taking one in as starting weights. No torch.

An exported file is the run's file, byte for byte, so that its hash in the manifest still holds;
several exported together make a components directory of their own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fusionrun.errors import ComponentError, Problem, UserError
from fusionrun.nearest import did_you_mean
from fusionrun.store import atomic
from fusionrun.store.components import verify
from fusionrun.store.layout import MANIFEST, RunLayout, Which
from fusionrun.store.manifest import Manifest, read_manifest
from fusionrun.store.runs import find_run
from fusionrun.store.safetensors_header import open_component, sha256
from fusionrun.store.status import read_status

__all__ = [
    "Exported",
    "PathSource",
    "RunSource",
    "WeightsFile",
    "export",
    "locate_weights",
    "parse_weights",
]

_CHUNK: Final = 1 << 20
_RUN: Final = "run:"


@dataclass(frozen=True)
class Exported:
    """One component that now stands outside its run.

    Attributes:
        name: the component's.
        path: where it stands.
        bytes: size of the file.
        sha256: of the file, hexadecimal; the same as in the run's manifest.
        unchanged: the file was there already, with this content, and was left alone.
    """

    name: str
    path: Path
    bytes: int
    sha256: str
    unchanged: bool = False

    def to_json(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        return {**dataclasses.asdict(self), "path": str(self.path)}


@dataclass(frozen=True)
class PathSource:
    """Weights from a file: `weights: PATH`, relative to the recipe."""

    path: str


@dataclass(frozen=True)
class RunSource:
    """Weights from a run's best components: `weights: run:ID#experts.fourier`."""

    run: str
    component: str


@dataclass(frozen=True)
class WeightsFile:
    """A file to take weights from.

    Attributes:
        path: the file.
        sha256: the content it must have; None when nothing vouches for it.
        description: what it is, for a plan's reasons and for errors.
    """

    path: Path
    sha256: str | None
    description: str


def export(
    layout: RunLayout, pattern: str, *, which: Which, output: Path | None, force: bool
) -> list[Exported]:
    """Copies components out of a run, each checked against the manifest before and on the way.

    Args:
        layout: the run.
        pattern: a component's name, `experts.*`, `heads.*`, or `all`.
        which: the components of the best or the last epoch.
        output: for one component a file, or a directory to put it in (default
            `./NAME.safetensors`); for several a directory (default `./components-<run id>`), which
            also gets a manifest and so is a components directory itself.
        force: replace files with another content; otherwise such a file is an error, found before
            anything is written.

    Raises:
        UserError: no such component, or the output cannot or must not be written.
        ComponentError: the run's files are missing or damaged; all of them are named.
    """
    _refuse_unsaved(layout)
    source = layout.components(which)
    manifest = read_manifest(source)
    names = _select(pattern, manifest)
    verify(source, names)
    records = {name: manifest.components[name] for name in names}
    if names == [pattern]:
        targets = {pattern: _file_for(pattern, output)}
        listing = None
    else:
        folder = output or Path(f"components-{layout.id}")
        targets = {name: folder / record.file for name, record in records.items()}
        listing = _Listing(folder, dataclasses.replace(manifest, components=records))
    _refuse_unsafe(layout, targets.values())
    if not force:
        _refuse_others(targets, manifest, listing)
    exported = [_copy(name, source, targets[name], manifest) for name in names]
    if listing:
        listing.write()
    return exported


@dataclass(frozen=True)
class _Listing:
    """The manifest of several components that were exported together."""

    folder: Path
    manifest: Manifest

    @property
    def path(self) -> Path:
        return self.folder / MANIFEST

    def stands(self) -> bool:
        """Whether the folder has this very manifest already."""
        try:
            return read_manifest(self.folder) == self.manifest
        except ComponentError:
            return False

    def write(self) -> None:
        if not self.stands():
            with _writing(self.path):
                atomic.write_json(self.path, self.manifest.to_json())


def parse_weights(text: str) -> PathSource | RunSource:
    """Reads what a recipe says under `weights`: a path, or `run:ID#COMPONENT`.

    A file whose name begins with `run:` is written `./run:…`.

    Raises:
        UserError: empty, or a run without a component.
    """
    if not text.startswith(_RUN):
        if not text:
            raise _bad_weights(text)
        return PathSource(text)
    run, _, component = text.removeprefix(_RUN).rpartition("#")
    if not run or not component:
        raise _bad_weights(text)
    return RunSource(run, component)


def locate_weights(text: str, base_dir: Path, runs_dir: Path) -> WeightsFile:
    """The file that a recipe's `weights` means. It is found, not opened.

    Args:
        text: see `parse_weights`.
        base_dir: the recipe's directory.
        runs_dir: where runs live.

    Raises:
        UserError: the text is no `weights`.
        RunNotFoundError: no such run, or more than one.
        ComponentError: the file, or the run's component, is not there.
    """
    source = parse_weights(text)
    if isinstance(source, PathSource):
        path = base_dir / os.path.expanduser(source.path)
        if not os.path.isfile(path):
            got = "a directory" if os.path.isdir(path) else "no such file"
            raise ComponentError(Problem(None, str(path), got, "a safetensors file"))
        return WeightsFile(path, None, str(path))
    layout = find_run(runs_dir, source.run)
    _refuse_unsaved(layout)
    record = read_manifest(layout.components("best")).record(source.component)
    path = layout.component("best", source.component)
    return WeightsFile(path, record.sha256, f"{source.component} of {layout.id} (best)")


def _refuse_unsaved(layout: RunLayout) -> None:
    """A run that has not come as far as its components is told so."""
    status = read_status(layout)
    if layout.all_components.is_dir() or status.state == "completed":
        return
    of = f" of {status.epochs}" if status.epochs else ""
    got = f"no components: by its own records {status.state}, {status.epoch}{of} epochs done"
    expected = "a run that has completed, or was stopped: that is when it saves them"
    fix = f"`fusionrun status {layout.id}` says how it stands, and how it goes on"
    raise ComponentError(Problem(None, f"run {layout.id}", got, expected, fix))


def _select(pattern: str, manifest: Manifest) -> list[str]:
    known = list(manifest.components)
    groups = [f"{group}.*" for group in dict.fromkeys(n.split(".")[0] for n in known if "." in n)]
    if pattern in known:
        return [pattern]
    if pattern in groups:
        return [name for name in known if name.startswith(pattern[:-1])]
    if pattern == "all" and known:
        return known
    choices = [*known, *groups, "all"]
    where = f"components of {manifest.run_id}"
    hint = did_you_mean(pattern, choices)
    raise UserError(Problem(None, where, repr(pattern), ", ".join(choices), hint))


def _file_for(name: str, output: Path | None) -> Path:
    file = Path(f"{name}.safetensors")
    if output is None:
        return file
    return output / file if output.is_dir() else output


def _refuse_unsafe(layout: RunLayout, targets: Iterable[Path]) -> None:
    """No device is renamed over, and no run loses its own files to an export."""
    own = layout.root.resolve()
    for target in targets:
        if target.exists() and not target.is_file():
            raise UserError(f"{target}: not a regular file; -o names another place")
        if target.resolve().is_relative_to(own):
            raise UserError(f"{target}: lies inside the run itself; -o names another place")


def _refuse_others(
    targets: Mapping[str, Path], manifest: Manifest, listing: _Listing | None
) -> None:
    others = [
        path for name, path in targets.items() if path.exists() and not _same(path, name, manifest)
    ]
    if listing and listing.path.exists() and not listing.stands():
        others.append(listing.path)
    if others:
        lines = "".join(f"\n  {path}" for path in others)
        fix = "-o names another place, --force replaces what is there"
        raise UserError(f"there already, with other content; {fix}:{lines}")


def _same(path: Path, name: str, manifest: Manifest) -> bool:
    record = manifest.components[name]
    return path.is_file() and path.stat().st_size == record.bytes and sha256(path) == record.sha256


def _copy(name: str, source: Path, target: Path, manifest: Manifest) -> Exported:
    record = manifest.components[name]
    exported = Exported(name, target, record.bytes, record.sha256, _same(target, name, manifest))
    if not exported.unchanged:
        with _writing(target):
            _copy_bytes(source / record.file, target, record.sha256)
    return exported


def _copy_bytes(source: Path, target: Path, expected: str) -> None:
    digest = hashlib.sha256()
    with open_component(source) as file, atomic.replacing(target) as out:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
        # Inside the block, so that bytes which changed since they were verified are thrown away.
        if digest.hexdigest() != expected:
            raise ComponentError(f"{source}: changed while it was exported; export it again")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Makes the directory, and turns what the file system says into an error for the user."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"{path}: cannot be written: {why}; -o names another place") from error


def _bad_weights(text: str) -> UserError:
    expected = "a path, or run:ID#COMPONENT such as run:digits-1a2b3c4d-s0#experts.fourier"
    return UserError(Problem(None, "weights", repr(text), expected))
