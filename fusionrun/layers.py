"""The layers of a backbone, in order, and what its tensors multiply its rate by. No torch.

Layers are told from tensors' names in the order in which the backbone declares them, which for
every built-in kind is that from input to output. A name's layer is

- up to its index, or indices in a row (`layer1.0` of `layer1.0.conv2.weight`, `blocks.7`,
  `stages.2.1`), and where a list of blocks follows an index, the block (`stages.0.blocks.1`);
- without an index its first part (`conv1`, `denseblock2`), behind what all names begin with.

A norm between two layers belongs to the one before it, a bare parameter such as a class token to
the one behind it. So timm's and torchvision's models have one layer a block.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from fusionrun.blueprint import Tensor

__all__ = ["Mup", "depths", "layers_of", "mup", "mup_factors"]

_LISTS: Final = {"blocks", "block", "layers"}

Layers = tuple[tuple[str, ...], ...]


def layers_of(blueprint: Mapping[str, Tensor]) -> Layers:
    """The trainable tensors of a backbone, layer by layer from the input to the output."""
    names = [name for name, tensor in blueprint.items() if tensor.trainable]
    start = len(os.path.commonpath([n.replace(".", "/") for n in names])) + 1 if names[1:] else 0
    layers: dict[str, list[str]] = {}
    waiting: list[str] = []  # for the layer behind them
    last = ""
    for layer, run in groupby(names, lambda name: _layer(name[start:])):
        own = list(run)
        if not layer:
            waiting += own
        elif all(_is_vector(name, blueprint[name]) for name in own):
            (layers[last] if last else waiting).extend(own)
        else:
            layers.setdefault(layer, []).extend([*waiting, *own])
            waiting, last = [], layer
    if waiting:
        layers.setdefault(last, []).extend(waiting)
    return tuple(map(tuple, layers.values()))


def _layer(name: str) -> str:
    """The layer that a tensor's name speaks of; empty for a bare parameter."""
    parts = name.split(".")[:-1]
    end = next((n for n in range(len(parts)) if _is_index(parts, n)), None)
    if end is None:
        return parts[0] if parts else ""
    while end < len(parts) and (_is_index(parts, end) or parts[end] in _LISTS):
        end += 1
    while not _is_index(parts, end - 1):
        end -= 1
    return ".".join(parts[:end])


def _is_index(parts: Sequence[str], number: int) -> bool:
    """Whether a part of a name counts: `3`, or `encoder_layer_3` of a list of layers."""
    part = parts[number]
    return part.isdecimal() or (
        number > 0 and parts[number - 1] in _LISTS and part[-1:].isdecimal()
    )


def _is_vector(name: str, tensor: Tensor) -> bool:
    """Whether a tensor scales or shifts: no matrix. (Some are stacked, one row an expert.)"""
    *module, last = name.split(".")
    norm = any("norm" in part or part.startswith("bn") for part in module[-1:])
    return len(tensor.shape) < 2 or norm or last in {"bias", "embedding"}


def depths(layers: Layers) -> dict[str, int]:
    """How many layers stand behind each tensor's own: 0 at the output."""
    return {name: len(layers) - 1 - n for n, layer in enumerate(layers) for name in layer}


class Mup(NamedTuple):
    """What muP multiplies the rates of the four kinds of tensors by.

    Attributes:
        inputs: the matrix that reads the data, whose fan-in is no width.
        hidden: matrices between widths.
        outputs: matrices from a width to the classes.
        vectors: biases, norms and embeddings.
    """

    inputs: float
    hidden: float
    outputs: float
    vectors: float


def mup(optimizer: str, width: int, base_width: int) -> Mup:
    """The rates' part of the maximal update parametrization, relative to a base width.

    Adam and AdamW: matrices that read a width ∝ 1 / width, all else as it is. SGD: what reads the
    data, and vectors, ∝ width; the output ∝ 1 / width; hidden matrices as they are.
    Source: Yang et al., 2022, arXiv 2203.03466, table 3.
    """
    ratio = base_width / width
    if optimizer == "SGD":
        return Mup(inputs=1 / ratio, hidden=1.0, outputs=ratio, vectors=1 / ratio)
    return Mup(inputs=1.0, hidden=ratio, outputs=ratio, vectors=1.0)


def mup_factors(component: str, blueprint: Mapping[str, Tensor], factors: Mup) -> dict[str, float]:
    """The factor of each trainable tensor of a component, by its name there.

    An expert's first matrix reads the data, all others a width; a head's and the global head's read
    a width and give classes.
    """
    found: dict[str, float] = {}
    part = component.partition(".")[0]
    matrix = {"experts": "inputs", "fusion": "hidden"}.get(part, "outputs")
    for name, tensor in blueprint.items():
        if not tensor.trainable:
            continue
        if _is_vector(name, tensor) or _is_token(name):
            found[name] = factors.vectors
        else:
            found[name] = getattr(factors, matrix)
            matrix = "hidden" if matrix == "inputs" else matrix
    return found


def _is_token(name: str) -> bool:
    """A bare parameter of a backbone, such as a class token: it is added, not multiplied."""
    module = name.split(".")[:-1]
    return module in (["backbone"], ["backbone", "model"])
