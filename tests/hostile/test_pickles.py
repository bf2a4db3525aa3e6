"""No pickle is ever read, whatever it is called and whoever hands it in."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import fusionrun as package
from fusionrun.errors import ComponentError, FusionrunError
from fusionrun.store.components import load_file
from fusionrun.store.convert import convert
from tests.hostile.conftest import Canary, refused
from tests.program import fusionrun

PACKAGE = Path(package.__file__).parent

# ------------------------------------------------------------- what the code never calls

FORBIDDEN_MODULES = {
    *("pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"),
    *("jsonpickle", "runpy", "code"),
}
# CIFAR's python version is one: its unpickler resolves no name but to a stand-in that does nothing
# (tests/data/test_cifar.py).
RESTRICTED = {("pickle", "data/plain_pickle.py")}
FORBIDDEN_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.unsafe_load_all"),
    *("torch.jit.load", "torch.hub.load", "pandas.read_pickle", "numpy.fromfile"),
}
# A call that is allowed with this argument alone, and the only files that may make it.
GUARDED = {
    "np.load": ("allow_pickle", False, {"data/table_values.py"}),
    "numpy.load": ("allow_pickle", False, set[str]()),
    "torch.load": ("weights_only", True, {"store/convert.py"}),
}
# Names become code here and nowhere else; each takes them from this package or an entry point.
IMPORTERS = {
    "import_module": {"cli/main.py", "schema/base.py"},
    "resolve_name": {"data/reading.py", "data/tables.py", "models/build.py"},
}


def breaches(source: str, file: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [alias.name for alias in node.names]
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else named
            forbidden = (m for m in modules if m.partition(".")[0] in FORBIDDEN_MODULES)
            yield from (m for m in forbidden if (m, file) not in RESTRICTED)
            if {"load", "loads"} & set(named) and modules != ["safetensors.torch"]:
                yield f"load of {modules}"
        elif isinstance(node, ast.Call):
            yield from _bad_call(node, ast.unparse(node.func), file)


def _bad_call(node: ast.Call, name: str, file: str) -> Iterator[str]:
    given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
    if name in FORBIDDEN_CALLS or given.get("shell") is True:
        yield name
    if name in GUARDED:
        argument, value, files = GUARDED[name]
        if given.get(argument) is not value or file not in files:
            yield name
    if name in IMPORTERS and file not in IMPORTERS[name]:
        yield name


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import marshal as m",
        "from torch import load",
        "import numpy as np\nnp.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=True)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "import_module(recipe.module)",
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert list(breaches(source, "x.py"))


def test_the_package_never_reads_a_pickle_nor_runs_text() -> None:
    files = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    assert len(files) > 100
    found = {name: list(breaches(path.read_text("utf-8"), name)) for name, path in files.items()}
    assert {name: calls for name, calls in found.items() if calls} == {}


# ------------------------------------------------------------- what is handed in

RECIPE = """\
version: 1
name: hostile
data: {{source: npz, path: {data}, label: label}}
experts:
  a: {{model: mlp, view: {view}, hidden: [4], features: 4, weights: {weights}}}
  b: {{model: mlp, view: {view}, hidden: [4], features: 4}}
fusion: {{type: concatenation}}
training: {{epochs: 1, device: cpu}}
"""


def recipe(
    folder: Path,
    data: str = "package:handwritten_digits",
    view: str = "fourier",
    weights: str = "null",
) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(data=data, view=view, weights=weights))
    return path


def test_the_canary_can_sing(canary: Canary) -> None:
    pickle.loads(canary.pickled)
    assert canary.sang()
    canary.path.unlink()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
@pytest.mark.parametrize("command", ["plan", "train"])
def test_a_pickle_is_no_weights_whatever_it_is_called(
    tmp_path: Path, canary: Canary, suffix: str, command: str
) -> None:
    (tmp_path / f"w{suffix}").write_bytes(canary.pickled)
    runs = ("--runs", tmp_path / "runs")
    said = refused(fusionrun(command, recipe(tmp_path, weights=f"w{suffix}"), *runs))
    assert "experts.a.weights" in said
    assert "not safetensors" in said


def test_a_torch_file_is_no_weights_and_is_not_read(tmp_path: Path, canary: Canary) -> None:
    torch.save({"x": canary.object}, tmp_path / "w.safetensors")
    result = fusionrun("plan", recipe(tmp_path, weights="w.safetensors"))
    assert "w.safetensors -o FILE.safetensors` makes one of it" in refused(result)


def test_a_pickle_in_the_place_of_a_component_is_not_loaded(tmp_path: Path, canary: Canary) -> None:
    path = tmp_path / "fusion.safetensors"
    path.write_bytes(canary.pickled)
    with pytest.raises(ComponentError, match=r"fusion\.safetensors\n  got       a header of"):
        load_file(path)


@pytest.mark.parametrize("part", ["label", "v"])
@pytest.mark.parametrize("command", ["plan", "train"])
def test_objects_in_an_archive_are_refused_by_name(
    tmp_path: Path, canary: Canary, part: str, command: str
) -> None:
    arrays = {"label": np.arange(40) % 2, "v": np.ones((40, 3))}
    arrays[part] = np.array([canary.object] * 40, dtype=object)
    np.savez(tmp_path / "d.npz", **arrays)
    runs = ("--runs", tmp_path / "runs")
    said = refused(fusionrun(command, recipe(tmp_path, data="d.npz", view="v"), *runs))
    assert f"the {'labels' if part == 'label' else 'array'} '{part}'" in said or "'label'" in said
    assert "pickle" in said


@pytest.mark.parametrize("name", ["d.npz", "d.npy"])
def test_a_pickle_is_no_data(tmp_path: Path, canary: Canary, name: str) -> None:
    (tmp_path / name).write_bytes(canary.pickled)
    said = refused(fusionrun("plan", recipe(tmp_path, data=name, view="v")))
    assert "is not a NumPy archive" in said


# ------------------------------------------------------------- the one explicit way in


@pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("where", ["root", "value", "extra"])
def test_convert_runs_nothing_of_a_foreign_file(
    tmp_path: Path, canary: Canary, where: str, new_format: bool
) -> None:
    content = {
        "root": canary.object,
        "value": {"weight": canary.object},
        "extra": {"state_dict": {"weight": torch.ones(2)}, "optimizer": canary.object},
    }[where]
    path = tmp_path / "x.pt"
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(ComponentError, match=r"a pickle that asks for \w+\.system; nothing of it"):
        convert(path, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_convert_runs_nothing_though_the_environment_asks_torch_to(
    tmp_path: Path, canary: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"weight": canary.object}, tmp_path / "x.pt")
    with pytest.raises(ComponentError, match=r"nothing of it was run"):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_convert_runs_nothing_of_a_bare_pickle(
    tmp_path: Path, canary: Canary, protocol: int
) -> None:
    (tmp_path / "x.pt").write_bytes(pickle.dumps(canary.object, protocol))
    with pytest.raises(FusionrunError, match=r"x\.pt\n  got "):
        convert(tmp_path / "x.pt", tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"PK\x03\x04",
        b"PK\x03\x04" + bytes(100),
        b"hello",
        bytes(5000),
        b"cos\nsystem\n",
    ],
)
def test_convert_explains_any_file(tmp_path: Path, canary: Canary, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    said = refused(fusionrun("convert", tmp_path / "x.pt", "-o", tmp_path / "x.safetensors"))
    assert "x.pt\n  got " in said
    assert "a state dict written by torch.save" in said or "nothing of it was run" in said
