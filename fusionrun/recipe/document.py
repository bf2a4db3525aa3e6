"""Recipe text: YAML 1.2 core, read into values that know where they were written.

The entry to the reading of a recipe's text and of `--set` arguments, with every place in them. It
must not know what a recipe means: unknown keys and values out of range are the schema's business.

    text       characters, lines and places of a text
    keys       dotted keys
    nodes      values with their places
    scalars    what an unquoted scalar means
    events     PyYAML's parser, event by event
    reader     from events to nodes
    refusals   the words where a recipe refuses what YAML allows
    syntax     advice where a text is no YAML; imported only then
    setting    a `--set` argument; imported only with one
"""

from __future__ import annotations

from typing import Any, Final, Literal

from fusionrun.errors import Place, Problem, RecipeError
from fusionrun.recipe.keys import Path, dotted, parse_dotted
from fusionrun.recipe.nodes import Entry, Node
from fusionrun.recipe.reader import Reader
from fusionrun.recipe.refusals import shown
from fusionrun.recipe.text import Text, decoded

__all__ = ["Document", "Path", "dotted", "parse_dotted", "read_document"]


class Document:
    """What a recipe's text says, and where it says it. Nothing changes one once it is made.

    Attributes:
        name: how the user called the file.
        value: nested dicts, tuples (for sequences), str, int, float, bool and None.
        root: the same with places.
    """

    __slots__ = ("_num_settings", "name", "root", "value")

    def __init__(self, name: str, root: Node, num_settings: int = 0) -> None:
        self.name: Final = name
        self.value: Final = root.plain()
        self.root: Final = root
        self._num_settings: Final = num_settings

    def __repr__(self) -> str:
        return f"Document(name={self.name!r}, value={self.value!r})"

    def place(self, path: Path, at: Literal["key", "value"] = "value") -> Place:
        """Where a value or its key was written; for a missing one, its nearest ancestor."""
        entry = Entry(self.root.place, self.root)
        for part in path:
            child = entry.node.child(part)
            if child is None:
                # Something is missing from a collection: its name says most. A scalar
                # that stands where a collection should is itself what is wrong.
                at = "key" if entry.node.is_collection else "value"
                break
            entry = child
        return entry.key if at == "key" else entry.node.place

    def has(self, path: Path) -> bool:
        """Whether the text holds a value there, null included."""
        return self._find(path) is not None

    def get(self, path: Path) -> Any:
        """The value there. Raises KeyError where `has` is false."""
        node = self._find(path)
        if node is None:
            raise KeyError(dotted(path))
        return node.plain()

    def is_set(self, path: Path) -> bool:
        """Whether the value there came from a `--set` argument."""
        node = self._find(path)
        return node is not None and node.place.order > 0

    def is_from_site(self, path: Path) -> bool:
        """Whether the value there came from a site's file, which ranks below the recipe."""
        node = self._find(path)
        return node is not None and node.place.order < 0

    def with_root(self, root: Node) -> Document:
        """The same document with other content."""
        return Document(self.name, root, self._num_settings)

    def with_setting(self, argument: str) -> Document:
        """Lay one `--set` argument, such as `training.epochs=5`, over this document.

        The value is read like one in the file; a list or a mapping must be in brackets or
        braces. Mappings that are missing on the way are made.

        Raises:
            RecipeError: the argument cannot be read, or leads through a scalar or past a list's
                end. The places point into the argument.
        """
        from fusionrun.recipe.setting import lay_over  # (only `--set` needs it)

        order = self._num_settings + 1
        return Document(self.name, lay_over(self.root, argument, order), order)

    def _find(self, path: Path) -> Node | None:
        node = self.root
        for part in path:
            child = node.child(part)
            if child is None:
                return None
            node = child.node
        return node


def read_document(text: str | bytes, name: str, order: int = 0) -> Document:
    """Read a recipe's text, or a site's.

    Args:
        text: the content of the file; bytes are UTF-8, with or without a byte order mark.
        name: what to call the file in messages.
        order: rank of the text among those read; see `fusionrun.errors.Place`.

    Raises:
        RecipeError: with every problem found, in file order; a syntax error comes alone.
    """
    source = Text(decoded(text, name), name, order)
    reader = Reader(source)
    root = reader.read()
    if root is None:
        raise RecipeError([_empty(source)])
    if not isinstance(root.content, dict) and not reader.problems:
        reader.problems.append(_not_a_mapping(root))
    if reader.problems:
        raise RecipeError(reader.problems)
    return Document(name, root)


def _empty(source: Text) -> Problem:
    return Problem(
        source.place(0),
        "recipe",
        got="an empty file",
        expected="a mapping of keys to values",
        fix="write 'version: 1' to begin with, or let `fusionrun init` write a recipe",
    )


def _not_a_mapping(root: Node) -> Problem:
    unspaced = isinstance(root.content, str) and ":" in root.content
    return Problem(
        root.place,
        "recipe",
        got=shown(root.content),
        expected="a mapping of keys to values",
        fix="put a space after the colon" if unspaced else "write 'key: value' lines",
    )
