"""Which files are a user's project: those that a run's code may need, and no others. Reads only.

In a git work tree git decides: what is tracked and what is new count, what is ignored does not.
Elsewhere it is the recipe's folder without what is hidden or a cache. Data does not belong to it:
the plan names its files where they are, and large files are left out. So are files whose names
say that they hold a secret, and links that lead out of the project: what they lead to is somebody
else's to hand on. Whatever is left out is told, with the reason, but for what git ignores and
what programs make: caches, environments, runs.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from fusionrun.errors import UserError
from fusionrun.store.layout import RunLayout

__all__ = ["LeftOut", "Project", "commit_and_diff", "list_project", "looks_secret"]

MAX_FILE_BYTES: Final = 10_000_000
"""Larger than any source file; assumed. What is larger is data, or was made by a program."""
MAX_FILES: Final = 10_000
MAX_BYTES: Final = 500_000_000
"""More than this is a home directory or a data set, not a project; assumed."""

_GIT_TIMEOUT_S: Final = 60
_PLAIN: Final = (
    *("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-relative"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--submodule=short"),
)
"""A diff as git makes it by itself, whatever a user's configuration says."""
_CACHES: Final = frozenset({"__pycache__", "node_modules", "site-packages"})

_KEYS: Final = re.compile(
    r"\.env(rc)?([._-].*)?|.*\.env|id_(rsa|dsa|ecdsa|ed25519).*"
    r"|[._]?(netrc|pgpass|pypirc|npmrc|htpasswd|dockercfg|s3cfg|boto|my\.cnf)"
    r"|.*\.(pem|key|p8|p12|pfx|jks|keystore|kdbx|ppk|tfvars|tfstate)"
    r"|kubeconfig|(kaggle|auth|service[-_]?account.*)\.json",
    re.IGNORECASE,
)
# `tokenizer.json` is none.
_SECRET_WORD: Final = re.compile(
    r"token(?!i[sz])|secret|credential|passw(or)?d|passphrase|(api|access|private)[-_]?key",
    re.IGNORECASE,
)
_SECRET_FOLDER: Final = re.compile(
    r"(.*/)?(\.(aws|azure|gcloud|gnupg|huggingface|kube|oci|password-store|ssh)"
    r"|\.?(secrets?|credentials?)|\.docker(?=/config\.json$))/.*",
    re.IGNORECASE | re.DOTALL,
)
# Code that speaks of tokens must not go missing; code that is called so and nothing else holds one.
_CODE: Final = frozenset({".py", ".pyi", ".pyx", ".c", ".cc", ".cpp", ".cu", ".h", ".hpp", ".sh"})
_SECRET_CODE: Final = re.compile(
    r"_?(my_?)?(secrets?|credentials?|passwords?|api_?keys?)", re.IGNORECASE
)


class LeftOut(NamedTuple):
    """A file that is not part of the snapshot.

    Attributes:
        path: relative to the project, `/` between the parts; a folder's ends with one.
        why: in a word or two.
    """

    path: str
    why: str


class Found(NamedTuple):
    """A file of a project, or a folder whose content is not looked at.

    Attributes:
        path: as in `LeftOut`.
        is_hidden: and therefore no part of the project.
    """

    path: str
    is_hidden: bool


class Project(NamedTuple):
    """The files of a project as they are now.

    Attributes:
        root: the top of the git work tree, or the recipe's folder.
        files: relative to `root`, `/` between the parts, sorted.
        left_out: what could have been taken for a part of it, and is not.
        commit: what is checked out; None outside git, and before the first commit.
        diff: what the tracked files differ from it, secrets left out; empty where they do not.
    """

    root: Path
    files: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    commit: str | None
    diff: str


def list_project(folder: Path, runs_dir: Path) -> Project:
    """The project that a folder belongs to.

    Args:
        folder: the recipe's.
        runs_dir: where runs live; never a part of it.

    Raises:
        UserError: it has so many files that it cannot be meant.
    """
    folder = folder.resolve()
    top = _git(folder, "rev-parse", "--show-toplevel")
    root = Path(top.removesuffix("\n")) if top else folder
    found = _git_files(root) if top else _walk(root)
    chosen, left_out = _choose(root, found, runs_dir.absolute())
    if not top:
        return Project(root, chosen, left_out, None, "")
    return Project(root, chosen, left_out, *commit_and_diff(root))


def commit_and_diff(folder: Path) -> tuple[str | None, str]:
    """What is checked out, and what the tracked files differ from it, secrets left out.

    Returns:
        None and nothing outside git, and before the first commit.
    """
    commit = (_git(folder, "rev-parse", "--verify", "--quiet", "HEAD") or "").strip() or None
    return commit, _diff(folder) if commit else ""


_SECRET: Final = "may hold a secret"
_HIDDEN: Final = "hidden"


def looks_secret(path: str) -> bool:
    """Whether a file's name, or a folder it is in, says that it holds a secret.

    Such as `.env`, `*.pem`, `api_token.txt` and all in `.aws`.
    """
    name = os.path.basename(path)
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in _CODE:
        return bool(_SECRET_CODE.fullmatch(stem))
    return bool(
        _KEYS.fullmatch(name) or _SECRET_WORD.search(name) or _SECRET_FOLDER.fullmatch(path)
    )


def _is_secret(root: Path, path: str) -> bool:
    """As `looks_secret`; a link is as secret as the file that it leads to."""
    if looks_secret(path):
        return True
    if not (root / path).is_symlink():
        return False
    real = Path(os.path.realpath(root / path))
    return looks_secret(str(real.relative_to(root) if real.is_relative_to(root) else real))


def _choose(
    root: Path, found: Iterator[Found], runs_dir: Path
) -> tuple[tuple[str, ...], tuple[LeftOut, ...]]:
    chosen: list[str] = []
    left_out: list[LeftOut] = []
    total = 0
    are_runs = _AreRuns(root, runs_dir)
    for path, hidden in found:
        if are_runs(os.path.dirname(path.rstrip("/"))):
            continue
        size, why = (None, _HIDDEN) if hidden else _look_at(root, path)
        if (why or size is not None) and _is_secret(root, path):
            size, why = None, _SECRET
        if why:
            left_out.append(LeftOut(path, why))
        elif size is not None:
            chosen.append(path)
            total += size
        if len(chosen) > MAX_FILES or total > MAX_BYTES:
            raise UserError(_too_much(root, len(chosen), total))
    left_out.sort(key=lambda left: (left.why != _SECRET, left.path))
    return tuple(sorted(chosen)), tuple(left_out)


def _too_much(root: Path, files: int, total: int) -> str:
    return (
        f"{root}: too much for a project: {files:,} files, {total / 1e6:,.0f} MB and more\n"
        f"  expected at most {MAX_FILES:,} files and {MAX_BYTES / 1e6:,.0f} MB\n"
        "  A run gets a copy of the code beside its recipe. Give the recipe a folder of its own, "
        "or make\n  the project a git repository and list what is no code in .gitignore."
    )


def _look_at(root: Path, name: str) -> tuple[int | None, str]:
    """A file's size, and why it is left out; neither where there is no file any more."""
    path = root / name
    try:
        details = path.stat()
    except FileNotFoundError:
        return None, "a link to nothing" if path.is_symlink() else ""
    except OSError as error:
        return None, error.strerror or str(error)
    if not path.is_file():
        return None, "a link to a folder" if path.is_dir() else "no plain file"
    if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
        return None, "a link out of the project"
    if details.st_size > MAX_FILE_BYTES:
        return None, f"{details.st_size / 1e6:,.0f} MB, more than {MAX_FILE_BYTES / 1e6:.0f}"
    return (details.st_size, "") if os.access(path, os.R_OK) else (None, "may not be read")


class _AreRuns:
    """Whether a folder of the project holds runs, or belongs to one."""

    def __init__(self, root: Path, runs_dir: Path) -> None:
        self._root = root
        self._known = {"": False}
        resolved = runs_dir.resolve()
        if resolved != root and resolved.is_relative_to(root):
            self._known[resolved.relative_to(root).as_posix()] = True

    def __call__(self, folder: str) -> bool:
        if folder not in self._known:
            run = RunLayout(self._root / folder)
            is_run = run.plan.is_file() and run.recipe.is_file()
            self._known[folder] = is_run or self(os.path.dirname(folder))
        return self._known[folder]


def _walk(root: Path) -> Iterator[Found]:
    for parent, folders, files in os.walk(root):
        place = Path(parent).relative_to(root)
        folders[:] = sorted(name for name in folders if not _is_cache(parent, name))
        for name in folders:
            if name.startswith("."):
                yield Found(f"{(place / name).as_posix()}/", True)
            elif os.path.islink(os.path.join(parent, name)):
                yield Found((place / name).as_posix(), False)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in sorted(files):
            yield Found((place / name).as_posix(), name.startswith("."))


def _is_cache(parent: str, name: str) -> bool:
    return (
        name in _CACHES
        or name.endswith(".egg-info")
        or os.path.exists(os.path.join(parent, name, "pyvenv.cfg"))
    )


def _git_files(root: Path, below: str = "") -> Iterator[Found]:
    """Tracked and new files; those of repositories inside it too."""
    listed = _git(root / below, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in dict.fromkeys((listed or "").split("\0")):
        path = f"{below}{name}".rstrip("/")
        if name and (root / path).is_dir() and not (root / path).is_symlink():
            yield from _git_files(root, f"{path}/")
        elif name:
            yield Found(path, False)


def _diff(folder: Path) -> str:
    # By what has changed, not by what is there: a deleted secret stands in a diff as well.
    changed = _git(folder, "diff", *_PLAIN, "--name-only", "-z", "HEAD")
    if changed is None:
        return ""
    secrets = [name for name in changed.split("\0") if looks_secret(name)]
    without = [f":(top,exclude,literal){name}" for name in secrets]
    return _git(folder, "diff", *_PLAIN, "HEAD", "--", ":(top)", *without) or ""


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where it is not installed, or this is none of its folders."""
    # Inside a hook these name another repository.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            env={**clean, "GIT_OPTIONAL_LOCKS": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return os.fsdecode(done.stdout) if done.returncode == 0 else None
