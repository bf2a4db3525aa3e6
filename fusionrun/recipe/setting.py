"""`--set key=value`: one argument, laid over a document.

Owns the argument's form and where its key may lead. Needed only with `--set`, and imported only
then. A setting's value is read like a value in the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from fusionrun.errors import Place, Problem, RecipeError
from fusionrun.recipe.keys import KEY_FORM, dotted, key_text, split_key
from fusionrun.recipe.nodes import MAX_DEPTH, Entry, Node, collection, index_of
from fusionrun.recipe.reader import Reader
from fusionrun.recipe.refusals import shown, too_deep
from fusionrun.recipe.text import FORBIDDEN, MAX_BYTES, Text, encoded, forbidden, too_long

__all__ = ["lay_over"]


class _Step(NamedTuple):
    """One part of a setting's dotted key, and where it stands in the argument."""

    part: str | int
    place: Place


def lay_over(root: Node, argument: str, order: int) -> Node:
    """The root of a document with one argument laid over it.

    Args:
        root: the document without it; it stays as it is.
        argument: such as `training.epochs=5`.
        order: rank of the argument among those of the command line, from 1.

    Raises:
        RecipeError: as `Document.with_setting` says.
    """
    steps, value = _read_setting(argument, order)
    changed = _put(root, steps, 0, value)
    if changed.height > MAX_DEPTH:
        raise RecipeError([too_deep(value.place, tuple(step.part for step in steps))])
    return changed


def _read_setting(argument: str, order: int) -> tuple[list[_Step], Node]:
    """The dotted key of `key=value`, part by part, and the value."""
    source = _source(argument, order)
    if len(encoded(argument)) > MAX_BYTES:
        raise RecipeError([too_long("--set")])
    equals = argument.find("=")
    if equals < 0:
        raise RecipeError([_no_equals(source)])
    return _setting_steps(source, equals), _setting_value(source, equals + 1)


def _source(argument: str, order: int) -> Text:
    if argument.isprintable():  # (so is nearly every one, and the search takes long to compile)
        return Text(argument, "--set", order)
    unseen = f"{FORBIDDEN}|[\r\n]"
    source = Text(re.sub(unseen, "�", argument), "--set", order)
    if found := re.search(unseen, argument):
        raise RecipeError([forbidden(found[0], source.place(found.start()), "--set")])
    return source


def _setting_steps(source: Text, equals: int) -> list[_Step]:
    key = source.text[:equals]
    lead = len(key) - len(key.lstrip())
    key = key.strip()
    parts, stop = split_key(key)
    if not key or stop < len(key):
        rest = key[stop:]
        got = f"{rest!r} in the key" if rest else "no key before the '='"
        place = source.place(lead + stop, lead + len(key))
        raise RecipeError([Problem(place, key or "--set", got, KEY_FORM)])
    steps = [_Step(part, source.place(lead + start, lead + end)) for part, start, end in parts]
    if len(steps) > MAX_DEPTH:
        raise RecipeError([too_deep(steps[MAX_DEPTH].place, tuple(step.part for step in steps))])
    return steps


def _setting_value(source: Text, start: int) -> Node:
    reader = Reader(source, start)
    node = reader.read() or Node(None, source.place(start))
    rest = source.text[reader.end :]
    if not reader.problems and not reader.is_inline:
        reader.problems.append(_not_inline(source, start))
    elif not reader.problems and rest.strip():
        reader.problems.append(_left_over(source, len(source.text) - len(rest.lstrip())))
    if reader.problems:
        raise RecipeError(reader.problems)
    return node


def _no_equals(source: Text) -> Problem:
    return Problem(
        source.place(0, len(source.text)),
        "--set",
        got=repr(source.text),
        expected="key=value",
        fix=f"write --set {source.text.strip() or 'key'}=…",
    )


def _not_inline(source: Text, start: int) -> Problem:
    return Problem(
        source.place(start, len(source.text)),
        source.text[: start - 1].strip(),
        got=repr(source.text[start:]),
        expected="a scalar, a list in brackets or a mapping in braces",
        fix="write [a, b] or {key: value}, and put quotes around text that holds ': '",
    )


def _left_over(source: Text, start: int) -> Problem:
    rest = source.text[start:]
    return Problem(
        source.place(start, len(source.text)),
        source.text.partition("=")[0].strip(),
        got=f"the comment {rest!r}" if rest.startswith("#") else f"{rest!r} after the value",
        expected="one value",
        fix="put quotes around the whole value if this is part of it",
    )


def _put(node: Node, steps: Sequence[_Step], at: int, value: Node) -> Node:
    """The node with `value` at the end of `steps[at:]`, all else as it was."""
    if at == len(steps):
        return value
    step = steps[at]
    old = node.child(step.part)
    if old is None and not (isinstance(node.content, dict) and isinstance(step.part, str)):
        raise RecipeError([_no_way(node, steps, at)])
    below = old.node if old else Node({}, step.place, 1)
    replaced = _put(below, steps, at + 1, value)
    is_last = at == len(steps) - 1
    entry = Entry(step.place if is_last or old is None else old.key, replaced)
    if isinstance(node.content, tuple):
        index = index_of(step.part)
        items = (entry if number == index else item for number, item in enumerate(node.content))
        return collection(tuple(items), node.place)
    content = node.content if isinstance(node.content, dict) else {}
    return collection({**content, str(step.part): entry}, node.place)


def _no_way(node: Node, steps: Sequence[_Step], at: int) -> Problem:
    """Why a setting's key leads nowhere from here."""
    path = tuple(step.part for step in steps[: at + 1])
    parent = dotted(path[:-1]) or "the recipe"
    fix = ""
    if isinstance(node.content, tuple):
        last = len(node.content) - 1
        expected = f"an index from 0 to {last}" if last >= 0 else "nothing: the list is empty"
        fix = f"set {parent} itself to a longer list: {parent}=[…]"
    elif isinstance(node.content, dict):
        expected = f"a key: {parent} is a mapping" if node.content else f"a list at {parent}"
        fix = f"its keys are {', '.join(map(key_text, node.content))}" if node.content else ""
    else:
        expected = f"a mapping or a list at {parent}, which is {shown(node.content)}"
        fix = f"set {parent} itself: {parent}={{…}}"
    return Problem(steps[at].place, dotted(path), repr(steps[at].part), expected, fix)
