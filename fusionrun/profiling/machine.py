"""What this machine can do, measured here: the peak of its matrix products, and memory in use."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import torch

__all__ = ["PeakMemory", "matmul_peak"]

CPU_SIZE: Final = 768
"""Rows and columns: 7 MB in float32, within the cache that a core has of its own or shares, and
large enough that a bigger product is no faster (measured on two CPU models)."""

CUDA_SIZE: Final = 8192
"""Likewise: 1.1 TFLOP in one product, which fills every GPU of today (assumed)."""

LEAST_S: Final = 0.25
MOST_PRODUCTS: Final = 200

_SELF: Final = Path("/proc/self")


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The best rate of a square matrix product here, in FLOP/s, with torch's threads as they are.

    The best of many, not the mean: it is what the machine can do that is asked for.
    """
    size = CUDA_SIZE if device.type == "cuda" else CPU_SIZE
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(left)
    best, began = float("inf"), time.perf_counter()
    for number in range(MOST_PRODUCTS):
        start = time.perf_counter()
        torch.mm(left, right, out=out)
        synchronize(device)
        seconds = time.perf_counter() - start
        if number:  # the first one allocates and chooses its kernel
            best = min(best, seconds)
        if number > 2 and time.perf_counter() - began > LEAST_S:
            break
    return 2 * size**3 / best


def synchronize(device: torch.device) -> None:
    """Wait for what the device still does."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class PeakMemory:
    """How much more memory than at its making this process, or its GPU, has held at most.

    Args:
        device: whose memory; of a CPU it is what the process holds resident.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
            return
        with suppress(OSError):
            (_SELF / "clear_refs").write_text("5")  # the high-water mark begins anew (proc(5))
        self._before = _status("VmRSS")

    def growth(self) -> int:
        """In bytes."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device)) - self._before
        return max(0, _status("VmHWM") - self._before)


def _status(key: str) -> int:
    """Bytes that the kernel tells of this process under a key."""
    lines = (_SELF / "status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
