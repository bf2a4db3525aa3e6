"""A foreign torch state dict becomes a safetensors file that a recipe can start from."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from typer.testing import Result

from fusionrun.errors import ComponentError, UserError
from fusionrun.store.convert import Renaming, convert, parse_map
from tests.program import fusionrun

RECIPE = """\
version: 1
name: from-elsewhere
data: {source: npz, path: package:handwritten_digits, label: label}
experts:
  a: {model: mlp, view: fourier, hidden: [4], features: 4, weights: a.safetensors}
  b: {model: mlp, view: zernike, hidden: [4], features: 4}
fusion: {type: concatenation}
training: {epochs: 1, device: cpu}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "encoder.0.weight": torch.randn(4, 3, generator=generator),
        "encoder.0.bias": torch.randn(4, generator=generator),
        "steps": torch.tensor(7),
    }


def saved(content: object, name: str = "x.pt") -> Path:
    torch.save(content, name)
    return Path(name)


def equal(path: Path, expected: Mapping[str, torch.Tensor]) -> None:
    found = load_file(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def command(*arguments: object) -> Result:
    return fusionrun("convert", *arguments)


# ------------------------------------------------------------------ what is taken


def test_a_number_repeated_without_end_is_refused_before_it_is_copied(here: Path) -> None:
    path = saved({"a": torch.zeros(3), "b": torch.zeros(1).expand(10**6, 10**6)})
    with pytest.raises(ComponentError, match=r"(?s)4,000,000,000,012 bytes in a file of .*'b' \["):
        convert(path, Path("x.safetensors"))
    assert not Path("x.safetensors").exists()


@pytest.mark.parametrize(
    ("wrap", "key"),
    [
        (lambda tensors: tensors, None),
        (lambda tensors: OrderedDict(tensors), None),
        (lambda tensors: {"state_dict": tensors, "epoch": 3}, "state_dict"),
        (lambda tensors: {"model": tensors, "optimizer": {"lr": 0.1}}, "model"),
    ],
)
def test_the_tensors_come_out_bit_for_bit(here: Path, wrap: Any, key: str | None) -> None:
    made = convert(saved(wrap(state())), here / "x.safetensors")
    assert made.key == key
    equal(made.path, state())


def test_a_model_and_its_parameters_are_taken(here: Path) -> None:
    model = nn.Linear(3, 2)
    content = dict(model.named_parameters())
    equal(convert(saved(content), here / "x.safetensors").path, model.state_dict())


def test_another_key_is_asked_for(here: Path) -> None:
    path = saved({"ema": state(), "model": {"x": torch.ones(1)}})
    equal(convert(path, here / "x.safetensors", key="ema").path, state())


def test_the_old_format_of_torch_is_read(here: Path) -> None:
    torch.save(state(), "x.pt", _use_new_zipfile_serialization=False)
    equal(convert(Path("x.pt"), here / "x.safetensors").path, state())


def test_tensors_that_share_memory_come_out_each_whole(here: Path) -> None:
    shared = torch.arange(12.0).reshape(3, 4)
    content = {"a": shared, "b": shared, "t": shared.T, "row": shared[1], "zero": shared[:0]}
    equal(convert(saved(content), here / "x.safetensors").path, content)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.bool])
def test_a_tensors_type_stays(here: Path, dtype: torch.dtype) -> None:
    content = {"x": torch.ones(3).to(dtype)}
    equal(convert(saved(content), here / "x.safetensors").path, content)


def test_the_same_tensors_give_the_same_bytes_and_are_left_alone(here: Path) -> None:
    first = convert(saved(state()), here / "x.safetensors")
    inode = first.path.stat().st_ino
    again = convert(saved({"model": state()}, "y.pt"), here / "x.safetensors")
    assert (again.sha256, again.unchanged) == (first.sha256, True)
    assert first.path.stat().st_ino == inode


def test_an_expert_of_somebody_else_starts_a_run(here: Path) -> None:
    from fusionrun.models.experts import MLP, Expert

    backbone = MLP(input_shape=(76,), hidden=(4,), features=4, dropout=0.0, activation="relu")
    expert = Expert(backbone, scaler_shape=(76,), norm=False)
    saved({"state_dict": nn.DataParallel(expert).state_dict()}, "a.pt")
    done = command("a.pt", "-o", "a.safetensors", "--strip", "module.")
    assert done.exit_code == 0, done.output
    Path("recipe.yaml").write_text(RECIPE)
    planned = fusionrun("plan", "recipe.yaml", "--json")
    assert planned.exit_code == 0, planned.output
    weights = json.loads(planned.stdout)["components"]["experts.a"]["weights"]
    assert weights["given"] == "a.safetensors"


# ------------------------------------------------------------------ names


def test_prefixes_are_taken_away_then_changed_in_order(here: Path) -> None:
    content = {f"module.{name}": tensor for name, tensor in state().items()}
    renaming = Renaming("module.", [("encoder.", "x."), ("x.", "backbone.layers.")])
    made = convert(saved(content), here / "x.safetensors", renaming=renaming)
    assert made.names == {
        "backbone.layers.0.weight": "module.encoder.0.weight",
        "backbone.layers.0.bias": "module.encoder.0.bias",
        "steps": "module.steps",
    }
    assert load_file(made.path).keys() == made.names.keys()


@pytest.mark.parametrize(
    ("renaming", "message"),
    [
        (
            Renaming("modul."),
            r"--strip\n  got       'modul\.'\n  expected  the beginning of a name",
        ),
        (Renaming("", [("encodr.", "x")]), r"--map\n  got       'encodr\.'[^✗]*'encoder\.'"),
        (Renaming("", [("encoder.0.weight", "steps")]), r"called 'steps', as 'encoder"),
        (Renaming("steps"), r"'steps' would be called ''"),
    ],
)
def test_a_renaming_that_cannot_be_meant_is_explained(
    here: Path, renaming: Renaming, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        convert(saved(state()), here / "x.safetensors", renaming=renaming)
    assert not (here / "x.safetensors").exists()


@pytest.mark.parametrize("text", ["", "a", "=b", "a=b=c"])
def test_a_map_that_is_none_is_explained(text: str) -> None:
    with pytest.raises(UserError, match=r"--map\n  got .*\n  expected  OLD=NEW"):
        parse_map(text)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], r"x\.pt\n  got       a value of type list\n  expected  a mapping of"),
        (torch.ones(1), r"a value of type Tensor"),
        ({}, r"an empty mapping"),
        ({"model": {}}, r"x\.pt: model\n  got       an empty mapping"),
        ({"epoch": 3, "net": {"w": torch.ones(1)}}, r"type int under 'epoch'[^✗]*--key.*: net"),
        ({"state_dict": {"w": torch.ones(1), "n": 3}}, r"x\.pt: state_dict\n .*int under 'n'"),
        ({1: torch.ones(1)}, r"the key '1'\n  expected  a tensor's name"),
        ({"__metadata__": torch.ones(1)}, r"the key '__metadata__'"),
        ({"a\nb": torch.ones(1)}, r"the key 'a\\nb'"),
        ({"w": torch.ones(2, 2).to_sparse()}, r"'w': sparse_coo"),
        ({"w": torch.ones(2, device="meta")}, r"'w': strided, float32 on meta"),
    ],
)
def test_what_is_no_state_dict_is_refused_with_what_it_is(
    here: Path, content: object, message: str
) -> None:
    with pytest.raises(ComponentError, match=message):
        convert(saved(content), here / "x.safetensors")
    assert not (here / "x.safetensors").exists()


def written(content: bytes) -> Path:
    Path("x.pt").write_bytes(content)
    return Path("x.pt")


def zipped(name: str) -> Path:
    with zipfile.ZipFile("x.pt", "w") as archive:
        archive.writestr(name, "")
    return Path("x.pt")


def scripted() -> Path:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), "x.pt")
    return Path("x.pt")


def of_another_protocol() -> Path:
    torch.save({"a": {1, 2}}, "x.pt", pickle_protocol=4)
    return Path("x.pt")


def halved(path: Path) -> Path:
    return written(path.read_bytes()[: path.stat().st_size // 2])


MISFITS: dict[str, tuple[Callable[[], Path], str]] = {
    "empty": (lambda: written(b""), "an empty file"),
    "text": (lambda: written(b"hello\n"), "a file of another kind"),
    "plain pickle": (lambda: written(pickle.dumps(state())), "a plain pickle"),
    "oldest pickle": (lambda: written(pickle.dumps({"a": 1}, 0)), "a plain pickle"),
    "half": (lambda: halved(saved(state())), "a zip archive that is cut short"),
    "another protocol": (of_another_protocol, "a pickle that torch's restricted reader cannot"),
    "other zip": (lambda: zipped("a.txt"), "a zip archive of something else"),
    "program": (scripted, "a TorchScript archive"),
    "whole model": (lambda: saved(nn.Linear(2, 2)), "a pickle that asks for torch.nn.modules"),
}


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("kind", MISFITS)
def test_what_cannot_be_read_is_named_without_torchs_advice(
    here: Path, kind: str, recwarn: pytest.WarningsRecorder
) -> None:
    make, what = MISFITS[kind]
    path = make()
    recwarn.clear()
    with pytest.raises(ComponentError, match=rf"x\.pt\n  got       {what}") as refused:
        convert(path, here / "x.safetensors")
    said = str(refused.value)
    assert "torch.save" in said
    assert "weights_only" not in said
    assert list(recwarn) == []


def test_the_old_format_cut_short_is_said_to_be(here: Path) -> None:
    torch.save(state(), "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ComponentError, match=r"of torch\.save that is cut short[^✗]*once more"):
        convert(halved(Path("x.pt")), here / "x.safetensors")


def test_a_key_that_is_not_there_gets_the_nearest(here: Path) -> None:
    with pytest.raises(UserError, match=r"--key\n  got       'modle'[^✗]*did you mean 'model'"):
        convert(saved({"model": state()}), here / "x.safetensors", key="modle")


def test_a_safetensors_file_needs_no_converting(here: Path) -> None:
    made = convert(saved(state()), here / "x.safetensors")
    with pytest.raises(ComponentError, match=r"got       safetensors[^✗]*takes it as it is"):
        convert(made.path, here / "y.safetensors")


def test_another_file_is_only_replaced_by_force(here: Path) -> None:
    target = here / "x.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"there already, with other content"):
        convert(saved(state()), target)
    assert target.read_bytes() == b"mine"
    equal(convert(saved(state()), target, force=True).path, state())


def test_the_file_itself_is_never_replaced(here: Path) -> None:
    path = saved(state())
    os.link(path, "same.pt")
    with pytest.raises(UserError, match=r"is the file to convert"):
        convert(path, here / "same.pt", force=True)


@pytest.mark.parametrize("output", ["folder", "/dev/null"])
def test_no_folder_and_no_device_is_written(here: Path, output: str) -> None:
    (here / "folder").mkdir()
    with pytest.raises(UserError, match=r"not a regular file"):
        convert(saved(state()), Path(output), force=True)


def test_no_directory_is_made_for_a_mistyped_path(here: Path) -> None:
    with pytest.raises(UserError, match=r"there is no directory .*mistyped; -o names another"):
        convert(saved(state()), here / "mistyped" / "x.safetensors")
    assert not (here / "mistyped").exists()


@pytest.mark.parametrize(("name", "got"), [("no.pt", "no such file"), (".", "not a regular file")])
def test_a_file_that_is_none_is_said_to_be(here: Path, name: str, got: str) -> None:
    with pytest.raises(UserError, match=rf"{got}[^✗]*torch\.save"):
        convert(Path(name), here / "x.safetensors")


# ------------------------------------------------------------------ the command


def test_the_command_says_what_was_written(here: Path) -> None:
    saved({"model": state()})
    done = command("x.pt", "-o", "x.safetensors", "--map", "encoder.=e.")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "x.pt: 3 tensors, under 'model'"
    assert "  e.0.weight  F32 [4, 3]  was encoder.0.weight" in lines
    assert lines[-1].startswith("x.safetensors  (")


def test_the_command_says_the_same_in_json(here: Path) -> None:
    saved({"model": state()})
    done = command("x.pt", "-o", "x.safetensors", "--json")
    told = json.loads(done.stdout)
    assert told.keys() == {"source", "path", "key", "bytes", "sha256", "tensors", "unchanged"}
    assert told["tensors"]["steps"] == {"dtype": "I64", "shape": [], "was": "steps"}
