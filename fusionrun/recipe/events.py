"""PyYAML's events, one by one, and where in the text they stand.

Of PyYAML only the parser is used, event by event. Its resolver and constructor speak YAML 1.1
(`no` is false, `1e-4` is text), keep the last of two equal keys, make objects of tags and recurse
without bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from fusionrun.errors import Place, RecipeError
from fusionrun.recipe.text import Text

__all__ = ["Events", "is_merge"]

# libyaml where PyYAML was built with it, else the same events from the slower parser.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Text, as most recipes have no use for them: to compile all takes longer than to read a recipe.
_GAP = r"\s+(?:#[^\r\n]*\s+)*"
_PROPERTIES: Final = rf"(?:[&!]\S*{_GAP})*"
_TAG: Final = rf"(?:&\S*{_GAP})?(!<[^\s>]*>|![^\s,\[\]{{}}]*)"
_BLOCK_HEADER: Final = r"[|>][-+0-9]*"


class Events:
    """The events of a text: it is read no further than it makes sense.

    Args:
        source: the text the places refer to.
        start: where in it the YAML begins (past the `=` of a `--set` argument).

    Attributes:
        end: index past the last character of the last event.
    """

    def __init__(self, source: Text, start: int = 0) -> None:
        self.end = start
        self._source = source
        self._start = start
        self._parsed = _parsed(source, start)

    def __next__(self) -> Any:
        """Raises RecipeError where the text is no YAML."""
        event = next(self._parsed)
        self.end = self._start + event.end_mark.index
        return event

    def place(self, event: Any, closing: Any = None) -> Place:
        """The place of a node past its anchor; of a block collection, its first character."""
        text = self._source.text
        start = self._start + event.start_mark.index
        end = self._start + (closing or event).end_mark.index
        if text.startswith(("&", "!"), start) and (past := _past(_PROPERTIES, text, start)) < end:
            start = past
        if getattr(event, "style", None) in ("|", ">"):
            end = _past(_BLOCK_HEADER, text, start)
        elif closing is not None and not event.flow_style:
            end = start
        return self._source.place(start, end)

    def tag(self, event: Any) -> tuple[str, Place]:
        """An event's tag as it is written, and where."""
        start = self._start + event.start_mark.index
        match = re.compile(_TAG).match(self._source.text, start)
        first, last = match.span(1) if match else (start, start + 1)
        return self._source.text[first:last], self._source.place(first, last)


def is_merge(event: Any) -> bool:
    """Whether an event is the key `<<` as it merges mappings: unquoted."""
    if not isinstance(event, yaml.ScalarEvent) or event.style or event.tag or event.anchor:
        return False
    return bool(event.value == "<<")


def _past(pattern: str, text: str, start: int) -> int:
    """Where in a text a match that begins at `start` ends; `start` when there is none."""
    match = re.compile(pattern).match(text, start)
    return match.end() if match else start


def _parsed(source: Text, start: int) -> Iterator[Any]:
    try:
        yield from yaml.parse(source.text[start:], Loader=_LOADER)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        from fusionrun.recipe.syntax import syntax_problem  # (only a wrong text needs its advice)

        raise RecipeError([syntax_problem(error, source, start)]) from error
