"""A recipe as its leaves: nested mappings to dotted keys, and back. Lists are leaves.

A name of the user's that holds a dot (a view, a key of a sweep) is quoted in a dotted key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fusionrun.recipe.keys import dotted, parse_dotted


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf with its dotted key; an empty mapping is a leaf."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            name = dotted((key,))
            yield from leaves(item, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, value


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested mapping of dotted keys."""
    result: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = map(str, parse_dotted(key))
        here = result
        for name in parents:
            here = here.setdefault(name, {})
        here[last] = value
    return result
