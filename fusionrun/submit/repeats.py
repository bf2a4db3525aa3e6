"""Whether a run that failed would only come to the same end again, by its ranks' own word."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fusionrun.regular import read_regular
from fusionrun.store.layout import RunLayout

__all__ = ["repeated_end"]


def repeated_end(layout: RunLayout) -> str:
    """The error that a run would fail with again, its first line; empty where nobody says so."""
    errors = (error for error in _rank_errors(layout) if error.get("repeats") is True)
    return next((str(error.get("error", "")).partition("\n")[0] for error in errors), "")


def _rank_errors(layout: RunLayout) -> Iterator[dict[str, Any]]:
    pattern = layout.rank_error(0).name.replace("0", "*")
    for file in sorted(layout.logs.glob(pattern)):
        try:
            content = json.loads(read_regular(file))
        except (OSError, ValueError, RecursionError):
            continue  # (whoever shows the run tells of it)
        if isinstance(content, dict):
            yield content
