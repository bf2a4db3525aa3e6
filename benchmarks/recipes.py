"""The recipes that are measured, beside the shipped one: written where a benchmark has its folder.

No dropout, so that every engine must come to the same loss; and small rates, so that rounding does
not grow in a hundred steps to what a mistake would make.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fusionrun.datasets import path_of

DIGITS = Path(__file__).parent.parent / "recipes" / "handwritten-digits.yaml"
RATES = "learning_rates={base_lr: 1e-4, head_lr: 1e-4}"
COMMON = ("fusion.dropout=0.0", "training.device=cpu", RATES)
NO_CHECKPOINTS = "training.checkpoints={every_s: 86400}"

_HEAD = """\
version: 1
name: {name}
preset: tuned
fusion: {{type: concatenation, dropout: 0.0}}
training: {{epochs: {epochs}, batch_size: {batch_size}, device: cpu}}
"""
_DIGITS = "data: {source: npz, path: package:handwritten_digits, label: label}\n"


def equal_experts(folder: Path, number: int, batch_size: int = 128) -> Path:
    """So many MLPs of one shape, all on the same view: 240 → 128 → 64."""
    expert = "{model: mlp, view: pixel_averages, hidden: [128], features: 64}"
    experts = "".join(f"  e{n}: {expert}\n" for n in range(number))
    head = _HEAD.format(name=f"equal-{number}", epochs=60, batch_size=batch_size)
    return _written(folder / f"equal-{number}.yaml", f"{head}{_DIGITS}experts:\n{experts}")


def large_expert(folder: Path, width: int = 3400) -> Path:
    """One MLP whose checkpoint takes some 200 MB: weights, best weights and two moments."""
    head = _HEAD.format(name="large", epochs=1000, batch_size=1200)
    expert = f"{{model: mlp, view: pixel_averages, hidden: [{width}, {width}], features: 64}}"
    return _written(folder / "large.yaml", f"{head}{_DIGITS}experts:\n  large: {expert}\n")


def conv_experts(folder: Path) -> Path:
    """Four small convolutional networks on images."""
    expert = "{model: cnn, view: image, channels: [16, 32], features: 64}"
    return _four_on_images(folder, "conv", expert, batch_size=32)


def wide_resnets(folder: Path) -> Path:
    """Four WRN-28-10 on images."""
    expert = "{model: wideresnet, view: image}"
    return _four_on_images(folder, "wide-resnets", expert, batch_size=128)


def _four_on_images(folder: Path, name: str, expert: str, batch_size: int) -> Path:
    """On 1,280 images of 3 × 32 × 32: each class one, under noise."""
    draw, labels = np.random.default_rng(0), np.arange(1280) % 10
    shown = draw.integers(0, 128, (10, 3, 32, 32), np.uint8)[labels]
    noise = draw.integers(0, 128, shown.shape, np.uint8)
    np.savez(folder / "images.npz", image=shown + noise, label=labels)
    experts = "".join(f"  e{n}: {expert}\n" for n in range(4))
    head = _HEAD.format(name=name, epochs=60, batch_size=batch_size)
    split = "{train: 1.0, val: 0.0, test: 0.0}"
    data = f"data: {{source: npz, path: images.npz, label: label, split: {split}}}\n"
    return _written(folder / f"{name}.yaml", f"{head}{data}experts:\n{experts}")


def long_digits(folder: Path) -> Path:
    """The shipped recipe with twenty times the rows: an epoch of 187 steps at batches of 128."""
    with np.load(path_of("handwritten_digits")) as archive:
        arrays = {name: np.concatenate([archive[name]] * 20) for name in archive.files}
    np.savez(folder / "digits.npz", **arrays)
    text = DIGITS.read_text().replace("package:handwritten_digits", "digits.npz")
    return _written(folder / "long-digits.yaml", text)


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
