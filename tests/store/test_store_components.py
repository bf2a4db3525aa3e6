"""Components come back exactly as they were saved, or not at all."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file as load_with_safetensors

from fusionrun import __version__
from fusionrun.errors import ComponentError
from fusionrun.store.components import load_component, load_file, save_components, verify
from fusionrun.store.layout import RunLayout
from fusionrun.store.manifest import ChosenOn, Manifest, digest_of, read_manifest

Components = dict[str, dict[str, torch.Tensor]]


@pytest.fixture
def best(run: RunLayout, saved: Manifest) -> Path:
    return run.components("best")


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor)


def rewrite_manifest(
    directory: Path, edit: Callable[[dict[str, Any]], object], *, sign: bool = False
) -> None:
    path = directory / "manifest.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    edit(value)
    if sign:
        del value["sha256"]
        value["sha256"] = digest_of(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_every_component_comes_back_as_it_was_saved(best: Path, components: Components) -> None:
    for name, tensors in components.items():
        assert_same(load_component(best, name), tensors)


def test_a_component_loads_with_safetensors_alone(best: Path, components: Components) -> None:
    got = load_with_safetensors(best / "experts" / "fourier.safetensors")
    assert_same(got, components["experts.fourier"])


def test_a_file_says_which_component_it_is_and_by_which_plan(best: Path) -> None:
    with safe_open(best / "heads" / "pixels.safetensors", "pt") as file:
        expected = {"format": "pt", "component": "heads.pixels", "plan": "1a2b3c4d5e6f"}
        assert file.metadata() == expected


def test_loaded_tensors_may_be_written_to(best: Path) -> None:
    tensor = load_component(best, "experts.fourier")["weight"]
    tensor += 1


def test_a_view_saves_its_own_numbers_and_not_its_whole_storage(best: Path) -> None:
    assert (best / "experts" / "pixels.safetensors").stat().st_size < 256


def test_a_parameter_that_wants_gradients_is_saved(tmp_path: Path, record: dict[str, Any]) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    save_components(tmp_path / "c", {"fusion": {"w": weight}}, record=record)
    assert not load_component(tmp_path / "c", "fusion")["w"].requires_grad


def test_the_directory_is_as_the_contract_says(best: Path) -> None:
    files = sorted(str(path.relative_to(best)) for path in best.rglob("*") if path.is_file())
    assert files == [
        "experts/fourier.safetensors",
        "experts/pixels.safetensors",
        "fusion.safetensors",
        "global_head.safetensors",
        "heads/fourier.safetensors",
        "heads/pixels.safetensors",
        "manifest.json",
    ]


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_files_modes_follow_the_umask(
    tmp_path: Path, components: Components, record: dict[str, Any], mask: int, expected: int
) -> None:
    old = os.umask(mask)
    try:
        save_components(tmp_path / "c", components, record=record)
    finally:
        os.umask(old)
    files = [path for path in (tmp_path / "c").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {expected}


def test_a_header_is_written_in_one_order_so_that_equal_weights_have_equal_hashes(
    best: Path,
) -> None:
    # safetensors itself writes metadata in an order that changes from process to process.
    data = (best / "heads" / "pixels.safetensors").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    assert data[8:end].rstrip() == (
        b'{"__metadata__":{"component":"heads.pixels","format":"pt","plan":"1a2b3c4d5e6f"},'
        b'"empty":{"dtype":"F32","shape":[0,3],"data_offsets":[0,0]},'
        b'"mask":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}'
    )
    assert end % 8 == 0


def test_saving_again_replaces_every_file(best: Path, record: dict[str, Any]) -> None:
    save_components(best, {"fusion": {"w": torch.ones(1)}}, record=record)
    assert sorted(os.listdir(best)) == ["fusion.safetensors", "manifest.json"]
    assert os.listdir(best.parent) == ["best"]


def test_a_save_that_fails_leaves_the_old_components(
    best: Path, saved: Manifest, record: dict[str, Any]
) -> None:
    with pytest.raises(ComponentError, match=r"'\.\./evil'"):
        save_components(best, {"fusion": {}, "../evil": {}}, record=record)
    verify(best)
    assert read_manifest(best) == saved


def test_a_record_must_have_exactly_its_keys(tmp_path: Path, record: dict[str, Any]) -> None:
    del record["epoch"]
    with pytest.raises(ValueError, match=r"look at: epoch, epok"):
        save_components(tmp_path / "c", {}, record={**record, "epok": 3})


def test_the_manifest_read_is_the_manifest_saved(best: Path, saved: Manifest) -> None:
    assert read_manifest(best) == saved


def test_the_manifest_says_what_the_contract_asks(best: Path, saved: Manifest) -> None:
    raw = json.loads((best / "manifest.json").read_text(encoding="utf-8"))
    assert list(raw) == [
        *["format", "run_id", "plan_hash", "which", "epoch", "step", "chosen_on", "test_split"],
        *["classes", "fusionrun", "components", "sha256"],
    ]
    assert raw["format"] == 1
    assert raw["fusionrun"] == __version__
    assert raw["components"]["experts.fourier"] == {
        "file": "experts/fourier.safetensors",
        "bytes": (best / "experts" / "fourier.safetensors").stat().st_size,
        "sha256": saved.components["experts.fourier"].sha256,
        "tensors": {
            "seen": {"dtype": "I64", "shape": []},
            "bias": {"dtype": "F32", "shape": [3]},
            "weight": {"dtype": "F32", "shape": [3, 4]},
        },
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_chosen_value_that_is_not_finite_is_null(
    tmp_path: Path, record: dict[str, Any], value: float
) -> None:
    record["chosen_on"]["value"] = value
    save_components(tmp_path / "c", {"fusion": {}}, record=record)
    assert read_manifest(tmp_path / "c").chosen_on == ChosenOn("val", "global", "accuracy", None)


def test_the_last_epoch_was_chosen_on_nothing(tmp_path: Path, record: dict[str, Any]) -> None:
    save_components(tmp_path / "c", {}, record={**record, "which": "last", "chosen_on": None})
    assert read_manifest(tmp_path / "c").chosen_on is None


def test_whole_components_are_verified(best: Path) -> None:
    verify(best)


def test_a_single_flipped_byte_anywhere_is_found(best: Path) -> None:
    path = best / "experts" / "fourier.safetensors"
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(
            ComponentError, match=r"experts/fourier\.safetensors\n  got       sha256"
        ):
            verify(best)
        with pytest.raises(ComponentError, match=r"fourier\.safetensors\n  got       sha256"):
            load_component(best, "experts.fourier")


def test_a_single_flipped_byte_of_the_manifest_is_found(best: Path) -> None:
    path = best / "manifest.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 11):
        damaged = bytearray(whole)
        damaged[place] ^= 2
        path.write_bytes(damaged)
        with pytest.raises(ComponentError, match=r"manifest\.json"):
            read_manifest(best)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0"])
def test_a_file_of_another_size_is_found(best: Path, change: Callable[[bytes], bytes]) -> None:
    path = best / "fusion.safetensors"
    size = path.stat().st_size
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ComponentError, match=rf"fusion\.safetensors\n.*\n  expected  {size} bytes"):
        verify(best)


def test_swapped_files_are_named_with_what_they_hold(
    tmp_path: Path, record: dict[str, Any]
) -> None:
    tensors = {"experts.a": {"w": torch.zeros(2)}, "experts.b": {"w": torch.ones(2)}}
    save_components(tmp_path / "c", tensors, record=record)
    a, b = (tmp_path / "c" / "experts" / f"{name}.safetensors" for name in "ab")
    first = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(first)
    with pytest.raises(
        ComponentError, match=r"a\.safetensors\n  got       the content of experts\.b"
    ):
        verify(tmp_path / "c")


def test_every_damaged_file_is_named(best: Path) -> None:
    (best / "fusion.safetensors").unlink()
    (best / "heads" / "fourier.safetensors").write_bytes(b"x")
    with pytest.raises(ComponentError, match="fusion") as caught:
        verify(best)
    assert "fusion.safetensors\n  got       no such file" in str(caught.value)
    assert "heads/fourier.safetensors\n  got       1 bytes" in str(caught.value)


def test_only_the_components_asked_for_are_checked(best: Path) -> None:
    (best / "fusion.safetensors").unlink()
    verify(best, ["experts.fourier"])


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.update(epoch=99),
        lambda m: m.pop("sha256"),
        lambda m: m.update(sha256="0" * 64),
        lambda m: m["chosen_on"].update(split="test"),
        lambda m: m["components"].pop("fusion"),
        lambda m: m["components"]["fusion"].update(sha256="0" * 64),
    ],
)
def test_an_edited_manifest_is_found(best: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    rewrite_manifest(best, edit)
    with pytest.raises(ComponentError, match=r"manifest\.json\n.*does not match its own sha256"):
        verify(best)


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.pop("epoch"),
        lambda m: m.update(epoch="3"),
        lambda m: m.update(components=[]),
        lambda m: m.update(chosen_on={"split": "val"}),
        lambda m: m["components"].update(fusion=None),
        lambda m: m["components"]["fusion"].update(file="../../../etc/passwd"),
        lambda m: m["components"].update({"../x": m["components"]["fusion"]}),
        lambda m: m["components"]["fusion"].update(tensors={"w": {"dtype": "F32", "shape": 3}}),
    ],
)
def test_a_manifest_that_is_signed_and_wrong_is_refused(
    best: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    rewrite_manifest(best, edit, sign=True)
    with pytest.raises(ComponentError, match=r"manifest\.json\n.*a manifest of another shape"):
        read_manifest(best)


def test_a_signed_manifest_with_another_shape_does_not_pass_for_the_file(best: Path) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["components"]["experts.fourier"]["tensors"]["bias"]["shape"] = [1, 3]

    rewrite_manifest(best, edit, sign=True)
    with pytest.raises(ComponentError, match="tensors other than its manifest lists"):
        verify(best)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '{"epoch": 1}', "\xff"])
def test_a_manifest_that_is_none_is_refused(best: Path, text: str) -> None:
    (best / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(ComponentError, match=r"manifest\.json"):
        read_manifest(best)


def test_a_manifest_of_a_later_format_is_refused_by_its_number(best: Path) -> None:
    rewrite_manifest(best, lambda m: m.update(format=2), sign=True)
    with pytest.raises(ComponentError, match=r"format 2\n  expected  format 1"):
        read_manifest(best)


def test_components_that_were_not_saved_name_those_that_were(run: RunLayout, best: Path) -> None:
    with pytest.raises(ComponentError, match=r"last\n.*no manifest\.json\n  There is: best\."):
        read_manifest(run.components("last"))


def test_an_unknown_component_names_the_nearest(best: Path) -> None:
    with pytest.raises(ComponentError, match=r"did you mean 'experts\.fourier'\?"):
        load_component(best, "experts.furier")


def test_a_file_alone_loads_without_a_manifest(best: Path, components: Components) -> None:
    got = load_file(best / "experts" / "fourier.safetensors")
    assert_same(got, components["experts.fourier"])


def test_a_file_alone_is_held_to_the_hash_that_was_promised(best: Path, saved: Manifest) -> None:
    path = best / "fusion.safetensors"
    load_file(path, expected_sha256=saved.components["fusion"].sha256)
    with pytest.raises(ComponentError, match=r"fusion\.safetensors\n  got       sha256"):
        load_file(path, expected_sha256="0" * 64)


def test_a_type_that_torch_does_not_have_is_a_component_error(tmp_path: Path) -> None:
    text = b'{"w":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}}'
    (tmp_path / "f").write_bytes(len(text).to_bytes(8, "little") + text + b"\0")
    with pytest.raises(ComponentError, match="tensors that torch cannot hold"):
        load_file(tmp_path / "f")
