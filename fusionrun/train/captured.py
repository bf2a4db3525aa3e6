"""A compiled step, recorded once as a CUDA graph and replayed: no launch is paid for twice.

What a graph reads lies at fixed addresses: a step's inputs are copied there first. What it writes
is the run's own memory, and the outputs are copied out, for the next replay overwrites them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

from fusionrun.train.whole_step import StepFunction, StepInputs, StepOutputs, tensors_of
from fusionrun.train.whole_update import Memory

__all__ = ["Captured", "untouched"]

WARM_UP_STEPS: Final = 3
"""Before a capture, so that libraries have chosen their kernels. Source: torch's notes."""


class Captured:
    """A step's function at fixed addresses.

    Args:
        graph: the compiled function.
        memory: what it changes: the same tensors at every call.
        given: of the first batch; its sizes are those of every later one.
    """

    def __init__(self, graph: StepFunction, memory: Memory, given: StepInputs) -> None:
        self._given = _copied(given)
        with untouched(memory):
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP_STEPS):
                    graph(memory, self._given)
            torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # (another thread may be fetching a checkpoint meanwhile: that is no part of it)
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._outputs = graph(memory, self._given)

    def __call__(self, memory: Memory, given: StepInputs) -> StepOutputs:
        """Take a step; `memory` is that of the capture."""
        for own, new in zip(tensors_of(self._given), tensors_of(given), strict=True):
            own.copy_(new, non_blocking=True)
        self._graph.replay()
        return StepOutputs(*(output.clone() for output in self._outputs))


@contextmanager
def untouched(memory: Memory) -> Iterator[None]:
    """Whatever steps are taken inside, memory and generators are afterwards what they were."""
    tensors = list(tensors_of(memory))
    before = [tensor.clone() for tensor in tensors]
    devices = [memory.nonfinite.device] if memory.nonfinite.is_cuda else []
    with torch.random.fork_rng(devices):
        yield
    for tensor, old in zip(tensors, before, strict=True):
        tensor.copy_(old)


def _copied(given: StepInputs) -> StepInputs:
    copies = [
        tuple(t.clone() for t in value)
        if isinstance(value, tuple)
        else None
        if value is None
        else value.clone()
        for value in given
    ]
    return StepInputs(*copies)  # type: ignore[arg-type]
