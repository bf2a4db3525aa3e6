"""Values that know where they were written.

Owns what a document is made of. It must not know how text becomes nodes.
"""

from __future__ import annotations

from typing import Any, Final

from fusionrun.errors import Place

__all__ = ["MAX_DEPTH", "Entry", "Node", "Scalar", "collection", "index_of"]

Scalar = str | int | float | bool | None

MAX_DEPTH: Final = 64
"""How many collections may stand inside each other."""

# Plain classes: making a dataclass or a named tuple takes longer than reading a recipe.


class Entry:
    """One child of a collection; in a list `key` is the place of the item itself."""

    __slots__ = ("key", "node")

    def __init__(self, key: Place, node: Node) -> None:
        self.key: Final = key
        self.node: Final = node


class Node:
    """A value with its place. Aliases share nodes; nothing changes one once it is made.

    Attributes:
        content: a scalar, or the children of a collection.
        place: where the value was written.
        height: how many collections stand inside each other here, this one included.
    """

    __slots__ = ("content", "height", "place")

    def __init__(
        self, content: Scalar | dict[str, Entry] | tuple[Entry, ...], place: Place, height: int = 0
    ) -> None:
        self.content: Final = content
        self.place: Final = place
        self.height: Final = height

    @property
    def is_collection(self) -> bool:
        """Whether it is a mapping or a list."""
        return isinstance(self.content, dict | tuple)

    def child(self, part: str | int) -> Entry | None:
        """What stands at a key or an index; None where nothing does."""
        if isinstance(self.content, dict) and isinstance(part, str):
            return self.content.get(part)
        if isinstance(self.content, tuple):
            index = index_of(part)
            return self.content[index] if index is not None and index < len(self.content) else None
        return None

    def plain(self) -> Any:
        """The bare value: new dicts all the way down, so that none is shared."""
        if isinstance(self.content, dict):
            return {key: entry.node.plain() for key, entry in self.content.items()}
        if isinstance(self.content, tuple):
            return tuple(entry.node.plain() for entry in self.content)
        return self.content


def collection(content: dict[str, Entry] | tuple[Entry, ...], place: Place) -> Node:
    """The node of a mapping or a list, one higher than its highest child."""
    entries = content.values() if isinstance(content, dict) else content
    return Node(content, place, 1 + max((entry.node.height for entry in entries), default=0))


def index_of(part: str | int) -> int | None:
    """A list's index, also when it was written as a word: `rules.0.scale`."""
    if isinstance(part, int):
        return part if part >= 0 else None
    is_index = part.isascii() and part.isdigit() and len(part) < 10
    return int(part) if is_index else None
