"""Who asks a run to stop: the stop file, TERM, INT. Asks only; what follows is the job's.

The file is the way that does not depend on signals reaching the right process: whoever wants a
run to save and end writes it, and the run looks for it at its step boundaries.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

from fusionrun.train.ranks import Ranks

__all__ = [
    "INTERRUPT",
    "LOOK_EVERY_S",
    "Signals",
    "StopRequest",
    "agreed_reason",
    "signals_heard",
    "stop_on_signals",
]

LOOK_EVERY_S: Final = 0.25
"""How often at most the file is looked for: a shared file system has other things to do."""

INTERRUPT: Final = "interrupt"
"""The reason of a person at the keyboard."""

CANCEL: Final = "cancel"
"""The reason of a person elsewhere."""

TIME_LIMIT: Final = "time_limit"
SIGNAL: Final = "signal"

_STDERR = 2


class Signals:
    """What INT and TERM have asked of this process.

    Args:
        term_asks: TERM asks, however often it comes (a scheduler sends several). Else TERM is as
            INT: the first one asks, the second raises KeyboardInterrupt.
    """

    def __init__(self, *, term_asks: bool = False) -> None:
        self._term_asks = term_asks
        self.said = ""

    def take(self, number: int, frame: FrameType | None) -> None:
        """The handler of both."""
        if number == signal.SIGTERM and self._term_asks:
            self.said = self.said or SIGNAL
            return
        if self.said == INTERRUPT:
            raise KeyboardInterrupt
        self.said = INTERRUPT
        # Not print: the signal may have come while the same stream was being written to.
        with suppress(OSError):
            os.write(_STDERR, b"\nstopping after this step; once more stops at once\n")


class StopRequest:
    """Whether someone asked the run to stop, and why.

    Args:
        signals: what this process was told, for all of its runs.
        file: `RunLayout.stop_request`, or None to hear signals alone.
    """

    def __init__(self, signals: Signals, file: Path | None = None) -> None:
        self._signals, self._file = signals, file
        self._in_file = False
        self._look_at = 0.0

    @property
    def signalled(self) -> bool:
        """Whether this process itself was told."""
        return bool(self._signals.said)

    @property
    def requested(self) -> bool:
        """Whether someone did. Cheap: at most four times a second it looks for the file."""
        return self.signalled or self._looked()

    @property
    def reason(self) -> str:
        """Why: `interrupt`, else what the file says, else `signal`; empty where nobody asked."""
        said = self._signals.said
        if said == INTERRUPT or self._file is None:
            return said
        try:
            return str(json.loads(self._file.read_bytes())["reason"])
        except FileNotFoundError:
            return said
        except (OSError, RecursionError, ValueError, KeyError, TypeError):
            return CANCEL  # `touch` asks as well

    def _looked(self) -> bool:
        now = time.monotonic()
        if self._file is not None and now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            self._in_file = os.path.exists(self._file)
        return self._in_file


def agreed_reason(ranks: Ranks, stop: StopRequest) -> str:
    """Why the run stops, the same on all ranks; `stop` may have been asked on any of them.

    One who cancels must not see the run go on because its time was up as well. Where the file is
    not yet in sight of one rank (a shared file system may take its time), another's word counts.
    """
    own = stop.reason
    for reason in (INTERRUPT, CANCEL, TIME_LIMIT, SIGNAL):
        if ranks.any(own == reason):
            return reason
    return ranks.from_first(own) or CANCEL


@contextmanager
def stop_on_signals(file: Path | None = None, *, term_asks: bool = False) -> Iterator[StopRequest]:
    """Listen for INT and TERM while the block runs; the handlers before are put back after."""
    with signals_heard(term_asks=term_asks) as signals:
        yield StopRequest(signals, file)


@contextmanager
def signals_heard(*, term_asks: bool = False) -> Iterator[Signals]:
    """The same, for who has several runs to stop."""
    heard = Signals(term_asks=term_asks)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, heard.take) for number in numbers}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
