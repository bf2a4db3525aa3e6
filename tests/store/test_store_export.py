"""An exported component is the run's own file, byte for byte, and torch is not needed."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fusionrun.errors import ComponentError, RunNotFoundError, UserError
from fusionrun.store import atomic
from fusionrun.store import export as export_module
from fusionrun.store.components import load_component, save_components, verify
from fusionrun.store.export import (
    Exported,
    PathSource,
    RunSource,
    export,
    locate_weights,
    parse_weights,
)
from fusionrun.store.layout import RunLayout, Which
from fusionrun.store.manifest import Manifest, read_manifest
from fusionrun.store.safetensors_header import sha256
from fusionrun.store.status import write_status

pytestmark = pytest.mark.usefixtures("saved")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def take(
    run: RunLayout,
    pattern: str,
    output: Path | None = None,
    *,
    which: Which = "best",
    force: bool = False,
) -> list[Exported]:
    return export(run, pattern, which=which, output=output, force=force)


def test_one_component_becomes_a_file_of_its_name(
    run: RunLayout, here: Path, saved: Manifest
) -> None:
    (done,) = take(run, "experts.fourier")
    record = saved.components["experts.fourier"]
    path = Path("experts.fourier.safetensors")
    assert done == Exported("experts.fourier", path, record.bytes, record.sha256)
    assert path.read_bytes() == run.component("best", "experts.fourier").read_bytes()
    assert os.listdir(here) == ["experts.fourier.safetensors"]


def test_an_exported_expert_loads_with_safetensors_alone(
    run: RunLayout, here: Path, components: dict[str, dict[str, torch.Tensor]]
) -> None:
    take(run, "experts.fourier", Path("out.safetensors"))
    tensors = load_file("out.safetensors")
    assert torch.equal(tensors["weight"], components["experts.fourier"]["weight"])


def test_an_output_that_is_a_directory_receives_the_file(run: RunLayout, here: Path) -> None:
    Path("models").mkdir()
    (done,) = take(run, "fusion", Path("models"))
    assert done.path == Path("models/fusion.safetensors")
    assert done.path.is_file()


def test_missing_parents_of_the_output_are_made(run: RunLayout, here: Path) -> None:
    take(run, "fusion", Path("a/b/c.safetensors"))
    assert Path("a/b/c.safetensors").is_file()


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("experts.*", ["experts.fourier", "experts.pixels"]),
        ("heads.*", ["heads.fourier", "heads.pixels"]),
        (
            "all",
            [
                *["experts.fourier", "experts.pixels", "heads.fourier", "heads.pixels"],
                *["fusion", "global_head"],
            ],
        ),
    ],
)
def test_several_components_become_a_components_directory(
    run: RunLayout, here: Path, pattern: str, names: list[str]
) -> None:
    assert [done.name for done in take(run, pattern)] == names
    folder = Path("components-digits-1a2b3c4d-s0")
    verify(folder)
    assert list(read_manifest(folder).components) == names
    assert load_component(folder, names[0]).keys() == {"weight", "bias", "seen"} & set(
        load_component(run.components("best"), names[0])
    )


def test_the_last_weights_are_exported_when_asked_for(
    run: RunLayout, here: Path, record: dict[str, Any]
) -> None:
    save_components(
        run.components("last"),
        {"fusion": {"w": torch.full((2,), 5.0)}},
        record={**record, "which": "last", "chosen_on": None},
    )
    take(run, "fusion", Path("f"), which="last")
    assert load_file("f")["w"].tolist() == [5.0, 5.0]


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600)])
def test_an_exported_files_mode_follows_the_umask(
    run: RunLayout, here: Path, mask: int, expected: int
) -> None:
    run.component("best", "fusion").chmod(0o640)
    old = os.umask(mask)
    try:
        take(run, "fusion", Path("f"))
    finally:
        os.umask(old)
    assert stat.S_IMODE(Path("f").stat().st_mode) == expected


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [
        ("experts.furier", "'experts.fourier'"),
        ("expert.*", r"'experts.\*'"),
        ("globalhead", "'global_head'"),
        ("ALL", None),
        ("*", None),
        ("", None),
        ("experts.", None),
    ],
)
def test_an_unknown_component_lists_those_there_are(
    run: RunLayout, here: Path, pattern: str, hint: str | None
) -> None:
    listed = r"heads\.pixels, fusion, global_head, experts\.\*, heads\.\*, all"
    expected = rf"{listed}\n  did you mean {hint}\?" if hint else listed
    with pytest.raises(UserError, match=expected):
        take(run, pattern)
    assert os.listdir(here) == []


def test_the_same_export_again_changes_nothing_and_says_so(run: RunLayout, here: Path) -> None:
    take(run, "all")
    folder = Path("components-digits-1a2b3c4d-s0")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert all(done.unchanged for done in take(run, "all"))
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_different_file_is_not_overwritten_unasked(run: RunLayout, here: Path) -> None:
    Path("f").write_text("mine")
    with pytest.raises(UserError, match="--force replaces what is there:\n  f"):
        take(run, "fusion", Path("f"))
    assert Path("f").read_text() == "mine"


def test_a_different_file_is_overwritten_with_force(run: RunLayout, here: Path) -> None:
    Path("f").write_text("mine")
    (done,) = take(run, "fusion", Path("f"), force=True)
    assert not done.unchanged
    assert sha256(Path("f")) == done.sha256


def test_one_file_in_the_way_stops_an_export_before_it_writes(run: RunLayout, here: Path) -> None:
    Path("out/heads").mkdir(parents=True)
    Path("out/heads/pixels.safetensors").write_text("mine")
    with pytest.raises(UserError, match=r"with other content.*\n  out/heads/pixels\.safetensors$"):
        take(run, "all", Path("out"))
    assert os.listdir("out") == ["heads"]


def test_a_manifest_of_another_export_is_not_overwritten_unasked(
    run: RunLayout, here: Path
) -> None:
    take(run, "experts.*", Path("out"))
    with pytest.raises(UserError, match=r"with other content.*\n  out/manifest\.json$"):
        take(run, "heads.*", Path("out"))


def test_a_device_is_never_renamed_over(run: RunLayout, here: Path) -> None:
    with pytest.raises(UserError, match="/dev/null: not a regular file"):
        take(run, "fusion", Path("/dev/null"), force=True)


def test_a_run_never_loses_its_own_files_to_an_export(run: RunLayout, here: Path) -> None:
    with pytest.raises(UserError, match="lies inside the run itself"):
        take(run, "fusion", run.component("best", "experts.fourier"), force=True)
    verify(run.components("best"))


def test_a_place_that_cannot_be_written_is_explained(run: RunLayout, here: Path) -> None:
    Path("file").touch()
    with pytest.raises(UserError, match="file/f: cannot be written: "):
        take(run, "fusion", Path("file/f"))


def test_damage_is_named_and_nothing_is_exported(run: RunLayout, here: Path) -> None:
    for name in ("fusion", "heads.pixels"):
        path = run.component("best", name)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ComponentError, match=r"heads/pixels\.safetensors") as caught:
        take(run, "all")
    assert "fusion.safetensors" in str(caught.value)
    assert os.listdir(here) == []


def test_damage_elsewhere_does_not_stop_an_export(run: RunLayout, here: Path) -> None:
    run.component("best", "fusion").unlink()
    take(run, "global_head")


def test_a_file_that_changes_after_it_was_verified_is_thrown_away(
    run: RunLayout, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify_and_damage(directory: Path, names: list[str]) -> None:
        verify(directory, names)
        atomic.write_bytes(run.component("best", "fusion"), b"changed")

    monkeypatch.setattr(export_module, "verify", verify_and_damage)
    with pytest.raises(ComponentError, match="changed while it was exported"):
        take(run, "fusion")
    assert os.listdir(here) == []


def test_an_exported_component_is_ready_for_json(run: RunLayout, here: Path) -> None:
    (done,) = take(run, "fusion")
    assert json.loads(json.dumps(done.to_json()))["path"] == "fusion.safetensors"


EXPORT = """
import sys
from pathlib import Path
from fusionrun.store.export import export, locate_weights
from fusionrun.store.layout import RunLayout
run = RunLayout(Path(sys.argv[1]))
export(run, "all", which="best", output=Path("out"), force=False)
locate_weights(f"run:{run.id}#fusion", Path("."), run.root.parent)
if len(sys.argv) > 2:
    from fusionrun.store.components import load_component
    load_component(Path("out"), "fusion")
heavy = {"torch", "numpy", "safetensors", "pydantic"} & set(sys.modules)
sys.exit(f"imported {sorted(heavy)}" if heavy else 0)
"""


def test_export_imports_no_torch_and_nothing_else_heavy(run: RunLayout, here: Path) -> None:
    command = [sys.executable, "-c", EXPORT, str(run.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_proof_that_export_imports_no_torch_can_fail(run: RunLayout, here: Path) -> None:
    command = [sys.executable, "-c", EXPORT, str(run.root), "load"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "torch" in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/b.safetensors", PathSource("a/b.safetensors")),
        ("./run:x#y", PathSource("./run:x#y")),
        ("run:digits#experts.fourier", RunSource("digits", "experts.fourier")),
        ("run:../runs/x#1#fusion", RunSource("../runs/x#1", "fusion")),
    ],
)
def test_weights_are_a_path_or_a_component_of_a_run(
    text: str, expected: PathSource | RunSource
) -> None:
    assert parse_weights(text) == expected


@pytest.mark.parametrize("text", ["", "run:", "run:x", "run:x#", "run:#fusion"])
def test_weights_that_are_neither_are_explained(text: str) -> None:
    with pytest.raises(UserError, match="expected  a path, or run:ID#COMPONENT"):
        parse_weights(text)


def test_weights_by_path_are_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").touch()
    found = locate_weights("w.safetensors", tmp_path, tmp_path / "runs")
    assert (found.path, found.sha256) == (tmp_path / "w.safetensors", None)


def test_weights_of_a_run_come_with_the_hash_they_must_have(
    tmp_path: Path, run: RunLayout, saved: Manifest
) -> None:
    found = locate_weights("run:digits#experts.fourier", tmp_path, run.root.parent)
    assert found.path == run.component("best", "experts.fourier")
    assert found.sha256 == saved.components["experts.fourier"].sha256
    assert found.description == "experts.fourier of digits-1a2b3c4d-s0 (best)"


@pytest.mark.parametrize(("text", "message"), [("gone", "no such file"), (".", "a directory")])
def test_weights_that_are_no_file_are_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        locate_weights(text, tmp_path, tmp_path)


def test_weights_of_an_unknown_run_or_component_are_explained(run: RunLayout) -> None:
    with pytest.raises(RunNotFoundError, match="no such run"):
        locate_weights("run:nope#fusion", Path(), run.root.parent)
    with pytest.raises(ComponentError, match=r"did you mean 'fusion'\?"):
        locate_weights("run:digits#fusio", Path(), run.root.parent)


def test_a_run_without_components_yet_is_told_how_it_stands(tmp_path: Path, here: Path) -> None:
    young = RunLayout(tmp_path / "runs" / "young-1a2b3c4d-s0")
    young.root.mkdir()
    young.plan.write_text("{}")
    write_status(young, "failed", epoch=4, step=24, attempts=1, epochs=400)
    words = r"(?s)run young.* failed, 4 of 400 epochs done.*`fusionrun status young"
    with pytest.raises(ComponentError, match=words):
        locate_weights("run:young#fusion", tmp_path, young.root.parent)
    with pytest.raises(ComponentError, match=words):
        take(young, "fusion")
    assert os.listdir(here) == []
