"""What a run leaves behind while it goes on: status, events, metrics. Decides nothing.

Of several ranks only the first writes; on the others all of this is silence.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from fusionrun.store.atomic import append_line, write_json
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import State, read_status, write_status

# Status is for people and monitors: more often than this tells them nothing new.
STATUS_EVERY_S = 1.0
# Within a long epoch: what a monitor may rely on to tell a slow run from a hung one.
HEARTBEAT_EVERY_S = 5.0


class Pace:
    """How long a step takes, without reading a clock at each.

    Stretches of steps are timed as wholes, so that on a device that works behind the host's back
    the time is the device's.
    """

    def __init__(self) -> None:
        self._stretches: deque[float] = deque(maxlen=31)
        self._began, self._from_step = time.perf_counter(), 0

    def begin(self, step: int) -> None:
        """Time from here: what came before was no training."""
        self._began, self._from_step = time.perf_counter(), step

    def take(self, step: int) -> None:
        """Take in the steps since `begin` or the last `take`."""
        if step > self._from_step:
            now = time.perf_counter()
            self._stretches.append((now - self._began) / (step - self._from_step))
            self._began, self._from_step = now, step

    @property
    def step_s(self) -> float | None:
        """The median of the latest stretches, in seconds a step; None before there is one."""
        return statistics.median(self._stretches) if self._stretches else None


class Recorder:
    """Writes the records of one attempt at a run.

    Args:
        layout: the run's directory.
        writes: False: of another rank than the first.
    """

    def __init__(self, layout: RunLayout, *, writes: bool = True) -> None:
        self.layout = layout
        self.attempt = read_status(layout).attempts + 1
        self.pace = Pace()
        # Seconds of the last checkpoint.
        self.save_s: float | None = None
        # Of the whole plan.
        self.epochs, self.steps = 0, 0
        self.job_id = os.environ.get("SLURM_JOB_ID")
        self._writes = writes
        self._last_status = -math.inf

    def status(self, state: State, epoch: int, step: int, *, at_most_every_s: float = 0.0) -> None:
        """Record how the run stands, unless that was done less than `at_most_every_s` ago."""
        if not self._writes or time.monotonic() - self._last_status < at_most_every_s:
            return
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
        self._last_status = time.monotonic()

    def event(self, what: str, **details: Any) -> None:
        """Append one thing that happened, with the time in UTC."""
        if self._writes:
            append_line(self.layout.events, {"time": _now(), "event": what, **details})

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """Append one epoch's numbers."""
        if self._writes:
            append_line(self.layout.metrics, metrics)

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

    def forget_outcome(self) -> None:
        """Take away how the attempt before ended: this one has not."""
        if self._writes:
            self.layout.outcome.unlink(missing_ok=True)

    def metrics_bytes(self) -> int:
        """How long the metrics are by now, after making them last."""
        try:
            descriptor = os.open(self.layout.metrics, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            os.fsync(descriptor)
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def cut_metrics(self, size: int) -> None:
        """Take away the epochs that will come again: all beyond the first `size` bytes."""
        if self._writes:
            with suppress(FileNotFoundError):
                os.truncate(self.layout.metrics, min(size, self.layout.metrics.stat().st_size))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
