"""Small runs to be hurt: shuffled, mixed, with dropout, distillation and windows of batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import small_runs
from tests.small_runs import SMALL

# A checkpoint every four steps: in mid-epoch, and in mid-window.
RECIPE = (
    SMALL
    + """\
augmentation: {mixup: {alpha: 0.2}, label_smoothing: 0.1}
training:
  epochs: 4
  engine: eager
  batch_size: 32
  device: cpu
  checkpoints: {every_steps: 4}
"""
)
EVERY = 4
STEPS = 20


def prepared(folder: Path, *settings: str) -> Path:
    """A run's directory, not begun."""
    return small_runs.prepared(folder, *settings, recipe=RECIPE).root


def job(run: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The job as a command of its own, with what it says."""
    return subprocess.run(
        [sys.executable, "-m", "fusionrun.job", str(run)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def stop_at_once(run: Path) -> None:
    """Someone has asked the run to stop before it begins: it saves where it is, and ends."""
    (run / "stop.json").write_text('{"reason": "time_limit"}')
