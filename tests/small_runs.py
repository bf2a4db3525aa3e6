"""Small recipes that several tests start from, on the shipped digits."""

from __future__ import annotations

from pathlib import Path

from fusionrun.launch import prepare
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.store.layout import RunLayout

# Two experts and defaults; what a test is about is added to it.
TWO_EXPERTS = """\
version: 1
name: small
preset: tuned
data: {source: npz, path: package:handwritten_digits, label: label}
experts:
  fourier: {model: mlp, view: fourier, hidden: [16], features: 16}
  zernike: {model: mlp, view: zernike, hidden: [16], features: 16}
fusion: {type: concatenation}
"""
# A run of seconds that draws, distils and accumulates: all that a resume can get wrong.
# 160 training rows in batches of 32: five steps an epoch. Windows of three batches: an epoch is
# one of three and one of two. Dropout draws. What else is trained, and how long, is added to it.
SMALL = """\
version: 1
name: small
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
"""


def prepared(folder: Path, *settings: str, recipe: str) -> RunLayout:
    """A run's directory in `folder/runs`, not begun."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "small.yaml"
    path.write_text(recipe)
    source = read_recipe(path, list(settings))
    plan = make_plan(source, folder / "runs")
    return prepare(plan, source.text, folder / "runs", new=True).layout
