"""What only a GPU does: engines, streams and a resume, where torch finds a CUDA device."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load

from fusionrun.store.layout import RunLayout
from fusionrun.train import images, job
from fusionrun.train.images import Held
from fusionrun.train.tensor_file import TensorFile
from tests import small_runs
from tests.small_runs import SMALL
from tests.train.scripted_job import Script, started

pytestmark = [
    pytest.mark.usefixtures("numerics"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

RECIPE = SMALL + "training: {epochs: 5, batch_size: 32, device: cuda}\n"
NO_DROPOUT = ("fusion.dropout=0.0", "experts.fourier.dropout=0.0")
ENGINES = ("eager", "compiled", "cudagraph")


def run_of(folder: Path, engine: str, *settings: str) -> RunLayout:
    own = (*settings, f"training.engine={engine}")
    return small_runs.prepared(folder, *own, recipe=RECIPE)


def weights_of(layout: RunLayout) -> dict[str, bytes]:
    files = sorted(layout.components("last").rglob("*.safetensors"))
    assert files
    return {path.name: path.read_bytes() for path in files}


def losses_of(layout: RunLayout) -> list[float]:
    lines = layout.metrics.read_text().splitlines()
    return [json.loads(line)["loss"]["total"] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES[1:])
def test_an_engine_learns_what_the_eager_one_does(tmp_path: Path, engine: str) -> None:
    layouts = [run_of(tmp_path / own, own, *NO_DROPOUT) for own in ("eager", engine)]
    for layout in layouts:
        assert job.run(layout) == "completed"
    eager, other = (losses_of(layout) for layout in layouts)
    assert other == pytest.approx(eager, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_run_ends_with_the_bits_of_one_that_was_not(tmp_path: Path, engine: str) -> None:
    whole, killed = (run_of(tmp_path / name, engine) for name in ("whole", "killed"))
    assert started(whole) == [0]
    assert started(killed, Script(saves=(9,), kill=11)) == [-signal.SIGKILL]
    assert started(killed) == [0]
    assert weights_of(killed) == weights_of(whole)


def test_images_that_do_not_fit_are_carried_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda")
    pixels = np.random.default_rng(0).integers(0, 256, (640, 3, 32, 32), dtype=np.uint8)
    wanted = list(torch.split(torch.randperm(640, device=device), 64))
    here = Held(pixels, device)
    monkeypatch.setattr(images, "fits", lambda *_: False)
    beside = Held(pixels, device)
    assert not beside.pixels.is_cuda
    work = torch.rand(2048, 2048, device=device)
    for one, other in zip(here.batches(wanted), beside.batches(wanted), strict=True):
        work = work @ work / 1024  # (so that the device is busy when a batch arrives)
        assert other.is_cuda
        assert torch.equal(one, other)
    assert torch.equal(here.take(wanted[0]), beside.take(wanted[0]))


def test_a_file_is_of_the_moment_it_was_filled_in() -> None:
    weight = torch.zeros(1 << 22, device="cuda")
    files = [TensorFile({"weight": weight, "pending": torch.tensor(0)}) for _ in range(20)]
    for number, file in enumerate(files):
        weight.fill_(number)
        file.fill({"weight": weight, "pending": torch.tensor(number)})
    with ThreadPoolExecutor(1) as thread:
        contents = list(thread.map(TensorFile.content, files))
    for number, content in enumerate(contents):
        found = load(bytes(content))
        assert found["weight"].eq(number).all()
        assert int(found["pending"]) == number
