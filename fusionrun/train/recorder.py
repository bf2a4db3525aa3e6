"""What a run leaves behind while it goes on: status, events, metrics. Decides nothing.

Of several ranks only the first writes; on the others all of this is silence.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fusionrun.store.atomic import (
    append_line,
    remove_leftovers,
    sync_file,
    write_bytes,
    write_json,
)
from fusionrun.store.disk_errors import in_words
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import State, read_status, write_status

# Status is for people and monitors: more often than this tells them nothing new.
STATUS_EVERY_S = 1.0
# Within a long epoch: what a monitor may rely on to tell a slow run from a hung one.
HEARTBEAT_EVERY_S = 5.0


class Pace:
    """How long a step takes, without reading a clock at each.

    Stretches of steps are timed as wholes, so that on a device that works behind the host's back
    the time is the device's. An attempt's first step is left out where it is timed by itself: it
    took long, for it was compiled.
    """

    def __init__(self) -> None:
        self._stretches: deque[float] = deque(maxlen=31)
        self._has_begun = False
        self._began, self._from_step = time.perf_counter(), 0

    def begin(self, step: int) -> None:
        """Time from here: what came before was no training."""
        self._began, self._from_step = time.perf_counter(), step

    def take(self, step: int) -> None:
        """Take in the steps since `begin` or the last `take`."""
        if step > self._from_step:
            now, steps = time.perf_counter(), step - self._from_step
            if self._has_begun or steps > 1:
                self._stretches.append((now - self._began) / steps)
            self._has_begun = True
            self._began, self._from_step = now, step

    @property
    def step_s(self) -> float | None:
        """The median of the latest stretches, in seconds a step; None before there is one.

        Of two the shorter: another kind of batch may have been compiled in the other.
        """
        return statistics.median_low(self._stretches) if self._stretches else None


class Recorder:
    """Writes the records of one attempt at a run.

    Args:
        layout: the run's directory.
        writes: False: of another rank than the first.
        runs: that are recorded in this process; where there are several each writes its status
            the more seldom, but for heartbeats.
    """

    def __init__(self, layout: RunLayout, *, writes: bool = True, runs: int = 1) -> None:
        self.layout = layout
        # Between two epochs, at least.
        self.status_every_s = min(STATUS_EVERY_S * runs, HEARTBEAT_EVERY_S)
        self.attempt = read_status(layout).attempts + 1
        self.pace = Pace()
        # Seconds of the last checkpoint.
        self.save_s: float | None = None
        # Of the whole plan.
        self.epochs, self.steps = 0, 0
        self.job_id = os.environ.get("SLURM_JOB_ID")
        self._writes = writes
        self._lines = _Lines()
        self._last_status = -math.inf

    def status(self, state: State, epoch: int, step: int, *, at_most_every_s: float = 0.0) -> None:
        """Record how the run stands, unless that was done less than `at_most_every_s` ago.

        That it goes on may fail to be written, and is said anew the next time.

        Raises:
            OSError: it ended, and that cannot be written.
        """
        if not self._writes or time.monotonic() - self._last_status < at_most_every_s:
            return
        self._last_status = time.monotonic()
        with suppress(OSError) if state == "running" else nullcontext():
            self._write_status(state, epoch, step)

    def _write_status(self, state: State, epoch: int, step: int) -> None:
        write_status(
            self.layout,
            state,
            epoch=epoch,
            step=step,
            attempts=self.attempt,
            epochs=self.epochs,
            steps=self.steps,
            step_s=self.pace.step_s,
            save_s=self.save_s,
            job_id=self.job_id,
        )

    def event(self, what: str, **details: Any) -> None:
        """Append one thing that happened, with the time in UTC."""
        if self._writes:
            self._lines.add(self.layout.events, {"time": _now(), "event": what, **details})

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """Append one epoch's numbers."""
        if self._writes:
            self._lines.add(self.layout.metrics, metrics)

    def results(self, results: Mapping[str, Any]) -> None:
        """Write the final table."""
        if self._writes:
            write_json(self.layout.results, results)

    def outcome(self, outcome: str, reason: str | None, epoch: int, step: int) -> None:
        """Write how this attempt ended; whoever asked it to stop has been answered."""
        if not self._writes:
            return
        content = {"attempt": self.attempt, "outcome": outcome, "reason": reason}
        content |= {"epoch": epoch, "step": step, "time": _now()}
        write_json(self.layout.outcome, content)
        self.layout.stop_request.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Take away how the attempt before ended, and what it left unfinished if it was killed."""
        if not self._writes:
            return
        self.layout.outcome.unlink(missing_ok=True)
        own = ("status", "outcome", "results", "environment", "metrics")
        for name in own:
            remove_leftovers(getattr(self.layout, name))

    def sync_metrics(self) -> None:
        """Make the metrics last. Raises OSError where they cannot even be written."""
        if error := self._lines.write():
            raise error
        with suppress(FileNotFoundError):
            sync_file(self.layout.metrics)

    def keep_metrics(self, epochs: int) -> None:
        """Take away the epochs that will come again: all but the first so many."""
        if not self._writes:
            return
        with suppress(FileNotFoundError):
            lines = self.layout.metrics.read_bytes().splitlines(keepends=True)
            write_bytes(self.layout.metrics, b"".join(lines[:epochs]))

    def close(self) -> None:
        """Write what a full disk has held up, if it can be written by now."""
        self._lines.write()


class _Lines:
    """Lines on their way to files: what the disk does not take now waits, in order.

    A full disk must not end a training, nor may it cost a record once there is room again. Events
    come from two threads.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Path, Mapping[str, Any]]] = deque()
        self._turn = threading.Lock()
        self._warned = False

    def add(self, path: Path, line: Mapping[str, Any]) -> None:
        """Write a line after those that wait."""
        with self._turn:
            self._waiting.append((path, line))
        self.write()

    def write(self) -> OSError | None:
        """Write all that waits; what stands in the way, None where nothing waits any more."""
        with self._turn:
            try:
                while self._waiting:
                    append_line(*self._waiting[0])
                    self._waiting.popleft()
            except OSError as error:
                self._warn(error)
                return error
        return None

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            words = "training goes on, and records wait until they can be written"
            print(f"warning: {in_words(error)}; {words}", file=sys.stderr, flush=True)
        self._warned = True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
