"""How a run stands by its other records, for when `status.json` is damaged.

Each process writes its events and an epoch's numbers as they come, and how its attempt ended when
it does: between them they say nearly all that the status did. What they do not say is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from fusionrun.regular import last_bytes, read_regular
from fusionrun.store.layout import RunLayout

__all__ = ["content_by_records", "epochs_recorded", "outcome_recorded"]

EPOCH_BYTES: Final = 1 << 20
"""Of the epochs, the last: a line has a few numbers of each expert."""

Event = Mapping[str, Any]

# What an event makes of a run, unless a later one does.
_STATES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("submitted", "queued", "requeued", "chained"), "queued"),
    "started": "running",
    "completed": "completed",
    **dict.fromkeys(("stopped", "cancelled"), "stopped"),
    "interrupted": "interrupted",
    **dict.fromkeys(("failed", "died"), "failed"),
}


def content_by_records(layout: RunLayout) -> dict[str, Any]:
    """What `status.json` would hold; `state` is always there."""
    events = list(_objects(lambda: last_bytes(layout.events)))
    outcome = outcome_recorded(layout)
    epoch, step = epochs_recorded(layout)
    state = _state(events, layout)
    if state in ("prepared", "running"):  # (killed, or its last words did not fit on the disk)
        state = outcome.get("outcome", state)
    content: dict[str, Any] = {
        "state": state,
        "epoch": max(epoch, _whole(outcome, "epoch")),
        "step": max(step, _whole(outcome, "step"), *(_whole(e, "step") for e in events), 0),
        "attempts": max(_whole(outcome, "attempt"), *(_whole(e, "attempt") for e in events), 0),
        **_last_attempt(events),
    }
    times = [_seconds(event) for event in events]
    if any(event.get("event") == "started" for event in events):
        first = next(n for n, event in enumerate(events) if event.get("event") == "started")
        content |= {"started": times[first], "heartbeat": times[-1]}
    return content


def epochs_recorded(layout: RunLayout) -> tuple[int, int]:
    """Epochs and steps done by the last whole line of `metrics.jsonl`; zeros without one."""
    lines = list(_objects(lambda: last_bytes(layout.metrics, EPOCH_BYTES)))
    if not lines or "epoch" not in lines[-1]:
        return 0, 0
    return _whole(lines[-1], "epoch") + 1, _whole(lines[-1], "step")


def _state(events: Sequence[Event], layout: RunLayout) -> str:
    found = (_STATES.get(str(event.get("event"))) for event in reversed(events))
    state = next((state for state in found if state), "prepared")
    # The results are written before the run says that it has completed.
    has_results = any(_objects(lambda: _one_line(layout.results)))
    return "completed" if state == "prepared" and has_results else state


def outcome_recorded(layout: RunLayout) -> Mapping[str, Any]:
    """How the last attempt ended, by its own word; empty while one goes on."""
    for content in _objects(lambda: _one_line(layout.outcome)):
        if content.get("outcome") in ("completed", "stopped", "failed"):
            return content
    return {}


def _last_attempt(events: Sequence[Event]) -> dict[str, Any]:
    """Which process it was, where, and as which job."""
    started = next((e for e in reversed(events) if e.get("event") == "started"), {})
    kinds = {"pid": int, "host": str, "job_id": str}
    return {key: started[key] for key, kind in kinds.items() if isinstance(started.get(key), kind)}


def _one_line(path: Path) -> bytes:
    """A file of one JSON object; its line breaks stand between values and mean nothing."""
    return read_regular(path).replace(b"\n", b"")


def _objects(read: Callable[[], bytes]) -> Iterator[Mapping[str, Any]]:
    """The JSON objects in a file of lines; none where it cannot be read."""
    try:
        lines = read().split(b"\n")
    except OSError:
        return
    for line in lines:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue  # torn
        if isinstance(content, dict):
            yield content


def _whole(content: Mapping[str, Any], key: str) -> int:
    value = content.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _seconds(event: Event) -> float:
    try:
        return max(0.0, datetime.fromisoformat(str(event.get("time"))).timestamp())
    except (ValueError, OverflowError, OSError):
        return 0.0
