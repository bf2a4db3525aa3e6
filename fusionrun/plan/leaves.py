"""A recipe as its leaves: nested mappings to dotted keys, and back. Lists are leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf with its dotted key; an empty mapping is a leaf."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from leaves(item, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested mapping of dotted keys."""
    result: dict[str, Any] = {}
    for dotted, value in flat.items():
        *parents, last = dotted.split(".")
        here = result
        for key in parents:
            here = here.setdefault(key, {})
        here[last] = value
    return result
