"""Checkpoints and components that are not what was saved: rejected by name, never loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusionrun.errors import ComponentError
from fusionrun.store.components import load_component, verify
from tests.faults import verifier
from tests.faults.runs import prepared
from tests.faults.victim import Fate, attempt

Harm = Callable[[Path, Path], None]


def rewritten(change: Callable[[bytearray], bytes | bytearray]) -> Harm:
    """Harms the weights of the newer of two sets."""

    def harm(newer: Path, older: Path) -> None:
        (file,) = newer.rglob("weights.safetensors")
        file.write_bytes(change(bytearray(file.read_bytes())))

    return harm


def flip(content: bytearray, at: int) -> bytearray:
    content[at] ^= 1
    return content


def swap(newer: Path, older: Path) -> None:
    one, other = newer / "weights.safetensors", newer / "best.safetensors"
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)


def edit_manifest(newer: Path, older: Path) -> None:
    manifest = json.loads((newer / "manifest.json").read_text())
    manifest["step"] += 1
    (newer / "manifest.json").write_text(json.dumps(manifest))


HARMS: dict[str, tuple[Harm, str]] = {
    "truncated": (rewritten(lambda c: c[:-1]), "weights.safetensors: .* bytes, expected"),
    "a bit of the tensors": (rewritten(lambda c: flip(c, -5)), "weights.safetensors: sha256"),
    "a bit of the header": (rewritten(lambda c: flip(c, 12)), "weights.safetensors: sha256"),
    "trailing bytes": (rewritten(lambda c: c + b"x"), "weights.safetensors: .* bytes, expected"),
    "empty": (rewritten(lambda c: b""), "weights.safetensors: 0 bytes"),
    "zeros": (rewritten(lambda c: bytes(len(c))), "weights.safetensors: sha256"),
    "swapped": (swap, "weights.safetensors|best.safetensors"),
    "two steps mixed": (
        lambda newer, older: shutil.copy(older / "weights.safetensors", newer) and None,
        "weights.safetensors: sha256",
    ),
    "no manifest": (lambda newer, older: os.unlink(newer / "manifest.json"), "manifest.json: "),
    "an edited manifest": (edit_manifest, "manifest.json does not match its own sha256"),
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed after its second checkpoint."""
    run = prepared(tmp_path_factory.mktemp("killed"))
    boundary = 150
    while not (run / "checkpoints" / "step-000000008").exists():
        attempt(run, (Fate(boundary),))
        boundary += 20
    assert len(list((run / "checkpoints").glob("step-*"))) == 2
    return run


@pytest.mark.parametrize("name", HARMS)
def test_a_damaged_checkpoint_is_named_and_the_one_before_goes_on_to_the_same_bits(
    name: str, killed: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    harm, why = HARMS[name]
    run = tmp_path / killed.name
    shutil.copytree(killed, run)
    older, newer = sorted((run / "checkpoints").glob("step-*"))
    harm(newer, older)
    (ended,) = attempt(run)
    assert ended.code == 0
    (skipped,) = verifier.events(run, "checkpoint_skipped")
    assert skipped["checkpoint"] == newer.name
    assert re.search(why, skipped["why"])
    assert verifier.events(run, "started")[-1]["resumed_from"] == int(older.name[5:])
    assert verifier.fingerprint(run) == undisturbed


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = prepared(tmp_path_factory.mktemp("completed"))
    assert attempt(run)[0].code == 0
    return run


@pytest.mark.parametrize(
    "name", ["truncated", "a bit", "a header's bit", "longer", "empty", "zeros"]
)
def test_a_damaged_component_is_named_and_never_loaded(
    name: str, completed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "best"
    shutil.copytree(completed / "components" / "best", folder)
    file = folder / "experts" / "fourier.safetensors"
    content = bytearray(file.read_bytes())
    changes: dict[str, bytes | bytearray] = {
        "truncated": content[:-4],
        "a bit": flip(bytearray(content), -5),
        "a header's bit": flip(bytearray(content), 12),
        "longer": content + b"\0",
        "empty": b"",
        "zeros": bytes(len(content)),
    }
    file.write_bytes(changes[name])
    with pytest.raises(ComponentError, match=r"experts/fourier\.safetensors"):
        load_component(folder, "experts.fourier")
    with pytest.raises(ComponentError, match=r"experts/fourier\.safetensors"):
        verify(folder)


def test_components_that_were_swapped_are_named(completed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "best"
    shutil.copytree(completed / "components" / "best", folder)
    shutil.copy(
        folder / "experts" / "zernike.safetensors", folder / "experts" / "fourier.safetensors"
    )
    with pytest.raises(ComponentError, match=r"the content of experts\.zernike"):
        load_component(folder, "experts.fourier")
