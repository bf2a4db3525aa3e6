"""Copies of tensors where those are, brought to the CPU by whoever has the time.

A GPU copies at its own memory's rate and is asked to, not waited for: what a training step waits
for is the asking. Another thread fetches the copies over the bus, by a stream of its own, while
the steps go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

__all__ = ["DeviceCopy"]


@dataclass(frozen=True)
class DeviceCopy:
    """Copies of some tensors.

    Attributes:
        tensors: contiguous, by name; those that are on a GPU are on the same one.
        ready: after it they hold what they should; None on a CPU, where they do already.
    """

    tensors: Mapping[str, Tensor]
    ready: torch.cuda.Event | None = None

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Copy them where they are; on the CPU where a GPU has no room for it."""
        try:
            copies = _copied(tensors)
        except torch.OutOfMemoryError:
            return cls(_copied(tensors, torch.device("cpu")))
        if not any(copy.is_cuda for copy in copies.values()):
            return cls(copies)
        ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record()
        return cls(copies, ready)

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def on_cpu(self) -> Mapping[str, Tensor]:
        """The copies, on the CPU. Waits for them, and for nothing that the device does later."""
        if self.ready is None:
            return self.tensors
        (device,) = {tensor.device for tensor in self.tensors.values() if tensor.is_cuda}
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_event(self.ready)
        with torch.cuda.stream(stream):
            return {name: tensor.cpu() for name, tensor in self.tensors.items()}


def _copied(tensors: Mapping[str, Tensor], device: torch.device | None = None) -> dict[str, Tensor]:
    own = list(tensors.values())
    copies = [torch.empty(t.shape, dtype=t.dtype, device=device or t.device) for t in own]
    with torch.no_grad():
        torch._foreach_copy_(copies, own)  # (many small ones as a few launches)
    return dict(zip(tensors, copies, strict=True))
