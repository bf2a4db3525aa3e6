"""An updater's memory as pieces that a step treats alike, and the parameters that lie in them.

What `ComponentBuffer` and `models.stacked` lay out for a step that goes call by call, told so that
a function of the pieces can find its way in them. Each piece is a tensor by itself: so a compiler
sees that none overlaps another, and moves each in one pass.

Shapes: N numbers of the memory, S experts of a stack.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from fusionrun.models.network import FusionNetwork
from fusionrun.models.stacked import Stack
from fusionrun.train.updates import Updater

__all__ = ["Layout", "Piece"]


class Place(NamedTuple):
    """One parameter.

    Attributes:
        name: in the network.
        start: its first number in a row of its piece.
        shape: of one row's.
        order: dimensions from far to near in memory.
        is_stacked: whether it is one tensor over all rows.
    """

    name: str
    start: int
    shape: tuple[int, ...]
    order: tuple[int, ...]
    is_stacked: bool


class Piece(NamedTuple):
    """A stretch of a component; of a stack, the same one of each of its experts.

    Attributes:
        components: whose it is, one for each row.
        start: of the first row, in numbers.
        stride: from one row to the next.
        size: numbers of a row, the gaps behind parameters included.
        places: the parameters in it, in order; the first one begins where the row does.
    """

    components: tuple[str, ...]
    start: int
    stride: int
    size: int
    places: tuple[Place, ...]

    @property
    def starts(self) -> tuple[int, ...]:
        """Of each row, in numbers."""
        return tuple(self.start + self.stride * row for row in range(len(self.components)))

    def of(self, memory: Tensor) -> Tensor:
        """Its numbers in memory (N,): (rows, size)."""
        shape, strides = (len(self.components), self.size), (self.stride, 1)
        return memory.as_strided(shape, strides, int(memory.storage_offset()) + self.start)

    def parameters(self, numbers: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of each parameter, from the piece's numbers (rows, size)."""
        bounds = [*(place.start for place in self.places), self.size]
        parts = torch.split(numbers, [end - start for start, end in pairwise(bounds)], 1)
        for place, part in zip(self.places, parts, strict=True):
            yield place.name, _shaped(part, place)


class Layout:
    """The pieces of a network's memory.

    Attributes:
        pieces: in the order of the memory.
    """

    def __init__(self, network: FusionNetwork, updater: Updater) -> None:
        self._updater = updater
        names = {id(p): name for name, p in network.named_parameters()}
        stacked = {part for stack in network.stacked for part in stack.components}
        pieces = [piece for stack in network.stacked for piece in self._of_stack(stack, names)]
        for name, buffer in updater.buffers.items():
            if name not in stacked:
                found = zip(buffer.offsets.values(), buffer.parameters.values(), strict=True)
                own = {start: _place(names[id(p)], p) for start, p in found}
                pieces += self._of([name], own)
        self.pieces = tuple(sorted(pieces, key=lambda piece: piece.start))

    def of(self, memory: Tensor) -> tuple[Tensor, ...]:
        """Each piece's numbers in memory (N,)."""
        return tuple(piece.of(memory) for piece in self.pieces)

    def parameters(self, numbers: Sequence[Tensor]) -> dict[str, Tensor]:
        """Each parameter by its name in the network, from the pieces' numbers."""
        found: dict[str, Tensor] = {}
        for piece, own in zip(self.pieces, numbers, strict=True):
            found |= dict(piece.parameters(own))
        return found

    def _of_stack(self, stack: Stack, names: Mapping[int, str]) -> Iterator[Piece]:
        base = int(self._updater.flat.storage_offset())
        own = {
            int(p.storage_offset()) - base: _place(names[id(p)], p[0], is_stacked=True)
            for p in stack.parameters()
        }
        for part in ("experts", "heads"):
            yield from self._of([f"{part}.{name}" for name in stack.names], own)

    def _of(self, components: Sequence[str], places: Mapping[int, Place]) -> Iterator[Piece]:
        """The pieces of equal components.

        Args:
            components: one for each row.
            places: parameters by their start in the memory, the first row's; more than theirs
                may be among them.
        """
        buffers = [self._updater.buffers[name] for name in components]
        first = buffers[0].start
        stride = buffers[1].start - first if len(buffers) > 1 else buffers[0].end - first
        # Where any of the rows goes on at another rate.
        cuts = {
            first + start - buffer.start
            for name, buffer in zip(components, buffers, strict=True)
            for _, start, _ in self._updater.stretches[name]
        }
        for start, end in pairwise(sorted({*cuts, buffers[0].end})):
            own = [
                place._replace(start=at - start)
                for at, place in sorted(places.items(), key=lambda item: item[0])
                if start <= at < end
            ]
            yield Piece(tuple(components), start, stride, end - start, tuple(own))


def _place(name: str, parameter: Tensor, *, is_stacked: bool = False) -> Place:
    """Of one row's parameter."""
    strides = torch.empty_like(parameter).stride()
    order = tuple(sorted(range(parameter.ndim), key=lambda d: -strides[d]))
    return Place(name, 0, tuple(parameter.shape), order, is_stacked)


def _shaped(part: Tensor, place: Place) -> Tensor:
    """(rows, size) to the parameter."""
    numel = math.prod(place.shape)
    laid_out = part[:, :numel].reshape(len(part), *(place.shape[d] for d in place.order))
    back = [0, *(1 + place.order.index(d) for d in range(len(place.shape)))]
    shaped = laid_out.permute(back)
    return shaped if place.is_stacked else shaped[0]
