"""From a gradient to new weights as one function of tensors: what `Updater` does call by call.

Written as arithmetic on the whole memory at once, so that a compiler can make few passes over it.

Shapes: N numbers of all parameters, K spans that move, G clip groups that step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fusionrun.train.optimizer import OptimizerSettings
from fusionrun.train.update_rules import Scales, moved
from fusionrun.train.updates import Updater

__all__ = ["Memory", "whole_update"]

Update = Callable[["Memory", Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


class Memory(NamedTuple):
    """What a step changes.

    Attributes:
        flat: (N,), the parameters.
        grad: (N,), what an open window has added up; untouched where every batch steps.
        moments: (N,) each.
        steps: (C,), so far, by step counter.
        nonfinite: (), steps so far with a gradient that was not finite.
        buffers: the network's, running statistics among them.
    """

    flat: Tensor
    grad: Tensor
    moments: tuple[Tensor, ...]
    steps: Tensor
    nonfinite: Tensor
    buffers: tuple[Tensor, ...]


class _Moves(NamedTuple):
    """How a stretch moves: which counter's steps, which scales, and its weight decay."""

    counter: int
    span: int
    weight_decay: float


class _Piece(NamedTuple):
    """A stretch of the memory that a step treats alike.

    Attributes:
        place: of its numbers.
        group: which of the step's groups it belongs to; None: it does not step now.
        moves: how; None: it stays as it is.
    """

    place: slice
    group: int | None
    moves: _Moves | None


def whole_update(updater: Updater, *, opens: bool, closes: bool) -> Update:
    """The function from memory, the batch's gradient (N,), scales (3, K) and share () to the
    step's norms (G,) and whether it was left out ().

    Args:
        updater: says which groups step, and what of them moves: as its rates were set last.
        opens: whether the batch is the first of its window.
        closes: whether it is the last of it; `share` is one over its batches then.
    """
    groups, pieces, settings = updater.due(closes), _pieces(updater, closes), updater.calls.settings
    places = [updater.place(group) for group in groups]
    limits = [math.inf if group.max_norm is None else group.max_norm for group in groups]
    counters = sorted({piece.moves.counter for piece in pieces if piece.moves})
    has_windows = any(updater.waits(group) for group in updater.groups)

    def update(
        memory: Memory, grad: Tensor, scales: Tensor, share: Tensor
    ) -> tuple[Tensor, Tensor]:
        grad = grad if opens else memory.grad + grad
        one = torch.ones_like(share)
        shares = torch.stack([share if updater.waits(group) else one for group in groups])
        norms = torch.stack([grad[place].square().sum().sqrt() for place in places]) * shares
        bounds = torch.stack([torch.full_like(share, limit) for limit in limits])
        factors = (bounds / (norms + 1e-6)).clamp(max=1.0) * shares  # as clip_grad_norm_ has it
        left_out = _judged(memory, norms, updater.max_skipped)
        for number in counters:
            memory.steps[number].add_(1 - left_out)
        after = [_after(settings, piece, memory, grad, factors, scales) for piece in pieces]
        stretches = (memory.flat, *memory.moments)
        for old, new in zip(stretches, zip(*after, strict=True), strict=True):
            old.copy_(torch.where(left_out.bool(), old, torch.cat(new)))
        if has_windows:
            memory.grad.copy_(torch.cat([_kept(piece, grad) for piece in pieces]))
        return norms, left_out

    return update


def _judged(memory: Memory, norms: Tensor, max_skipped: int) -> Tensor:
    """Whether the step must be left out, 1 or 0; counted."""
    # A norm times zero is zero, or it was not finite; so is their sum.
    bad = (norms.sum() * 0).ne(0).to(memory.nonfinite.dtype)
    memory.nonfinite.add_(bad)
    return torch.maximum(bad, (memory.nonfinite > max_skipped).to(bad.dtype))


def _kept(piece: _Piece, grad: Tensor) -> Tensor:
    """What an open window keeps of a gradient: nothing where it has been used."""
    return torch.zeros_like(grad[piece.place]) if piece.group is not None else grad[piece.place]


def _after(
    settings: OptimizerSettings,
    piece: _Piece,
    memory: Memory,
    grad: Tensor,
    factors: Tensor,
    scales: Tensor,
) -> list[Tensor]:
    """A piece of the parameters and of each moment, after the step."""
    now = [whole[piece.place] for whole in (memory.flat, *memory.moments)]
    if piece.moves is None or piece.group is None:
        return now
    weights, moments = moved(
        settings,
        now[0],
        grad[piece.place] * factors[piece.group],
        now[1:],
        Scales(*scales[:, piece.moves.span].unbind()),
        piece.moves.weight_decay,
    )
    return [weights, *moments]


def _pieces(updater: Updater, closes: bool) -> list[_Piece]:
    """The whole memory, piece by piece, in order."""
    groups, counters = updater.due(closes), list(updater.calls.counters())
    moves = {
        span.start: _Moves(counters.index(span.counter), number, span.weight_decay)
        for number, span in enumerate(updater.calls.spans)
    }
    pieces = []
    for name in updater.buffers:
        group = next((n for n, g in enumerate(groups) if name in g.components), None)
        for _, start, end in updater.stretches[name]:
            own = None if group is None else moves.get(start)
            pieces.append(_Piece(slice(start, end), group, own))
    return pieces
