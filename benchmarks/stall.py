"""How long a step waits for a checkpoint, against a raw write of as many bytes; in one process.

python -m benchmarks.stall RECIPE ROUNDS [KEY=VALUE …] prints seconds of both by round, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.task import plan_of
from fusionrun.store.layout import RunLayout
from fusionrun.train.bare import bare_trainer
from fusionrun.train.checkpoint import Origin, Snapshots
from fusionrun.train.epochs import Epochs
from fusionrun.train.ranks import SINGLE
from fusionrun.train.recorder import Recorder
from fusionrun.train.saver import Saver


class _Enough(Exception):
    pass


def main(recipe: str, rounds: str, *settings: str) -> None:
    torch.set_num_threads(1)
    plan = plan_of(Path(recipe), [*settings, "training.threads=1"])
    trainer, origin = bare_trainer(plan), Origin(plan.hash, {}, {})
    stalls: list[float] = []
    writes: list[float] = []
    size = 0
    with tempfile.TemporaryDirectory() as folder:
        layout = RunLayout(Path(folder))
        layout.checkpoints.mkdir()
        recorder = Recorder(layout)
        checkpoints = plan.settings.training.checkpoints
        saver = Saver(layout, checkpoints, origin, trainer.step, SINGLE, recorder, None)

        def between_steps(epochs: Epochs) -> None:
            nonlocal size
            if epochs.epoch < 1:  # until the best weights are among what is saved
                return
            began = time.perf_counter()
            saver.save(epochs)
            stalls.append(time.perf_counter() - began)
            saver.wait()
            size = size or Snapshots(trainer.step, SINGLE, origin).take(epochs).size
            writes.append(_raw_write(Path(folder) / "raw", size))
            if len(stalls) > int(rounds):
                raise _Enough

        try:
            trainer.epochs(between_steps).run()
        except _Enough:
            saver.close()
    # The first one finds memory that nobody has touched yet.
    print(json.dumps({"stalls": stalls[1:], "writes": writes[1:], "bytes": size}))


def _raw_write(path: Path, size: int) -> float:
    """Seconds of writing so many bytes to a new file and flushing it."""
    content = memoryview(bytearray(os.urandom(1 << 20) * (size // (1 << 20) + 1)))[:size]
    began = time.perf_counter()
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


if __name__ == "__main__":
    main(*sys.argv[1:])
