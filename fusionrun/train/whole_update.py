"""From gradients to new weights as one function of tensors: what `Updater` does call by call.

Written as arithmetic on whole pieces of the memory, each of which a compiler can clip, step and
write in one pass.

Shapes: R rows of a piece (1, or one for each expert of a stack) and P numbers of a row; K spans
that move, G clip groups that step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from fusionrun.train.layout import Piece
from fusionrun.train.optimizer import OptimizerSettings
from fusionrun.train.update_rules import Scales, moved
from fusionrun.train.updates import Updater

__all__ = ["Memory", "whole_update"]

Update = Callable[["Memory", Sequence[Tensor], Tensor, Tensor], tuple[Tensor, Tensor]]


class Memory(NamedTuple):
    """What a step changes. The first three are of every piece, (R, P).

    Attributes:
        flat: the parameters.
        grad: what an open window has added up; empty where every batch steps.
        moments: the first one of all pieces, then the second.
        steps: (C,), so far, by step counter.
        nonfinite: (), steps so far with a gradient that was not finite.
        buffers: the network's, running statistics among them.
    """

    flat: tuple[Tensor, ...]
    grad: tuple[Tensor, ...]
    moments: tuple[Tensor, ...]
    steps: Tensor
    nonfinite: Tensor
    buffers: tuple[Tensor, ...]


class _Moves(NamedTuple):
    """How a piece moves.

    Attributes:
        spans: each row's.
        weight_decay: of all rows, or (R, 1).
    """

    spans: tuple[int, ...]
    weight_decay: float | Tensor


class _Band(NamedTuple):
    """Pieces with the same clip groups, one a row.

    Attributes:
        pieces: their numbers.
        steps: whether they step now.
        waits: whether they step at the end of a window only.
        max_norm: what each row's norm is clipped to.
        moves: of each piece; None: it stays as it is.
    """

    pieces: tuple[int, ...]
    steps: bool
    waits: bool
    max_norm: float
    moves: tuple[_Moves | None, ...]


def whole_update(updater: Updater, pieces: Sequence[Piece], *, opens: bool, closes: bool) -> Update:
    """The function from memory, the batch's gradient by pieces, scales (3, K) and share () to the
    step's norms (G,) and whether it was left out ().

    Args:
        updater: says which groups step, and what of them moves: as its rates were set last.
        pieces: of its memory.
        opens: whether the batch is the first of its window.
        closes: whether it is the last of it; `share` is one over its batches then.
    """
    bands, settings = _bands(updater, pieces, closes), updater.calls.settings
    stepping = [band for band in bands if band.steps]
    counters, max_skipped = _moving_counters(updater, closes), updater.max_skipped

    def update(
        memory: Memory, grads: Sequence[Tensor], scales: Tensor, share: Tensor
    ) -> tuple[Tensor, Tensor]:
        if not opens:
            grads = [before + own for before, own in zip(memory.grad, grads, strict=True)]
        norms = [_norms(band, grads, share) for band in stepping]
        left_out = _judged(memory, all_norms := torch.cat(norms), max_skipped)
        for number in counters:
            memory.steps[number].add_(1 - left_out)
        for band, own in zip(stepping, norms, strict=True):
            factor = _factor(band, own, share)
            for number, moves in zip(band.pieces, band.moves, strict=True):
                if moves is not None:
                    slope = grads[number] * factor
                    _move(settings, memory, number, moves, slope, scales, left_out)
        if memory.grad:
            _keep(memory, bands, grads)
        return all_norms, left_out

    return update


def _norms(band: _Band, grads: Sequence[Tensor], share: Tensor) -> Tensor:
    """Of each row over all of a band's pieces: (R,)."""
    squares = [grads[number].square().sum(1) for number in band.pieces]
    norms = torch.stack(squares).sum(0).sqrt()
    return norms * share if band.waits else norms


def _factor(band: _Band, norms: Tensor, share: Tensor) -> Tensor:
    """What each row's gradient is multiplied by: (R, 1)."""
    factor = (band.max_norm / (norms + 1e-6)).clamp(max=1.0)  # as clip_grad_norm_ has it
    return (factor * share if band.waits else factor).unsqueeze(1)


def _keep(memory: Memory, bands: Sequence[_Band], grads: Sequence[Tensor]) -> None:
    """What windows have added up, and nothing of what has been used."""
    for band in bands:
        for number in band.pieces:
            own = grads[number]
            memory.grad[number].copy_(torch.zeros_like(own) if band.steps else own)


def _judged(memory: Memory, norms: Tensor, max_skipped: int) -> Tensor:
    """Whether the step must be left out, 1 or 0; counted."""
    # A norm times zero is zero, or it was not finite; so is their sum.
    bad = (norms.sum() * 0).ne(0).to(memory.nonfinite.dtype)
    memory.nonfinite.add_(bad)
    return torch.maximum(bad, (memory.nonfinite > max_skipped).to(bad.dtype))


def _move(
    settings: OptimizerSettings,
    memory: Memory,
    number: int,
    moves: _Moves,
    slope: Tensor,
    scales: Tensor,
    left_out: Tensor,
) -> None:
    """Steps one piece by its clipped gradient."""
    before = [memory.flat[number], *memory.moments[number :: len(memory.flat)]]
    own = Scales(*_of_rows(scales, moves.spans).unsqueeze(-1).unbind())
    weights, moments = moved(settings, before[0], slope, before[1:], own, moves.weight_decay)
    for old, new in zip(before, [weights, *moments], strict=True):
        old.copy_(torch.where(left_out.bool(), old, new))


def _of_rows(scales: Tensor, spans: Sequence[int]) -> Tensor:
    """(3, K) to (3, R)."""
    steps = {after - before for before, after in pairwise(spans)} or {1}
    if len(steps) == 1 and (step := steps.pop()) > 0:  # (a slice costs a compiler nothing)
        return scales[:, spans[0] : spans[-1] + 1 : step]
    return torch.stack([scales[:, span] for span in spans], 1)


def _moving_counters(updater: Updater, closes: bool) -> list[int]:
    """Numbers of the counters by which something moves now."""
    names = list(updater.calls.counters())
    moving = {span.counter for span in updater.calls.spans}
    return [n for n, name in enumerate(names) if name in moving and (closes or not name.waits)]


def _bands(updater: Updater, pieces: Sequence[Piece], closes: bool) -> list[_Band]:
    """All of the memory, in the order of the groups."""
    groups = updater.groups
    group_of = {name: n for n, group in enumerate(groups) for name in group.components}
    alike: dict[tuple[int, ...], list[int]] = {}
    for number, piece in enumerate(pieces):
        alike.setdefault(tuple(group_of[name] for name in piece.components), []).append(number)
    due = updater.due(closes)
    bands = []
    for rows, numbers in sorted(alike.items()):
        own = [groups[row] for row in rows]
        ((steps, waits, limit),) = {(g in due, updater.waits(g), g.max_norm) for g in own}
        moves = tuple(_moves(updater, pieces[number]) for number in numbers)
        max_norm = math.inf if limit is None else limit
        bands.append(_Band(tuple(numbers), steps, waits, max_norm, moves))
    return bands


def _moves(updater: Updater, piece: Piece) -> _Moves | None:
    """Of the rows of a piece, which move all or none."""
    spans = updater.calls.spans
    found = [
        next((n for n, span in enumerate(spans) if span.start <= start < span.end), None)
        for start in piece.starts
    ]
    numbers = tuple(number for number in found if number is not None)
    if not numbers:
        return None
    assert len(numbers) == len(found)
    decays = [spans[number].weight_decay for number in numbers]
    if len(set(decays)) == 1:
        return _Moves(numbers, decays[0])
    return _Moves(numbers, updater.flat.new_tensor(decays).unsqueeze(1))
