"""The code that a run will run, copied aside so that nobody's editing reaches it.

A snapshot holds the user's project and fusionrun's own package, and is named by what it holds:
two runs of the same code share one. It lies under `<runs>/.snapshots`, its files are read-only,
nobody may read there what they may not read in the project, and it is complete before it has its
name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fusionrun.errors import UserError
from fusionrun.resources import shipped
from fusionrun.store.atomic import write_json
from fusionrun.submit.project import LeftOut, list_project

__all__ = ["Snapshot", "find_snapshot", "scan", "snapshots_dir", "store", "take_snapshot"]

FORMAT: Final = 1
ID_LENGTH: Final = 16
MOST_NAMED: Final = 8
"""Files that a screen names; the submission record names all."""

_MANIFEST: Final = "snapshot.json"
_DIFF: Final = "dirty.diff"
_PROJECT: Final = "project"
# fusionrun's package alone: another package of the place it is installed in is not its own.
_PACKAGE: Final = "package"


@dataclass(frozen=True)
class Snapshot:
    """A copy of code, there already or about to be.

    Attributes:
        id: 16 hexadecimal digits of what it holds: files, commit and diff.
        path: its directory.
        files: where each file comes from, by where it stands in `path`.
        left_out: files of the project that are not in it.
        commit: of the project; None outside git.
        diff: of the project's tracked files against the commit; empty where there is none.
        project: what was copied; None where fusionrun alone was.
        manifest: what `snapshot.json` says.
    """

    id: str
    path: Path
    files: Mapping[str, Path]
    left_out: tuple[LeftOut, ...]
    commit: str | None
    diff: str
    project: Path | None
    manifest: Mapping[str, Any]

    def python_path(
        self, search: Sequence[str] | None = None, inherited: str | None = None
    ) -> tuple[str, ...]:
        """What goes on PYTHONPATH: the snapshot first, then what was there, the project excepted.

        An entry that is not there is none to Python, and does not go along.

        Args:
            search: where this Python looks for modules; `sys.path` unless given. Folders of the
                project in it (`src` of an editable install) are taken from the snapshot.
            inherited: PYTHONPATH as it is; the environment's unless given.
        """
        given = os.environ.get("PYTHONPATH", "") if inherited is None else inherited
        entries = [entry for entry in given.split(os.pathsep) if entry and os.path.exists(entry)]
        outside = [entry for entry in entries if not self._below(entry)]
        paths = [str(self.path / _PACKAGE)]
        if any(name.startswith(f"{_PROJECT}/") for name in self.files):
            paths.append(str(self.path / _PROJECT))
        paths += self._copied_folders(sys.path if search is None else search)
        return tuple(dict.fromkeys([*paths, *map(os.path.abspath, outside)]))

    @property
    def left_out_in_words(self) -> str:
        """What is not in it, the first few by name, secrets before all; empty for nothing."""
        words = [f"{left.path} ({left.why})" for left in self.left_out[:MOST_NAMED]]
        more = len(self.left_out) - len(words)
        return ", ".join(words) + (f", and {more} more" if more else "")

    def _copied_folders(self, search: Sequence[str]) -> Iterator[str]:
        starts = {os.path.dirname(name) for name in self.files}
        for entry in search:
            below = self._below(entry) if entry else None
            copied = f"{_PROJECT}/{below}"
            if below and any(f"{start}/".startswith(f"{copied}/") for start in starts):
                yield str(self.path / copied)

    def _below(self, entry: str) -> str | None:
        """Where in the project a folder is: `.` for its top, None outside it."""
        if self.project is None:
            return None
        real = Path(os.path.realpath(entry))
        if not real.is_relative_to(self.project):
            return None
        return real.relative_to(self.project).as_posix()


def snapshots_dir(runs_dir: Path) -> Path:
    """Where snapshots lie; the leading dot keeps it from being taken for a run."""
    return runs_dir.absolute() / ".snapshots"


def take_snapshot(folder: Path | None, runs_dir: Path) -> Snapshot:
    """Copy the project that `folder` belongs to, and fusionrun; nothing where that is done already.

    Args:
        folder: the recipe's; None for fusionrun alone.
        runs_dir: where runs live.

    Raises:
        UserError: see `scan` and `store`.
    """
    snapshot = scan(folder, runs_dir)
    store(snapshot)
    return snapshot


def scan(folder: Path | None, runs_dir: Path) -> Snapshot:
    """What a snapshot would be now. Reads every file, writes nothing.

    Raises:
        UserError: the project is too large to be one, or a file of it cannot be read.
    """
    sources = dict(_own_package())
    project = list_project(folder, runs_dir) if folder else None
    if project:
        sources |= {f"{_PROJECT}/{name}": project.root / name for name in project.files}
    diff = project.diff if project else ""
    manifest = {
        "format": FORMAT,
        "commit": project.commit if project else None,
        "diff_sha256": _sha256(_encoded(diff)) if diff else None,
        "files": {name: _record(sources[name]) for name in sorted(sources)},
    }
    digest = _id(manifest)
    return Snapshot(
        id=digest,
        path=snapshots_dir(runs_dir) / digest,
        files=sources,
        left_out=project.left_out if project else (),
        commit=project.commit if project else None,
        diff=diff,
        project=project.root if project else None,
        manifest=manifest,
    )


def store(snapshot: Snapshot) -> None:
    """Write a snapshot that is not there yet; one that is there is proved to be whole.

    Raises:
        UserError: a file changed meanwhile, or the directory cannot be written.
    """
    if snapshot.path.is_dir():
        find_snapshot(snapshot.path.parent, snapshot.id)
        with suppress(OSError):  # (another user's, who has taken it of the same files)
            _narrow(snapshot.path, snapshot)
        return
    aside = snapshot.path.with_name(f".{snapshot.id}.{os.urandom(6).hex()}")
    try:
        aside.mkdir(parents=True)
        _fill(aside, snapshot)
        _give_name(aside, snapshot.path)
    except OSError as error:
        where = error.filename or snapshot.path
        raise UserError(f"{where}: no snapshot can be written: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def find_snapshot(folder: Path, snapshot_id: str) -> Path:
    """The directory of a snapshot, every file of it proved to be what was copied.

    Args:
        folder: `snapshots_dir`.
        snapshot_id: of the snapshot.

    Raises:
        UserError: it is gone, or not what it was.
    """
    path = folder / snapshot_id
    fix = "`fusionrun submit --new` takes a new one; runs of the old one cannot go on"
    try:
        manifest = json.loads((path / _MANIFEST).read_bytes())
        broken = None if _id(manifest) == snapshot_id else _MANIFEST
        for name, record in manifest["files"].items():
            if broken is None and _record(path / name) != record:
                broken = name
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: gone from the snapshot of the code\n  {fix}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: the snapshot is damaged: {error}\n  {fix}") from error
    if broken:
        raise UserError(f"{path / broken}: changed since the snapshot was taken\n  {fix}")
    return path


def _own_package() -> Iterator[tuple[str, Path]]:
    import fusionrun

    package = Path(fusionrun.__file__).parent
    yield from _below_folder(package, f"{_PACKAGE}/{package.name}")
    templates = shipped("templates")
    if not templates.is_relative_to(package):  # an editable install's stand beside the package
        yield from _below_folder(templates, f"{_PACKAGE}/{package.name}/_shipped/{templates.name}")


def _below_folder(folder: Path, target: str) -> Iterator[tuple[str, Path]]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in files:
            path = Path(parent, name)
            yield f"{target}/{path.relative_to(folder).as_posix()}", path


def _record(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        executable = os.access(path, os.X_OK) and bool(path.stat().st_mode & 0o100)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return {"sha256": _sha256(content), "bytes": len(content), "executable": executable}


def _fill(aside: Path, snapshot: Snapshot) -> None:
    for name, record in snapshot.manifest["files"].items():
        target = aside / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # A log may have grown since: what was there then is taken.
        content = snapshot.files[name].read_bytes()[: record["bytes"]]
        if _sha256(content) != record["sha256"]:
            raise UserError(f"{snapshot.files[name]}: changed while it was copied; submit again")
        _write(target, content, 0o555 if record["executable"] else 0o444)
    if snapshot.diff:  # (of files that others may not be allowed to read)
        _write(aside / _DIFF, _encoded(snapshot.diff), 0o400)
    write_json(aside / _MANIFEST, snapshot.manifest)
    _narrow(aside, snapshot)


def _narrow(path: Path, snapshot: Snapshot) -> None:
    """Take from everybody else what the project's own files and folders do not let them read."""
    if snapshot.project is None:
        return
    top = path / _PROJECT
    for parent, _, names in os.walk(top):
        place = Path(parent).relative_to(top)
        _limit(Path(parent), snapshot.project / place, own=0o700)
        for name in names:
            _limit(Path(parent, name), snapshot.project / place / name, own=0o400)


def _limit(copy: Path, original: Path, own: int) -> None:
    before = stat.S_IMODE(copy.stat().st_mode)
    allowed = before & (stat.S_IMODE(original.stat().st_mode) | ~0o777) | own
    if allowed != before:
        copy.chmod(allowed)


def _write(path: Path, content: bytes, mode: int) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), mode)


def _give_name(aside: Path, path: Path) -> None:
    try:
        os.rename(aside, path)
    except OSError:
        if not path.is_dir():
            raise
        # Another submit was faster, with the same content.
        find_snapshot(path.parent, path.name)


def _id(manifest: Mapping[str, Any]) -> str:
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return _sha256(canonical.encode())[:ID_LENGTH]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _encoded(text: str) -> bytes:
    return os.fsencode(text)
