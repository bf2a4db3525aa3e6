"""The parameters that a network computes with, as pieces of its updater's memory.

What `ComponentBuffer` and `models.stacked` lay out for a step that goes call by call, told so that
a function of the whole memory can find its way in it; its gradient then has the same layout.

Shapes: N numbers of all parameters, S experts of a stack.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from fusionrun.models.network import FusionNetwork
from fusionrun.models.stacked import Stack
from fusionrun.train.buffers import ComponentBuffer
from fusionrun.train.updates import Updater

__all__ = ["Layout"]


class Layout:
    """Where the parameters that a network computes with lie in its updater's memory."""

    def __init__(self, network: FusionNetwork, updater: Updater) -> None:
        names = {id(p): name for name, p in network.named_parameters()}
        first = {f"experts.{stack.names[0]}": stack for stack in network.stacked}
        stacked = {part for stack in network.stacked for part in stack.components}
        self._stretches: list[_Stretch] = []
        for name, buffer in updater.buffers.items():
            if name in first:
                self._stretches.append(_stretch_of_stack(first[name], updater, names))
            elif name not in stacked and buffer.parameters:
                self._stretches.append(_stretch_of(buffer, names))
        # Numbers of each stretch: together they are the memory.
        self.sizes = [stretch.size for stretch in self._stretches]

    def parameters(self, pieces: Sequence[Tensor]) -> dict[str, Tensor]:
        """Each parameter by its name in the network, from its stretch of the memory."""
        found: dict[str, Tensor] = {}
        for piece, stretch in zip(pieces, self._stretches, strict=True):
            rows = piece.view(stretch.rows, -1)
            for part, place in zip(
                torch.split(rows, stretch.sizes, 1), stretch.places, strict=True
            ):
                found[place.name] = _shaped(part, place)
        return found


class _Place(NamedTuple):
    """One parameter: its name in the network, shape, and dimensions from far to near in memory."""

    name: str
    shape: tuple[int, ...]
    order: tuple[int, ...]
    is_stacked: bool


class _Stretch(NamedTuple):
    """Parameters one behind the other; of a stack, those of one expert after the other's.

    Attributes:
        rows: experts of the stack; 1 for a component by itself.
        sizes: numbers of each parameter of a row, the gap behind it included.
        places: the parameters.
    """

    rows: int
    sizes: list[int]
    places: list[_Place]

    @property
    def size(self) -> int:
        """Numbers in all."""
        return self.rows * sum(self.sizes)


def _stretch_of(buffer: ComponentBuffer, names: Mapping[int, str]) -> _Stretch:
    parameters = buffer.parameters.values()
    places = [_Place(names[id(p)], tuple(p.shape), _order(p), False) for p in parameters]
    return _Stretch(1, _sizes([*buffer.offsets.values(), buffer.end]), places)


def _stretch_of_stack(stack: Stack, updater: Updater, names: Mapping[int, str]) -> _Stretch:
    parameters = sorted(stack.parameters(), key=lambda p: p.storage_offset())
    end = updater.buffers[f"heads.{stack.names[0]}"].end
    starts = [int(p.storage_offset()) for p in parameters]
    places = [_Place(names[id(p)], tuple(p.shape), _order(p[0]), True) for p in parameters]
    return _Stretch(len(stack.names), _sizes([*starts, end]), places)


def _sizes(starts: Sequence[int]) -> list[int]:
    return [end - start for start, end in pairwise(starts)]


def _order(parameter: Tensor) -> tuple[int, ...]:
    """Its dimensions from the one with the largest stride to that of neighbouring numbers."""
    strides = torch.empty_like(parameter).stride()
    return tuple(sorted(range(parameter.ndim), key=lambda d: -strides[d]))


def _shaped(part: Tensor, place: _Place) -> Tensor:
    """(rows, size) to the parameter."""
    shape = place.shape[1:] if place.is_stacked else place.shape
    laid_out = part[:, : math.prod(shape)].reshape(len(part), *(shape[d] for d in place.order))
    back = [0, *(1 + place.order.index(d) for d in range(len(shape)))]
    shaped = laid_out.permute(back)
    return shaped if place.is_stacked else shaped[0]
