"""Batches that are made ahead of need by other threads, and carried to the GPU while it works.

On a GPU they travel from pinned memory by a stream of its own, so that neither the steps nor who
launches them waits for the bus.

Shapes: B rows of a batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

import torch
from torch import Tensor

__all__ = ["NUM_AHEAD", "Prefetch"]

NUM_AHEAD: Final = 2
"""Batches that are there, or on their way, before they are asked for."""


class _Arriving(NamedTuple):
    """A batch on its device, once `ready` has come; None: at once."""

    batch: Tensor
    ready: torch.cuda.Event | None


class Prefetch:
    """Makes batches in order, some ahead.

    Args:
        make: from indices (B,), on any device, to a batch on the CPU; several threads call it.
        device: where batches are wanted.
    """

    def __init__(self, make: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._make, self._device = make, device
        self._threads = ThreadPoolExecutor(NUM_AHEAD, "prefetch")
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def take(self, indices: Tensor) -> Tensor:
        """One batch, now."""
        return self._make(indices).to(self._device)

    def batches(self, wanted: Iterable[Tensor]) -> Iterator[Tensor]:
        """One batch after the other; the next ones are made while one is used."""
        waiting = deque[Future[_Arriving]]()
        # All at once: a later look at the device would wait for the steps that it still has to do.
        for indices in [own.cpu() for own in wanted]:
            waiting.append(self._threads.submit(self._sent, indices))
            if len(waiting) > NUM_AHEAD:
                yield _arrived(waiting.popleft().result())
        while waiting:
            yield _arrived(waiting.popleft().result())

    def _sent(self, indices: Tensor) -> _Arriving:
        """In a thread: the batch, and on its way."""
        batch = self._make(indices)
        if self._stream is None:
            return _Arriving(batch, None)
        with torch.cuda.stream(self._stream):
            there = batch.pin_memory().to(self._device, non_blocking=True)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
            ready.record()
        return _Arriving(there, ready)


def _arrived(sent: _Arriving) -> Tensor:
    if sent.ready is not None:
        current = torch.cuda.current_stream(sent.batch.device)
        current.wait_event(sent.ready)
        # Its memory is the other stream's: that must not have it back before the step has read it.
        sent.batch.record_stream(current)
    return sent.batch
