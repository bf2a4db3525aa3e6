"""Keeps what the allocator is given back, for steps whose tensors are large and few.

By default glibc returns the top of its heap to the kernel after every step and faults it in again
in the next: at fifteen runs of the digits recipe 4,000 page faults a step, a tenth of its time, and
as much with four small convolutional experts (measured).
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

__all__ = ["keep_freed_memory"]

# Of <malloc.h>.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_NEVER: Final = 2**31 - 1
# The largest that glibc takes.
_LARGEST_MMAP_THRESHOLD: Final = 32 << 20


def keep_freed_memory() -> None:
    """For the rest of this process; another allocator than glibc's has its own ways."""
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
