"""After the ranks have failed to come together: which of them still answer.

The store through which they met outlives their group. A rank that was killed does not answer
there, nor does one that hangs; of the others each finds that out for itself.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from torch.distributed.distributed_c10d import Store

__all__ = ["absent_ranks"]

WITHIN_S: Final = 3.0
"""Ranks that wait for the same sum give up at the same moment, but for how far apart they began."""
_AGAIN_S: Final = 0.1


def absent_ranks(store: Store, rank: int, size: int) -> tuple[int, ...] | None:
    """The ranks that do not answer, after waiting for them; says that this one is there.

    Args:
        store: where the ranks met.
        rank: this one.
        size: how many there are.

    Returns:
        None where the store itself is gone, and nobody knows.
    """
    missing = set(range(size)) - {rank}
    has_asked = threading.Event()

    def call() -> None:
        try:
            store.set(_key(rank), "here")
            deadline = time.monotonic() + WITHIN_S
            while missing and time.monotonic() < deadline:
                missing.difference_update([r for r in missing if store.check([_key(r)])])
                time.sleep(_AGAIN_S)
            has_asked.set()
        except RuntimeError:  # whoever kept the store has ended
            return

    # Where the process that keeps the store hangs, so does whoever asks it: without any timeout.
    asking = threading.Thread(target=call, daemon=True)
    asking.start()
    asking.join(WITHIN_S + 1)
    if has_asked.is_set():
        return tuple(sorted(missing))
    return (0,) if rank and _is_kept_by_the_first() else None


def _key(rank: int) -> str:
    return f"fusionrun/roll_call/{rank}"


def _is_kept_by_the_first() -> bool:
    """Whether rank 0 itself keeps the store, and no agent of torchrun's does."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
