"""Interrupting a run: the first INT or TERM stops it at a step boundary, the second at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_STDERR = 2


class StopRequest:
    """Whether someone asked the run to stop."""

    def __init__(self) -> None:
        self.requested = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        # Not print: the signal may have come while the same stream was being written to.
        with suppress(OSError):
            os.write(_STDERR, b"\nstopping after this step; once more stops at once\n")


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Listen for INT and TERM while the block runs; the handlers before are put back after."""
    request = StopRequest()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request._on_signal) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
