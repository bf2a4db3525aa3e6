"""One training step as one function of tensors: forward, losses, backward, clip, optimizer.

Nothing in it asks for a value or branches on one, its shapes are fixed, and what changes from
step to step (rates, counters, weights of the terms) comes in as small tensors: so a compiler can
make one graph of it. What it does is what `Step` and `Updater` do call by call, to rounding.

Owns that function. Which batches go through it, and compiled by what, is for `train.engines`.

Shapes: B rows, E experts, C classes, N numbers of all parameters, K components that step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value

from fusionrun.train.batch_statistics import OneRow
from fusionrun.train.layout import Layout
from fusionrun.train.losses import loss_terms
from fusionrun.train.step import Step, autocast
from fusionrun.train.whole_update import Memory, whole_update

__all__ = [
    "Memory",
    "StepFunction",
    "StepInputs",
    "StepOutputs",
    "memory_of",
    "tensors_of",
    "whole_step",
]

Kept = tuple[list[Tensor], tuple[Tensor, Tensor, Tensor]]
Gradients = Callable[[Memory, "StepInputs"], tuple[tuple[Tensor, ...], Kept]]


class StepInputs(NamedTuple):
    """What a step reads.

    Attributes:
        inputs: each expert's (B, *shape), scaled.
        goal: (B,) labels or (B, C) targets.
        present: (B, E) or None; `weights`: (E, B) or None. As in `Batch`.
        known: (B, F) features of the experts that are named when the function is made.
        term_weights: what each loss term weighs, or None: as the settings say.
        scales: (3, K), of each span: see `update_rules`.
        share: (), one over the batches in the window so far.
    """

    inputs: tuple[Tensor, ...]
    goal: Tensor
    present: Tensor | None
    weights: Tensor | None
    known: tuple[Tensor, ...]
    term_weights: Tensor | None
    scales: Tensor
    share: Tensor


class StepOutputs(NamedTuple):
    """What a step leaves: the numbers of a `StepLog`, norms (groups,), and `left_out` ()."""

    terms: Tensor
    experts: Tensor
    overall: Tensor
    norms: Tensor
    left_out: Tensor


StepFunction = Callable[[Memory, StepInputs], StepOutputs]


def tensors_of(values: Memory | StepInputs) -> Iterator[Tensor]:
    """One after the other; what is None is left out."""
    for value in values:
        if isinstance(value, tuple):
            yield from value
        elif value is not None:
            yield value


def memory_of(step: Step) -> Memory:
    """The tensors themselves, not copies: what the function writes, the step has."""
    updater, layout = step.updater, Layout(step.network, step.updater)
    moments = [own for moment in updater.calls.moments.values() for own in layout.of(moment)]
    return Memory(
        layout.of(updater.flat),
        layout.of(updater.grad) if updater.has_windows else (),
        tuple(moments),
        updater.calls.steps,
        updater.nonfinite,
        tuple(step.network.buffers()),
    )


def whole_step(step: Step, opens: bool, closes: bool, known: Sequence[str]) -> StepFunction:
    """The function of one step of a network.

    Args:
        step: its network, losses and updater; the updater's rates say who is frozen.
        opens: whether the batch is the first of its window: no gradient is there yet.
        closes: whether it is the last of it: all step; else only what steps at every batch.
        known: names of the experts whose features come with the batch.
    """
    layout = Layout(step.network, step.updater)
    backward = _gradients(step, layout, tuple(known))
    update = whole_update(step.updater, layout.pieces, opens=opens, closes=closes)

    def function(memory: Memory, given: StepInputs) -> StepOutputs:
        grads, (buffers, log) = backward(memory, given)
        norms, left_out = update(memory, grads, given.scales, given.share)
        for old, new in zip(memory.buffers, buffers, strict=True):
            old.copy_(torch.where(left_out.bool(), old, new))
        return StepOutputs(*log, norms, left_out)

    return torch.no_grad()(function)


def _gradients(step: Step, layout: Layout, known: tuple[str, ...]) -> Gradients:
    """Forward and backward: the gradient of the batch's loss by pieces, the buffers after it, and
    what is kept of it: the log, and the choices of the experts' heads and of the global one.
    """
    network = step.network
    buffer_names = [name for name, _ in network.named_buffers()]

    def loss_of(pieces: Sequence[Tensor], memory: Memory, given: StepInputs) -> tuple[Tensor, Kept]:
        # Copies: a function that is differentiated must not write what it did not make.
        buffers = [buffer.clone() for buffer in memory.buffers]
        tensors = layout.parameters(pieces) | dict(zip(buffer_names, buffers, strict=True))
        features = dict(zip(known, given.known, strict=True))
        alone = OneRow() if len(given.goal) == 1 else nullcontext()
        with autocast(step.precision, step.device), alone:
            outputs = functional_call(network, tensors, (given.inputs, given.present, features))
        experts, overall = outputs
        targets = (given.goal, step.losses, given.weights, given.term_weights)
        terms = loss_terms(experts, overall, *targets)
        chosen = (experts.argmax(-1), overall.argmax(-1))
        return terms.total, (buffers, (step.weights.log(terms), *chosen))

    def gradients(memory: Memory, given: StepInputs) -> tuple[tuple[Tensor, ...], Kept]:
        found, (_, kept) = grad_and_value(loss_of, has_aux=True)(memory.flat, memory, given)
        return found, kept

    return gradients
