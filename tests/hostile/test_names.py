"""No name that a user can give leads out of where it belongs."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fusionrun.errors import ComponentError, RunNotFoundError
from fusionrun.recipe.read import read_recipe
from fusionrun.store import checkpoints
from fusionrun.store.layout import RunLayout
from fusionrun.store.manifest import FORMAT, digest_of, read_manifest
from fusionrun.store.runs import find_run, list_runs
from tests.hostile.conftest import RECIPE, Canary, refused
from tests.program import fusionrun

ELSEWHERE = [
    *("..", "../x", "../../../../tmp/x", "/etc/passwd", "a/b", "a/../../b", "~/x", "~root/x"),
    *(".hidden", "-rf", "a b", "a.b", "a\\b", "file:///etc/passwd", "a%2f..", "C:x", "x" * 65),
]


def recipe(folder: Path, **changes: str) -> Path:
    text = RECIPE
    for old, new in changes.items():
        text = text.replace({"expert": "  a:", "name": "name: hostile"}[old], new)
    path = folder / "recipe.yaml"
    path.write_text(text, "utf-8")
    return path


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_experts_name_is_a_name(tmp_path: Path, name: str) -> None:
    path = recipe(tmp_path, expert=f"  {json.dumps(name)}:")
    said = refused(fusionrun("plan", path))
    assert "recipe.yaml:5:3  experts" in said
    assert "letters, digits, _ and -" in said


@pytest.mark.parametrize("names", [("A", "a"), ("x-Y", "X-y")])
def test_experts_names_are_told_apart_by_more_than_their_case(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    text = RECIPE.replace("  a:", f"  {names[0]}:").replace("  b:", f"  {names[1]}:")
    (tmp_path / "recipe.yaml").write_text(text)
    assert "upper and lower case" in refused(fusionrun("plan", tmp_path / "recipe.yaml"))


@pytest.mark.parametrize(
    "name", [*ELSEWHERE, "$(touch x)", "`touch x`", "; touch x", "{{ 7*7 }}", "ü/ü", "..", "…", "/"]
)
def test_a_recipes_name_may_be_any_text_and_its_run_stays_in_its_folder(
    tmp_path: Path, name: str
) -> None:
    path = recipe(tmp_path, name=f"name: {json.dumps(name)}")
    done = fusionrun("submit", path, "--executor", "local", "--dry-run", "--json",
                     "--runs", tmp_path / "runs")  # fmt: skip
    assert done.exit_code == 0, done.output
    directory = Path(json.loads(done.stdout)["directory"])
    assert directory.parent == tmp_path / "runs"
    assert directory.name.replace("-", "").replace(".", "").replace("_", "").isalnum()
    assert not directory.name.startswith((".", "-"))


@pytest.mark.parametrize("text", ["\n", "a\nb", "\x1b[31m", "a\u202eb", "", "\t"])
def test_a_recipes_name_is_printable(tmp_path: Path, text: str) -> None:
    path = recipe(tmp_path, name=f"name: {json.dumps(text)}")
    assert "expected  printable text" in refused(fusionrun("plan", path))


@pytest.mark.parametrize("name", ["../x", "package:../x", "handwritten_digits/../../x", "", "/x"])
def test_package_data_is_only_what_ships(tmp_path: Path, name: str) -> None:
    path = recipe(tmp_path)
    said = refused(fusionrun("plan", path, "--set", f"data.path='package:{name}'"))
    assert "no data set of that name ships with fusionrun" in said


@pytest.mark.parametrize(
    "name", [*ELSEWHERE, "experts.../x", "experts./etc/passwd", "heads.*/../x"]
)
def test_export_takes_a_components_name_alone(
    trained: RunLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    said = refused(fusionrun("export", "--component", name, "--run", trained.id))
    assert f"components of {trained.id}\n  got       {name!r}" in said
    assert tree(tmp_path) == before


def test_export_writes_where_it_is_told_and_replaces_a_link_there(
    trained: RunLayout, tmp_path: Path
) -> None:
    victim, link = tmp_path / "victim", tmp_path / "out.safetensors"
    victim.write_text("mine")
    link.symlink_to(victim)
    arguments = ("--component", "fusion", "--run", trained.root, "-o", link)
    assert "there already" in refused(fusionrun("export", *arguments))
    assert fusionrun("export", *arguments, "--force").exit_code == 0
    assert (victim.read_text(), link.is_symlink()) == ("mine", False)


@pytest.mark.parametrize("which", ["own", "link"])
def test_export_never_writes_into_the_run(trained: RunLayout, tmp_path: Path, which: str) -> None:
    (tmp_path / "link").symlink_to(trained.root)
    root = trained.root if which == "own" else tmp_path / "link"
    said = refused(fusionrun("export", "--component", "fusion", "--run", trained.root,
                             "-o", root / "plan.json", "--force"))  # fmt: skip
    assert "lies inside the run itself" in said


@pytest.mark.parametrize("name", ["..", ".", "", "/", "../runs", "no/such/../run", ".snapshots"])
def test_a_runs_name_that_is_no_run_is_none(trained: RunLayout, name: str) -> None:
    with pytest.raises(RunNotFoundError, match=r"no such run|more than one|fits"):
        find_run(trained.root.parent, name)


def test_a_folder_that_is_hidden_or_no_run_is_never_listed(trained: RunLayout) -> None:
    for name in (".snapshots", "notes"):
        (trained.root.parent / name).mkdir()
    assert [run.id for run in list_runs(trained.root.parent)] == [trained.id]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("run:../../x#experts.a", "no such run"),
        ("run:/etc#experts.a", "no such run"),
        ("run:RUN#experts.../../x", "experts.NAME"),
        ("run:RUN#../x", "experts.NAME"),
        ("run:RUN#experts.no", "'experts.no'"),
        ("/etc/passwd", "not safetensors"),
        ("../../../../../../etc/passwd", "not safetensors"),
        ("/dev/zero", "no such file"),
    ],
)
def test_weights_are_a_component_of_a_run_or_a_sound_file(
    trained: RunLayout, tmp_path: Path, weights: str, said: str
) -> None:
    path = recipe(tmp_path)
    given = weights.replace("RUN", trained.id)
    runs = ("--runs", trained.root.parent)
    told = refused(fusionrun("plan", path, "--set", f"experts.a.weights='{given}'", *runs))
    assert said in told
    assert "root:" not in told  # (nothing of the file is shown)


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "..\\escaped"])
def test_an_archives_entry_names_are_never_paths(tmp_path: Path, canary: Canary, name: str) -> None:
    member = f"{name}.npy" if name[0] != "/" else f"{canary.path}.npy"
    np.save(tmp_path / "v.npy", np.ones((40, 3)))
    np.save(tmp_path / "l.npy", np.arange(40) % 2)
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.write(tmp_path / "v.npy", member)
        archive.write(tmp_path / "l.npy", "label.npy")
    before = tree(tmp_path)
    written = tmp_path / "made.yaml"
    assert fusionrun("init", written, "--data", tmp_path / "d.npz").exit_code == 0
    experts = read_recipe(written).recipe.experts
    assert all("/" not in key and "." not in key for key in experts)
    assert tree(tmp_path) - before == {"made.yaml"}
    assert fusionrun("plan", written).exit_code == 0
    assert not canary.path.with_suffix(".npy").exists()


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "experts/../../x", "fusion", ""])
@pytest.mark.parametrize("what", ["file", "name"])
def test_a_manifest_cannot_point_out_of_its_folder(
    trained: RunLayout, name: str, what: str
) -> None:
    path = trained.manifest("best")
    content = json.loads(path.read_bytes())
    record = content["components"].pop("fusion")
    if what == "file":
        content["components"]["fusion"] = {**record, "file": name}
    else:
        content["components"][name or "."] = {**record, "file": f"{name}.safetensors"}
    del content["sha256"]
    path.write_text(json.dumps({**content, "sha256": digest_of(content)}))
    assert content["format"] == FORMAT
    if (what, name) == ("name", "fusion"):
        assert "fusion" in read_manifest(path.parent).components
        return
    with pytest.raises(ComponentError, match=r"manifest\.json\n  got       a manifest of another"):
        read_manifest(path.parent)


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "..", ".", "", "a/b"])
def test_a_checkpoint_cannot_point_out_of_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(b"x")
    (tmp_path / "run").mkdir()
    saved = checkpoints.save_checkpoint(tmp_path / "run" / "checkpoints", 1, [("state", b"x")])
    path = saved.path / "manifest.json"
    content = json.loads(path.read_bytes())
    content["files"] = {name: content["files"]["state"]}
    del content["sha256"]
    path.write_text(json.dumps({**content, "sha256": digest_of(content)}))
    with pytest.raises(checkpoints.Damaged, match=r"which is no file of|not a regular file"):
        saved.read()
