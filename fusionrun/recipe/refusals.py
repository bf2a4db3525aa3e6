"""What to say of YAML that a recipe refuses: what came, what was expected, what to do.

Owns the words. It must not know when something is refused: the reader decides that.
"""

from __future__ import annotations

from fusionrun.errors import Place, Problem
from fusionrun.recipe.keys import Path, dotted
from fusionrun.recipe.nodes import MAX_DEPTH, Node

__all__ = [
    "a_tag",
    "another_document",
    "another_version",
    "bad_alias",
    "bad_key",
    "duplicate_key",
    "long_number",
    "not_mergeable",
    "shown",
    "too_deep",
    "too_many_nodes",
]


def another_version(place: Place, version: tuple[int, int]) -> Problem:
    """A text that says it is not YAML 1.2."""
    got = "%YAML {}.{}".format(*version)
    fix = "remove the line: recipes are always YAML 1.2"
    return Problem(place, "recipe", got, "YAML 1.2", fix)


def another_document(place: Place) -> Problem:
    """A second document in one text."""
    return Problem(
        place,
        "recipe",
        got="a second document",
        expected="one recipe in a file",
        fix="remove the line '---', or move what follows it to a file of its own",
    )


def too_deep(place: Place, path: Path) -> Problem:
    """A value inside more than `MAX_DEPTH` collections."""
    return Problem(
        place,
        _name(path[:3]),
        got=f"more than {MAX_DEPTH} mappings and lists inside each other",
        expected=f"at most {MAX_DEPTH}",
        fix="write it flatter",
    )


def too_many_nodes(place: Place, path: Path, most: int) -> Problem:
    """A text that is data, or aliases to aliases that blow it up."""
    return Problem(
        place,
        _name(path),
        got=f"more than {most:,} keys and values, with aliases written out",
        expected=f"at most {most:,}",
        fix="remove aliases to aliases, or keep data out of the recipe",
    )


def long_number(place: Place, path: Path, length: int, most: int) -> Problem:
    """A number of more characters than can be printed."""
    return Problem(
        place,
        _name(path),
        got=f"a number of {length} characters",
        expected=f"a number of at most {most}",
        fix="put quotes around it if it is text",
    )


def a_tag(place: Place, path: Path, written: str) -> Problem:
    """A tag, such as `!!str`."""
    fix = "remove it: quotes make text of a number, and nothing else needs a tag"
    return Problem(place, _name(path), f"the tag {_clipped(written)}", "no tags", fix)


def duplicate_key(place: Place, path: Path, key: str, first: Place) -> Problem:
    """A key that the mapping at `path` has already."""
    where = f"line {first.line}" if first.line else f"column {first.column}"
    return Problem(
        place,
        _name((*path, key)),
        got=f"the key {_clipped(key)!r} a second time",
        expected="each key once",
        fix=f"remove one of them: the first stands in {where}",
    )


def bad_key(key: Node, path: Path, written: str) -> Problem:
    """A key that is no text; `written` is empty where it is a collection or nothing at all."""
    quotes = f'put quotes around it: "{written}"'
    braces = "write a word; text that begins with '{' or '[' needs quotes around the whole"
    return Problem(
        key.place,
        _name((*path, written) if written else path),
        got=f"{shown(key.content)} as a key",
        expected="a key that is text",
        fix=quotes if written else braces if key.is_collection else "write a word before the ':'",
    )


def not_mergeable(node: Node, path: Path) -> Problem:
    """A value of `<<` that has no keys to merge."""
    return Problem(
        node.place,
        _name(path),
        got=shown(node.content),
        expected="a mapping to merge, or a list of them: '<<: *name'",
        fix="put quotes around '<<' if it is a key of its own",
    )


def bad_alias(place: Place, path: Path, anchor: str, is_open: bool) -> Problem:
    """An alias to an anchor that is not there, or to a value it is itself a part of."""
    if is_open:
        got = f"*{anchor} inside the value it stands for"
        expected = "an alias to an earlier, finished value"
        return Problem(place, _name(path), got, expected, "write the value out")
    fix = f"put quotes around it if it is text: '*{anchor}'"
    return Problem(place, _name(path), f"*{anchor}", f"an anchor &{anchor} before it", fix)


def shown(value: object) -> str:
    """What a node's content is, in a message."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, tuple):
        return "a list"
    if isinstance(value, str):
        return f"the text {_clipped(value)!r}"
    if value is None:
        return "null (nothing)"
    return str(value).lower() if isinstance(value, bool) else f"the number {value}"


def _clipped(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"


def _name(path: Path) -> str:
    return dotted(path) or "recipe"
