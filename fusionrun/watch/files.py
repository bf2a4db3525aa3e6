"""Reading a run's files while others write them, on a disk that may be failing.

Nothing here raises for what a file holds: one that is missing, torn, not JSON or of another shape
reads as if it said nothing. Whoever looks at fifty runs must not be stopped by one of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from fusionrun.regular import last_bytes, read_regular

__all__ = ["instant", "json_lines", "json_object", "number", "section", "tail", "text", "whole"]

LARGEST: Final = 16 << 20
"""Bytes of a JSON file that are looked at: only the plan of very many epochs is larger."""


def json_object(path: Path) -> Mapping[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        return _object(read_regular(path, LARGEST))
    except OSError:
        return {}


def json_lines(path: Path, most_bytes: int) -> list[Mapping[str, Any]]:
    """The objects in the last `most_bytes` of a file of JSON lines; torn lines are passed over."""
    objects = (_object(line) for line in _last_bytes(path, most_bytes).split(b"\n"))
    return [found for found in objects if found]


def tail(path: Path, lines: int, most_bytes: int = 1 << 16) -> list[str]:
    """The last lines of a text file, at most `most_bytes` of it; what is no UTF-8 is replaced."""
    found = _last_bytes(path, most_bytes).decode("utf-8", "replace").split("\n")
    if found and not found[-1]:
        found.pop()
    return found[-lines:] if lines else []


def text(content: Mapping[str, Any], key: str) -> str:
    """The text under a key; empty where there is none."""
    value = content.get(key)
    return value if isinstance(value, str) else ""


def number(content: Mapping[str, Any], key: str) -> float | None:
    """The finite number under a key; None where there is none."""
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def whole(content: Mapping[str, Any], key: str) -> int:
    """The number under a key, not below 0; 0 where there is none."""
    return max(0, int(number(content, key) or 0))


def section(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under a key; empty where there is none."""
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def instant(content: Mapping[str, Any], key: str) -> float | None:
    """Seconds since 1970 of an ISO 8601 time under a key; None where there is none."""
    try:
        return datetime.fromisoformat(text(content, key)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _last_bytes(path: Path, most: int) -> bytes:
    try:
        return last_bytes(path, most)
    except OSError:
        return b""
