"""From a text's events to its nodes, with every problem found on the way.

Owns what YAML leaves open or allows and a recipe does not: equal keys, tags, keys that are not
text, merges, aliases. Time and memory stay bounded however deep or entangled the text is.
"""

from __future__ import annotations

import re
from typing import Any, Final, NoReturn

import yaml

from fusionrun.errors import Place, Problem, RecipeError
from fusionrun.recipe import refusals
from fusionrun.recipe.events import Events, is_merge
from fusionrun.recipe.keys import Path
from fusionrun.recipe.nodes import MAX_DEPTH, Entry, Node, collection
from fusionrun.recipe.scalars import MAX_NUMBER, core, is_number
from fusionrun.recipe.text import Text

__all__ = ["Reader"]

MAX_NODES: Final = 100_000
"""Keys and values together, aliases counted as often as they are used."""
MAX_PROBLEMS: Final = 100
"""Reading stops here: one broken line may hold tens of thousands of them."""


class Reader:
    """Builds the nodes of one text from its events and collects what is wrong on the way.

    Args:
        source: the text the places refer to.
        start: where in it the YAML begins (past the `=` of a `--set` argument).
    """

    def __init__(self, source: Text, start: int = 0) -> None:
        self.problems: list[Problem] = []
        self.end = start
        """Index past the last character of a value that is inline."""
        self.is_inline = True
        """Whether the value is a scalar or in brackets, and no `---` stands before it."""
        self._events = Events(source, start)
        # Each with the number of its nodes; None while the anchored node is open.
        self._anchors: dict[str, tuple[Node, int] | None] = {}
        self._num_nodes = 0

    def read(self) -> Node | None:
        """The text's value; None when there is none. Ends at a problem that hides the rest."""
        next(self._events)  # (the stream's start)
        opening = next(self._events)
        if isinstance(opening, yaml.StreamEndEvent):
            return None
        self._check_version(opening)
        first = next(self._events)
        self.is_inline = not opening.explicit and getattr(first, "flow_style", True)
        root = self._node(first, (), 1)
        self.end = self._events.end
        next(self._events)  # (the document's end)
        following = next(self._events)
        if not isinstance(following, yaml.StreamEndEvent):
            self._add(refusals.another_document(self._events.place(following)))
        return root

    def _node(self, event: Any, path: Path, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path, depth)
        before = self._num_nodes
        self._count(1, event, path)
        self._check_tag(event, path)
        if event.anchor:
            self._anchors[event.anchor] = None
        node = self._content(event, path, depth)
        if event.anchor:
            self._anchors[event.anchor] = (node, self._num_nodes - before)
        return node

    def _content(self, event: Any, path: Path, depth: int) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if depth > MAX_DEPTH:
            self._stop(refusals.too_deep(self._events.place(event), path))
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event, path, depth)
        return self._mapping(event, path, depth)

    def _scalar(self, event: Any, path: Path) -> Node:
        place = self._events.place(event)
        if event.style:
            self._check_characters(event.value, place)
            return Node(event.value, place)
        if len(event.value) > MAX_NUMBER and is_number(event.value):
            self._add(refusals.long_number(place, path, len(event.value), MAX_NUMBER))
            return Node(None, place)
        return Node(core(event.value), place)

    def _sequence(self, start: Any, path: Path, depth: int) -> Node:
        items: list[Entry] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            node = self._node(event, (*path, len(items)), depth + 1)
            items.append(Entry(node.place, node))
        return collection(tuple(items), self._events.place(start, event))

    def _mapping(self, start: Any, path: Path, depth: int) -> Node:
        own: dict[str, Entry] = {}
        merge: Entry | None = None
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if is_merge(event):
                place = self._events.place(event)
                self._count(1, event, path)
                if merge is not None:
                    self._add(refusals.duplicate_key(place, path, "<<", merge.key))
                num_problems = len(self.problems)
                node = self._node(next(self._events), (*path, "<<"), depth + 1)
                if len(self.problems) == num_problems:  # (else what is wrong with it was said)
                    merge = Entry(place, node)
            else:
                self._pair(event, own, path, depth)
        merged = self._merged(merge.node, (*path, "<<")) if merge else {}
        return collection({**merged, **own}, self._events.place(start, event))

    def _pair(self, event: Any, own: dict[str, Entry], path: Path, depth: int) -> None:
        """Read a key and its value into `own`."""
        num_problems = len(self.problems)
        key = self._node(event, path, depth + 1)
        name = key.content
        if not isinstance(name, str):
            written = event.value if isinstance(event, yaml.ScalarEvent) else ""
            if len(self.problems) == num_problems:  # (else what is wrong with it was said)
                self._add(refusals.bad_key(key, path, written))
            self._node(next(self._events), (*path, written) if written else path, depth + 1)
            return
        if name in own:
            self._add(refusals.duplicate_key(key.place, path, name, own[name].key))
        value = self._node(next(self._events), (*path, name), depth + 1)
        own.setdefault(name, Entry(key.place, value))

    def _merged(self, node: Node, path: Path) -> dict[str, Entry]:
        """The entries that `<<` brings in: of two mappings with one key the earlier wins."""
        listed = isinstance(node.content, tuple)
        sources = (
            [entry.node for entry in node.content] if isinstance(node.content, tuple) else [node]
        )
        merged: dict[str, Entry] = {}
        for number, source in enumerate(sources):
            if isinstance(source.content, dict):
                for key, entry in source.content.items():
                    merged.setdefault(key, entry)
            else:
                at = (*path, number) if listed else path
                self._add(refusals.not_mergeable(source, at))
        return merged

    def _alias(self, event: Any, path: Path, depth: int) -> Node:
        place = self._events.place(event)
        if (anchored := self._anchors.get(event.anchor)) is None:
            is_open = event.anchor in self._anchors
            self._add(refusals.bad_alias(place, path, event.anchor, is_open))
            return Node(None, place)
        node, num_nodes = anchored
        self._count(num_nodes, event, path)
        if depth - 1 + node.height > MAX_DEPTH:
            self._stop(refusals.too_deep(place, path))
        return node

    def _count(self, number: int, event: Any, path: Path) -> None:
        self._num_nodes += number
        if self._num_nodes > MAX_NODES:
            self._stop(refusals.too_many_nodes(self._events.place(event), path, MAX_NODES))

    def _check_version(self, opening: Any) -> None:
        if opening.version not in (None, (1, 2)):
            place = self._events.place(opening)
            self._add(refusals.another_version(place, opening.version))

    def _check_characters(self, text: str, place: Place) -> None:
        """Refuse escapes that are half a character; libyaml does so itself."""
        if not text.isascii() and re.search("[\ud800-\udfff]", text):
            from fusionrun.recipe.syntax import no_character  # (only a wrong text needs it)

            self._add(no_character(place))

    def _check_tag(self, event: Any, path: Path) -> None:
        if event.tag is not None:
            written, place = self._events.tag(event)
            self._add(refusals.a_tag(place, path, written))

    def _add(self, problem: Problem) -> None:
        if len(self.problems) >= MAX_PROBLEMS:
            fix = "correct those above first: reading stopped here"
            self._stop(Problem(problem.place, "recipe", f"over {MAX_PROBLEMS} problems", fix=fix))
        self.problems.append(problem)

    def _stop(self, problem: Problem) -> NoReturn:
        raise RecipeError([*self.problems, problem])
