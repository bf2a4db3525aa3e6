"""The code a run will run: what is copied, what is left out, and that nothing changes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fusionrun
from fusionrun.errors import UserError
from fusionrun.submit import project
from fusionrun.submit.project import list_project, looks_secret
from fusionrun.submit.snapshot import find_snapshot, scan, snapshots_dir, store, take_snapshot

HOSTILE = "a b; $(touch x) `y` #1 %n 'q' \"d\" ü.py"


def git(folder: Path, *arguments: str) -> None:
    names = {
        f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    subprocess.run(
        ["git", "-C", folder, *arguments],
        env={**os.environ, **names, "GIT_CONFIG_GLOBAL": os.devnull},
        check=True,
        capture_output=True,
    )


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere" / "runs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project without git."""
    path = tmp_path / "project"
    path.mkdir()
    (path / "model.py").write_text("WIDTH = 1\n")
    return path


@pytest.fixture
def repository(folder: Path) -> Path:
    """A project with git: one commit, one ignored folder."""
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text("/made/\n")
    (folder / "made").mkdir()
    (folder / "made" / "huge.bin").write_text("x")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def files(folder: Path, runs: Path) -> set[str]:
    return set(list_project(folder, runs).files)


# Which files


def test_new_files_are_in_and_ignored_ones_are_not(repository: Path, runs: Path) -> None:
    (repository / "new.py").write_text("")
    assert files(repository, runs) == {".gitignore", "model.py", "new.py"}


def test_the_project_is_the_whole_work_tree_that_the_recipe_stands_in(
    repository: Path, runs: Path
) -> None:
    below = repository / "recipes" / "mine"
    below.mkdir(parents=True)
    (below / "r.yaml").write_text("")
    found = list_project(below, runs)
    assert found.root == repository.resolve()
    assert set(found.files) == {".gitignore", "model.py", "recipes/mine/r.yaml"}


def test_a_deleted_file_that_git_still_tracks_is_no_error(repository: Path, runs: Path) -> None:
    (repository / "model.py").unlink()
    assert files(repository, runs) == {".gitignore"}


def test_a_repository_inside_the_repository_is_in(repository: Path, runs: Path) -> None:
    inner = repository / "inner"
    inner.mkdir()
    git(inner, "init", "-q")
    (inner / "lib.py").write_text("")
    assert "inner/lib.py" in files(repository, runs)


def test_a_hook_of_another_repository_changes_nothing(
    repository: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert files(repository, runs) == {".gitignore", "model.py"}


def test_without_git_hidden_files_caches_and_environments_are_not_in(
    folder: Path, runs: Path
) -> None:
    for name in (".hidden", "__pycache__/a.pyc", "venv/pyvenv.cfg", "x.egg-info/y", "sub/in.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    assert files(folder, runs) == {"model.py", "sub/in.py"}


@pytest.mark.parametrize("name", ["project", "repository"])
def test_runs_are_never_in(name: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue("folder" if name == "project" else name)
    for place in ("runs/r-1-s0", "other/r-2-s0"):
        (path / place / "logs").mkdir(parents=True)
        for file in ("plan.json", "recipe.yaml", "logs/job.log"):
            (path / place / file).write_text("{}")
    (path / "runs" / "notes.txt").write_text("")
    assert {f for f in files(path, path / "runs") if f != ".gitignore"} == {"model.py"}


def test_a_project_that_is_its_own_directory_of_runs_is_copied(folder: Path) -> None:
    assert files(folder, folder) == {"model.py"}


def test_a_large_file_is_left_out_and_named(
    repository: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "MAX_FILE_BYTES", 1_000_000)
    (repository / "data.npz").write_bytes(bytes(2_000_000))
    assert list_project(repository, runs).left_out == (("data.npz", "2 MB, more than 1"),)


def test_a_home_directory_is_refused(
    folder: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(project, "MAX_FILES", 3)
    for number in range(4):
        (folder / f"{number}.py").write_text("")
    with pytest.raises(UserError, match=r"too much for a project: 4 files.*\n.*at most 3 files"):
        list_project(folder, runs)


def test_links_are_followed_to_files_and_named_otherwise(folder: Path, runs: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "to_file.py").symlink_to("model.py")
    (folder / "to_nothing").symlink_to("nothing")
    found = list_project(folder, runs)
    assert set(found.files) == {"model.py", "to_file.py"}
    assert found.left_out == (("to_nothing", "a link to nothing"),)


@pytest.mark.parametrize("kept_by_git", [True, False])
def test_a_link_out_of_the_project_is_left_out_and_named(
    folder: Path, runs: Path, kept_by_git: bool
) -> None:
    outside = folder.parent / "elsewhere.py"
    outside.write_text("PRIVATE = 1\n")
    (folder / "shared.py").symlink_to(outside)
    if kept_by_git:
        git(folder, "init", "-q")
    found = list_project(folder, runs)
    assert found.files == ("model.py",)
    assert found.left_out == (("shared.py", "a link out of the project"),)


def test_linked_and_hidden_folders_and_hidden_files_are_named(folder: Path, runs: Path) -> None:
    for name in (".aws/config", ".notes/a", "sub/.more/b", ".profile", "__pycache__/c"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    (folder / "linked").symlink_to("sub")
    assert list_project(folder, runs).left_out == (
        (".aws/", "may hold a secret"),
        (".notes/", "hidden"),
        (".profile", "hidden"),
        ("linked", "a link to a folder"),
        ("sub/.more/", "hidden"),
    )


# Secrets


@pytest.mark.parametrize(
    "name",
    [
        ".env", ".env.local", "server.pem", "id_rsa", "id_ed25519.pub", "hf_token", "TOKEN.txt",
        "my-secrets.yaml", "credentials.json", ".netrc", "db_password.txt", "secrets.py", "a.key",
    ],
)  # fmt: skip
def test_a_name_that_says_secret_is_one(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokens.py", "token_loss.py", "environment.yaml", "keys.py", "a.py"]
)
def test_a_name_that_only_sounds_like_it_is_none(name: str) -> None:
    assert not looks_secret(name)


def test_secrets_are_neither_in_the_files_nor_in_the_diff(repository: Path, runs: Path) -> None:
    (repository / ".env").write_text("KEY=old\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "oops")
    (repository / ".env").write_text("KEY=hunter2\n")
    (repository / "model.py").write_text("WIDTH = 2\n")
    snapshot = take_snapshot(repository, runs)
    assert [left.path for left in snapshot.left_out] == [".env"]
    assert "+WIDTH = 2" in snapshot.diff
    everything = b"".join(p.read_bytes() for p in snapshot.path.rglob("*") if p.is_file())
    assert b"hunter2" not in everything


# The copy


def test_it_is_named_by_what_it_holds(repository: Path, runs: Path) -> None:
    first = scan(repository, runs).id
    assert scan(repository, runs).id == first
    (repository / "new.py").write_text("")
    assert scan(repository, runs).id != first


def test_scanning_writes_nothing(folder: Path, runs: Path) -> None:
    scan(folder, runs)
    assert not runs.exists()


def test_hostile_names_are_copied_as_they_are(repository: Path, runs: Path) -> None:
    (repository / HOSTILE).write_text("x = 1\n")
    (repository / "new\nline.py").write_text("")
    raw = os.fsdecode(b"\xff.py")
    (repository / raw).write_text("")
    snapshot = take_snapshot(repository, runs)
    for name in (HOSTILE, "new\nline.py", raw):
        assert (snapshot.path / "project" / name).is_file()
    assert find_snapshot(snapshots_dir(runs), snapshot.id) == snapshot.path


def test_modes_stay_and_nobody_may_write(folder: Path, runs: Path) -> None:
    (folder / "tool.sh").write_text("")
    (folder / "tool.sh").chmod(0o755)
    path = take_snapshot(folder, runs).path / "project"
    assert (path / "tool.sh").stat().st_mode & 0o777 == 0o555
    assert (path / "model.py").stat().st_mode & 0o777 == 0o444


def modes(path: Path) -> list[int]:
    return [(path / name).stat().st_mode & 0o777 for name in (".", "model.py", "mine", "mine/a.sh")]


def test_nobody_may_read_a_copy_who_may_not_read_the_file(folder: Path, runs: Path) -> None:
    (folder / "mine").mkdir(mode=0o700)
    (folder / "mine" / "a.sh").write_text("")
    (folder / "mine" / "a.sh").chmod(0o744)
    (folder / "model.py").chmod(0o644)
    first = take_snapshot(folder, runs)
    assert modes(first.path / "project")[1:] == [0o444, 0o700, 0o544]
    (folder / "model.py").chmod(0o600)
    folder.chmod(0o750)
    assert take_snapshot(folder, runs).id == first.id
    assert modes(first.path / "project") == [0o750, 0o400, 0o700, 0o544]


def test_the_diff_against_the_commit_is_kept(repository: Path, runs: Path) -> None:
    (repository / "model.py").write_text("WIDTH = 2\n")
    snapshot = take_snapshot(repository, runs)
    assert snapshot.commit
    assert "+WIDTH = 2" in (snapshot.path / "dirty.diff").read_text()


def test_a_second_run_of_the_same_code_shares_it(folder: Path, runs: Path) -> None:
    first = take_snapshot(folder, runs)
    kept = first.path.stat().st_ino
    assert take_snapshot(folder, runs).path.stat().st_ino == kept
    assert [p.name for p in snapshots_dir(runs).iterdir()] == [first.id]


def test_a_file_that_changes_while_it_is_copied_is_noticed(folder: Path, runs: Path) -> None:
    snapshot = scan(folder, runs)
    (folder / "model.py").write_text("WIDTH = 3\n")
    with pytest.raises(UserError, match=r"model.py: changed while it was copied; submit again"):
        store(snapshot)
    assert list(snapshots_dir(runs).iterdir()) == []


def test_a_snapshot_that_somebody_edited_is_refused(folder: Path, runs: Path) -> None:
    snapshot = take_snapshot(folder, runs)
    edited = snapshot.path / "project" / "model.py"
    edited.chmod(0o644)
    edited.write_text("WIDTH = 9\n")
    with pytest.raises(UserError, match=r"model.py: changed since the snapshot was taken"):
        find_snapshot(snapshots_dir(runs), snapshot.id)


def test_a_snapshot_that_is_gone_is_said_to_be(folder: Path, runs: Path) -> None:
    with pytest.raises(UserError, match=r"gone from the snapshot of the code\n.*submit --new"):
        find_snapshot(snapshots_dir(runs), "0" * 16)


def test_a_place_that_cannot_be_written_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"no snapshot can be written"):
        take_snapshot(folder, tmp_path / "file")


# Running it


def test_python_finds_the_snapshots_code_first(folder: Path, runs: Path) -> None:
    snapshot = take_snapshot(folder, runs)
    (folder / "model.py").write_text("WIDTH = 2\n")
    path = snapshot.python_path(search=[], inherited=str(folder))
    program = "import fusionrun, model; print(model.WIDTH, fusionrun.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    width, file = done.stdout.split(maxsplit=1)
    assert (width, Path(file.strip()).parents[2]) == ("1", snapshot.path)


def test_an_editable_installs_folder_is_taken_from_the_snapshot(folder: Path, runs: Path) -> None:
    (folder / "src" / "mine").mkdir(parents=True)
    (folder / "src" / "mine" / "__init__.py").write_text("")
    snapshot = scan(folder, runs)
    users = str(folder.parent)
    path = snapshot.python_path(search=[str(folder / "src"), "/usr/lib"], inherited=users)
    top = snapshot.path
    assert path == tuple(map(str, (top / "package", top / "project", top / "project/src", users)))


def test_what_is_not_there_is_not_on_the_path(runs: Path, tmp_path: Path) -> None:
    snapshot = scan(None, runs)  # (of no project)
    path = snapshot.python_path(search=[], inherited=f"/no/such/folder:{tmp_path}")
    assert path == (str(snapshot.path / "package"), str(tmp_path))


def test_the_whole_package_is_in_it_with_its_templates(runs: Path) -> None:
    snapshot = take_snapshot(None, runs)
    package = snapshot.path / "package" / "fusionrun"
    own = Path(fusionrun.__file__).parent
    for path in own.rglob("*.py"):
        assert (package / path.relative_to(own)).read_bytes() == path.read_bytes()
    assert list((package / "_shipped" / "templates").iterdir())
