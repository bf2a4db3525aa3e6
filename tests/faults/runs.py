"""Small runs to be hurt: shuffled, with dropout, distillation and windows of several batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fusionrun.launch import prepare
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe

# 160 training rows in batches of 32: five steps an epoch. Windows of three batches: an epoch is
# one of three and one of two. A checkpoint every four steps: in mid-epoch, and in mid-window.
RECIPE = """\
version: 1
name: victim
preset: tuned
data:
  source: npz
  path: package:handwritten_digits
  label: label
  split: {train: 0.08, val: 0.3, test: 0.62}
experts:
  fourier: {model: mlp, view: fourier, hidden: [16], features: 16, dropout: 0.1}
  zernike: {model: mlp, view: zernike, hidden: [], features: 16}
fusion: {type: concatenation, dropout: 0.2}
knowledge_transfer: {expert_gradient_accumulation: 3, knowledge_distillation_weight: 0.1}
augmentation: {mixup: {alpha: 0.2}, label_smoothing: 0.1}
training:
  epochs: 4
  batch_size: 32
  device: cpu
  checkpoints: {every_steps: 4}
"""
EVERY = 4
STEPS = 20


def prepared(folder: Path, *settings: str) -> Path:
    """A run's directory, not begun."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "victim.yaml"
    path.write_text(RECIPE)
    source = read_recipe(path, list(settings))
    plan = make_plan(source, folder / "runs")
    return prepare(plan, source.text, folder / "runs", new=True).layout.root


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
