"""Whether the best rate stays where it is when every width grows, with muP's rule and without.

    python benchmarks/widths.py                 # widths 32, 128, 512; eight rates; two minutes

Two experts of the digits with hidden layer, features and fusion of one width; Adam, no clip, no
decay, cosine over ten epochs. Printed is the last epoch's mean training loss by rate, then the best
rate, and what the narrowest one's best rate costs at each width, in per cent of that width's best.
At the narrowest width, the rule's base, both are the same.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path

from fusionrun.launch import prepare
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.train import job

RECIPE = """\
version: 1
name: widths
preset: tuned
data:
  source: npz
  path: package:handwritten_digits
  label: label
  split: {{train: 0.6, val: 0.2, test: 0.2, seed: 0}}
experts:
  fourier: {{model: mlp, view: fourier, hidden: [{width}], features: {width}}}
  zernike: {{model: mlp, view: zernike, hidden: [{width}], features: {width}}}
fusion: {{type: concatenation, dropout: 0.0}}
learning_rates: {{base_lr: {rate}, head_lr: {rate}, rules: {rules}}}
knowledge_transfer: {{expert_gradient_clipping: null, fusion_gradient_clipping: null}}
training:
  epochs: 10
  device: cpu
  optimizer: {{type: Adam, weight_decay: 0.0}}
  early_stopping: null
"""
RATES = [5e-4 * 2**n for n in range(8)]


def last_loss(folder: Path, width: int, rate: float, rules: str, seed: int) -> float:
    path = folder / "widths.yaml"
    path.write_text(RECIPE.format(width=width, rate=rate, rules=rules))
    source = read_recipe(path, [f"seed={seed}"])
    layout = prepare(make_plan(source, folder), source.text, folder, new=True).layout
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        job.run(layout)
    return float(json.loads(layout.metrics.read_text().splitlines()[-1])["loss"]["total"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    base, *_ = arguments.widths
    rules = {"without": "[]", "with mup": f"[{{mup: {{base_width: {base}}}}}]"}
    print("rule      width  " + "  ".join(f"{rate:6.4f}" for rate in RATES) + "    best    cost")
    found: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for words, rule in rules.items():
            for width in arguments.widths:
                runs = [
                    [last_loss(Path(folder), width, rate, rule, s) for s in range(arguments.seeds)]
                    for rate in RATES
                ]
                losses = [sum(own) / len(own) for own in runs]
                best = losses.index(min(losses))
                at_base = found.setdefault(words, best)
                cost = losses[at_base] / losses[best] - 1
                row = "  ".join(f"{loss:6.4f}" for loss in losses)
                print(f"{words:8}  {width:5}  {row}  {RATES[best]:6.4f}  {cost:6.0%}", flush=True)


if __name__ == "__main__":
    main()
