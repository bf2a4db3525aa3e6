"""Checkpoints on disk: whole or not there, and only proved bytes come back."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fusionrun.store.checkpoints import (
    Checkpoint,
    Damaged,
    list_checkpoints,
    remove_checkpoints,
    save_checkpoint,
    set_aside,
)

FILES = {"weights": b"w" * 1000, "place.json": b'{"epoch": 3}', "empty": b""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def saved(folder: Path) -> Checkpoint:
    return save_checkpoint(folder, 123, FILES.items())


def steps(folder: Path) -> list[int]:
    return [checkpoint.step for checkpoint in list_checkpoints(folder)]


def test_what_was_saved_comes_back_byte_for_byte(saved: Checkpoint) -> None:
    assert saved.name == "step-000000123"
    assert saved.read() == FILES


def test_the_newest_comes_first_also_beyond_nine_digits(folder: Path) -> None:
    for step in (20, 3, 10**9, 100):
        save_checkpoint(folder, step, FILES.items())
    assert steps(folder) == [10**9, 100, 20, 3]


def test_a_checkpoint_under_anothers_name_is_damaged(saved: Checkpoint) -> None:
    moved = saved.path.rename(saved.path.with_name("step-000000200"))
    (found,) = list_checkpoints(moved.parent)
    with pytest.raises(Damaged, match="of step 123, and the directory is called step-000000200"):
        found.read()


@pytest.mark.parametrize("thorough", [False, True])
def test_a_changed_byte_is_a_problem_to_whoever_reads_them_all(
    saved: Checkpoint, thorough: bool
) -> None:
    assert saved.problem(thorough=True) == ""
    (saved.path / "weights").write_bytes(b"v" * 1000)
    assert ("sha256" in saved.problem(thorough=thorough)) == thorough


def test_no_folder_holds_no_checkpoints(folder: Path) -> None:
    assert list_checkpoints(folder) == []


def test_what_is_no_checkpoint_is_not_listed(saved: Checkpoint, folder: Path) -> None:
    for name in ("step-12", "step-000000124.old", ".step-000000125.tmp-0a1b2c3d4e5f", "notes"):
        (folder / name).mkdir()
    assert steps(folder) == [123]


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("harm", ["flipped", "longer", "missing"])
def test_any_harm_to_any_file_is_noticed(name: str, harm: str, saved: Checkpoint) -> None:
    path = saved.path / name
    content = bytearray(path.read_bytes())
    if harm == "missing":
        path.unlink()
    elif harm == "longer" or not content:
        path.write_bytes(content + b" {")
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(Damaged, match=name):
        saved.read()


def test_a_save_that_fails_leaves_what_was_there(saved: Checkpoint, folder: Path) -> None:
    def files() -> Iterator[tuple[str, bytes]]:
        yield "weights", b"new"
        raise OSError("no space left")

    for step in (123, 124):
        with pytest.raises(OSError, match="no space left"):
            save_checkpoint(folder, step, files())
    assert [path.name for path in folder.iterdir()] == [saved.name]
    assert saved.read() == FILES


def test_a_checkpoint_of_the_same_step_is_replaced(saved: Checkpoint, folder: Path) -> None:
    save_checkpoint(folder, 123, [("weights", b"new")])
    assert saved.read() == {"weights": b"new"}


def test_all_but_the_kept_are_removed_and_leftovers_of_killed_saves_too(folder: Path) -> None:
    kept = [save_checkpoint(folder, step, FILES.items()) for step in (1, 2, 3)][1:]
    (folder / ".step-000000004.tmp-0a1b2c3d4e5f").mkdir()
    (folder / "notes").mkdir()
    remove_checkpoints(folder, keep=kept)
    assert sorted(path.name for path in folder.iterdir()) == [
        "notes",
        "step-000000002",
        "step-000000003",
    ]


def test_a_second_one_set_aside_takes_the_next_name(saved: Checkpoint, folder: Path) -> None:
    names = [set_aside(saved).name]
    names.append(set_aside(save_checkpoint(folder, saved.step, FILES.items())).name)
    assert names == [f"{saved.name}.damaged", f"{saved.name}.damaged-2"]
    assert list_checkpoints(folder) == []


def test_where_none_is_kept_the_folder_goes(saved: Checkpoint, folder: Path) -> None:
    remove_checkpoints(folder)
    assert not folder.exists()


def test_removing_from_a_folder_that_is_not_there_is_no_error(folder: Path) -> None:
    remove_checkpoints(folder)
    assert not folder.exists()


def remade(saved: Checkpoint, change: Callable[[dict[str, Any]], object]) -> None:
    """Another manifest, with a digest that fits it."""
    path = saved.path / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    change(manifest)
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    manifest["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    path.write_text(json.dumps(manifest))


def named(name: str) -> Callable[[dict[str, Any]], object]:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"].pop("weights")

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (named("../weights"), r"names '\.\./weights', which is no file of a checkpoint"),
        (named("nul\0"), "manifest.json has another shape"),
        (named("\ud800"), "manifest.json has another shape"),
        (lambda manifest: manifest.pop("files"), "manifest.json has another shape"),
        (lambda manifest: manifest.pop("format"), "has format None, expected 2"),
        (lambda manifest: manifest.update(format=1), "has format 1, expected 2"),
    ],
)
def test_a_manifest_of_another_shape_is_damaged_and_leads_nowhere(
    change: Callable[[dict[str, Any]], object], why: str, saved: Checkpoint
) -> None:
    (saved.path.parent / "weights").write_bytes(FILES["weights"])
    remade(saved, change)
    with pytest.raises(Damaged, match=why):
        saved.read()


def test_a_pipe_in_place_of_a_file_does_not_block(saved: Checkpoint) -> None:
    (saved.path / "weights").unlink()
    os.mkfifo(saved.path / "weights")
    with pytest.raises(Damaged, match="weights: not a regular file"):
        saved.read()
