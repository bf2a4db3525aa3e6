"""What a run leaves behind while it goes on: status, events, metrics. Decides nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fusionrun.store.atomic import append_line, write_json
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import State, read_status, write_status

# Status is for people and monitors: more often than this tells them nothing new.
STATUS_EVERY_S = 1.0


class Recorder:
    """Writes the records of one run.

    Args:
        layout: the run's directory.
    """

    def __init__(self, layout: RunLayout) -> None:
        self.layout = layout
        self._attempts = read_status(layout).attempts + 1
        self._last_status = 0.0

    def status(self, state: State, epoch: int, step: int, *, force: bool = True) -> None:
        """Record how the run stands; without `force` at most once a second."""
        if force or time.monotonic() - self._last_status >= STATUS_EVERY_S:
            write_status(self.layout, state, epoch=epoch, step=step, attempts=self._attempts)
            self._last_status = time.monotonic()

    def event(self, what: str, **details: Any) -> None:
        """Append one thing that happened, with the time in UTC."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        append_line(self.layout.events, {"time": now, "event": what, **details})

    def epoch(self, metrics: Mapping[str, Any]) -> None:
        """Append one epoch's numbers."""
        append_line(self.layout.metrics, metrics)

    def results(self, results: Mapping[str, Any]) -> None:
        """Write the final table."""
        write_json(self.layout.results, results)
