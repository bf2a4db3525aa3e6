"""Recipe text: YAML 1.2 core, read into values that know where they were written.

Owns the reading of a recipe's text and of `--set` arguments, with every place in them. It must
not know what a recipe means: unknown keys and values out of range are the schema's business.

Of PyYAML only the parser is used, event by event. Its resolver and constructor speak YAML 1.1
(`no` is false, `1e-4` is text), keep the last of two equal keys, make objects of tags and recurse
without bound. Here each of these is decided in plain sight, and time and memory stay bounded
however deep or entangled the text is.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, Literal, NamedTuple, NoReturn

import yaml

from fusionrun.errors import Place, Problem, RecipeError

__all__ = ["Document", "Path", "dotted", "parse_dotted", "read_document"]

Path = tuple[str | int, ...]
"""Where a value stands in a document: keys of mappings and indices of lists."""

Scalar = str | int | float | bool | None

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 64
MAX_NODES: Final = 100_000
"""Keys and values together, aliases counted as often as they are used."""
MAX_NUMBER: Final = 400
"""Characters of a number: Python refuses to print integers of some thousands of digits."""

MAX_PROBLEMS: Final = 100
"""Reading stops here: one broken line may hold tens of thousands of them."""
MAX_SHOWN_LINE: Final = 2_000
"""A longer line is no help on a screen, and a message may hold it a hundred times."""

# libyaml where PyYAML was built with it, else the same events from the slower parser.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# ---------------------------------------------------------------------------------- documents


@dataclass(frozen=True)
class Document:
    """What a recipe's text says, and where it says it.

    Attributes:
        name: how the user called the file.
        value: nested dicts, tuples (for sequences), str, int, float, bool and None.
    """

    name: str
    value: Any
    _root: _Node = field(repr=False, compare=False)
    _num_settings: int = field(default=0, repr=False, compare=False)

    def place(self, path: Path, at: Literal["key", "value"] = "value") -> Place:
        """Where a value or its key was written; for a missing one, its nearest ancestor."""
        entry = _Entry(self._root.place, self._root)
        for part in path:
            child = _child(entry.node, part)
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

    def with_setting(self, argument: str) -> Document:
        """Lay one `--set` argument, such as `training.epochs=5`, over this document.

        The value is read like one in the file; a list or a mapping must be in brackets or
        braces. Mappings that are missing on the way are made.

        Raises:
            RecipeError: the argument cannot be read, or leads through a scalar or past a list's
                end. The places point into the argument.
        """
        order = self._num_settings + 1
        steps, value = _read_setting(argument, order)
        root = _put(self._root, steps, 0, value)
        if root.height > MAX_DEPTH:
            raise RecipeError([_too_deep(value.place, tuple(step.part for step in steps))])
        return Document(self.name, root.plain(), root, order)

    def _find(self, path: Path) -> _Node | None:
        node = self._root
        for part in path:
            child = _child(node, part)
            if child is None:
                return None
            node = child.node
        return node


def read_document(text: str | bytes, name: str) -> Document:
    """Read a recipe's text.

    Args:
        text: the content of the file; bytes are UTF-8, with or without a byte order mark.
        name: what to call the file in messages.

    Raises:
        RecipeError: with every problem found, in file order; a syntax error comes alone.
    """
    source = _Text(_decoded(text, name), name)
    reader = _Reader(source)
    root = reader.read()
    if root is None:
        raise RecipeError([_empty(source)])
    if not isinstance(root.content, dict) and not reader.problems:
        reader.problems.append(_not_a_mapping(root))
    if reader.problems:
        raise RecipeError(reader.problems)
    return Document(name, root.plain(), root)


def _empty(source: _Text) -> Problem:
    return Problem(
        source.place(0),
        "recipe",
        got="an empty file",
        expected="a mapping of keys to values",
        fix="write 'version: 1' to begin with, or let `fusionrun init` write a recipe",
    )


def _not_a_mapping(root: _Node) -> Problem:
    unspaced = isinstance(root.content, str) and ":" in root.content
    return Problem(
        root.place,
        "recipe",
        got=_shown(root.content),
        expected="a mapping of keys to values",
        fix="put a space after the colon" if unspaced else "write 'key: value' lines",
    )


# ---------------------------------------------------------------------------------- dotted keys

_PART: Final = re.compile(
    r'(?:^|(?!^)\.)(?:(?P<quoted>"(?:[^"\\]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")'
    r'|(?P<bare>[^.\[\]"]+))'
    r"|\[(?P<index>[0-9]{1,9})\]"
)
_BARE: Final = re.compile(r'[^\s.\[\]"=]+')
_KEY_FORM: Final = "keys joined by dots, indices in brackets: rules[0].scale"


def dotted(path: Path) -> str:
    """A path in print, such as `rules[1].when`; keys that hold a dot and the like are quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + _key_text(part)
    return text


def parse_dotted(text: str) -> Path:
    """The path that `dotted` printed; in `rules.0.scale` the 0 is a key that lists take too.

    Raises:
        RecipeError: the text is no dotted key.
    """
    if not any(special in text for special in '[]"') and all(plain := text.split(".")):
        return tuple(plain)
    parts, stop = _split_key(text)
    if stop < len(text):
        source = _Text(text, "key", order=1)
        raise RecipeError([Problem(source.place(stop), text, repr(text[stop:]), _KEY_FORM)])
    return tuple(part for part, _, _ in parts)


def _key_text(key: str) -> str:
    if _BARE.fullmatch(key) and key.isprintable():
        return key
    return json.dumps(key, ensure_ascii=not key.isprintable())


def _split_key(text: str) -> tuple[list[tuple[str | int, int, int]], int]:
    """The parts of a dotted key, each with where it begins and ends; and where reading stopped."""
    parts: list[tuple[str | int, int, int]] = []
    stop = 0
    while match := _PART.match(text, stop):
        kind = str(match.lastgroup)
        part: str | int = match[kind]
        if kind == "index":
            part = int(part)
        elif kind == "quoted":
            part = str(json.loads(match[kind], strict=False))
        parts.append((part, match.start(kind), match.end(kind)))
        stop = match.end()
    return parts, stop


# ---------------------------------------------------------------------------------- nodes


class _Entry(NamedTuple):
    """One child of a collection; in a list `key` is the place of the item itself."""

    key: Place
    node: _Node


@dataclass(frozen=True)
class _Node:
    """A value with its place. Aliases share nodes; nothing changes one once it is made."""

    content: Scalar | dict[str, _Entry] | tuple[_Entry, ...]
    place: Place
    height: int = 0
    """How many collections stand inside each other here, this one included."""

    @property
    def is_collection(self) -> bool:
        return isinstance(self.content, dict | tuple)

    def plain(self) -> Any:
        """The bare value: new dicts all the way down, so that none is shared."""
        if isinstance(self.content, dict):
            return {key: entry.node.plain() for key, entry in self.content.items()}
        if isinstance(self.content, tuple):
            return tuple(entry.node.plain() for entry in self.content)
        return self.content


def _collection(content: dict[str, _Entry] | tuple[_Entry, ...], place: Place) -> _Node:
    entries = content.values() if isinstance(content, dict) else content
    return _Node(content, place, 1 + max((entry.node.height for entry in entries), default=0))


def _child(node: _Node, part: str | int) -> _Entry | None:
    if isinstance(node.content, dict) and isinstance(part, str):
        return node.content.get(part)
    if isinstance(node.content, tuple):
        index = _index(part)
        return node.content[index] if index is not None and index < len(node.content) else None
    return None


def _index(part: str | int) -> int | None:
    """A list's index, also when it was written as a word: `rules.0.scale`."""
    if isinstance(part, int):
        return part if part >= 0 else None
    return int(part) if re.fullmatch("[0-9]{1,9}", part) else None


def _shown(value: object) -> str:
    """What a value is, in a message."""
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


# ---------------------------------------------------------------------------------- source text

# What YAML 1.2 does not let stand in a file, and four that it does: U+0085, U+2028 and U+2029
# are line breaks to YAML 1.1 parsers and not to YAML 1.2; U+FEFF cannot be seen. Written as what
# is refused: as what is allowed, up to U+10FFFF, it takes ten times as long to compile.
_FORBIDDEN: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"
)


class _Text:
    """A text, and the places in it by character index. With `order`, a `--set` argument."""

    def __init__(self, text: str, name: str, order: int = 0) -> None:
        self.text = text
        self._name = name
        self._order = order
        self.lines = text.splitlines() or [""]
        lengths = map(len, text.splitlines(keepends=True))
        self.starts = list(accumulate(lengths, initial=0))[: len(self.lines)]

    def line_at(self, index: int) -> int:
        """The line that holds a character, counted from 0."""
        return bisect_right(self.starts, index) - 1

    def place(self, start: int, end: int | None = None) -> Place:
        """The place of the characters from `start` to `end`, as far as its first line goes."""
        number = self.line_at(start)
        line = self.lines[number]
        column = min(start - self.starts[number], len(line))  # (the end of the text may lie below)
        stop = min((end or start) - self.starts[number], len(line.rstrip()))
        return Place(
            order=self._order,
            line=0 if self._order else number + 1,
            column=column + 1,
            source=self._name,
            text=line if self._order or len(line) <= MAX_SHOWN_LINE else "",
            length=max(1, stop - column),
        )


def _decoded(text: str | bytes, name: str) -> str:
    """The characters of a file, without byte order mark. Refuses what no recipe can be."""
    if len(text) > MAX_BYTES or (isinstance(text, str) and len(_encoded(text)) > MAX_BYTES):
        raise RecipeError([_too_long(name)])
    if isinstance(text, bytes):
        text = _from_utf8(text, name)
    text = text.removeprefix("\ufeff")
    if found := _FORBIDDEN.search(text):
        source = _Text(_FORBIDDEN.sub("�", text), name)
        raise RecipeError([_forbidden(found[0], source.place(found.start()), "recipe")])
    return text


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _from_utf8(raw: bytes, name: str) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in raw[:2]:
        place = Place(0, 1, 1, name)
        raise RecipeError([_not_utf8(place, "UTF-16 or UTF-32 text")])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8").removeprefix("\ufeff")
        after = raw[error.start :].decode("utf-8", "replace")
        source = _Text(_FORBIDDEN.sub("�", before + after), name)
        found = f"the byte 0x{raw[error.start]:02x}, which is no UTF-8"
        raise RecipeError([_not_utf8(source.place(len(before)), found)]) from error


def _too_long(name: str) -> Problem:
    return Problem(
        Place(0, 1, 1, name),
        "recipe",
        got=f"more than {MAX_BYTES:,} bytes",
        expected=f"a recipe of at most {MAX_BYTES:,} bytes",
        fix="check the path: this looks like a data file",
    )


def _not_utf8(place: Place, got: str) -> Problem:
    return Problem(place, "recipe", got, "UTF-8 text", "save the file as UTF-8")


def _forbidden(character: str, place: Place, key: str) -> Problem:
    code = f"{ord(character):04X}"
    escape = f"\\u{code}" if len(code) == 4 else f"\\U{code:0>8}"
    return Problem(
        place,
        key,
        got=f"the character U+{code}, which cannot be seen",
        expected="printable characters",
        fix=f'remove it, or write it in double quotes as "{escape}"',
    )


# ---------------------------------------------------------------------------------- plain scalars

_WORDS: Final[Mapping[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER: Final = re.compile(
    r"(?P<dec>[-+]?[0-9]+)|0o(?P<oct>[0-7]+)|0x(?P<hex>[0-9a-fA-F]+)"
    r"|(?P<float>[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<special>[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
)


def _core(text: str) -> Scalar:
    """What an unquoted scalar means: YAML 1.2.2, section 10.3.2 (the core schema)."""
    if text in _WORDS:
        return _WORDS[text]
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    kind = str(match.lastgroup)
    if kind in {"dec", "oct", "hex"}:
        return int(match[kind], {"dec": 10, "oct": 8, "hex": 16}[kind])
    return float(text.replace(".", "", 1) if kind == "special" else text)


# ---------------------------------------------------------------------------------- nodes of a text

_GAP = r"\s+(?:#[^\r\n]*\s+)*"
_PROPERTIES: Final = re.compile(rf"(?:[&!]\S*{_GAP})*")
_TAG: Final = re.compile(rf"(?:&\S*{_GAP})?(!<[^\s>]*>|![^\s,\[\]{{}}]*)")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_BLOCK_HEADER: Final = re.compile(r"[|>][-+0-9]*")


class _Anchored(NamedTuple):
    node: _Node
    num_nodes: int


class _Reader:
    """Builds the nodes of one text from its events and collects what is wrong on the way.

    Args:
        source: the text the places refer to.
        start: where in it the YAML begins (past the `=` of a `--set` argument).
    """

    def __init__(self, source: _Text, start: int = 0) -> None:
        self.problems: list[Problem] = []
        self.end = start
        """Index past the last character that belongs to the value."""
        self.is_inline = True
        """Whether the value is a scalar or in brackets, and no `---` stands before it."""
        self._source = source
        self._start = start
        self._events = _events(source, start)
        self._anchors: dict[str, _Anchored | None] = {}  # None while the anchored node is open
        self._num_nodes = 0

    def read(self) -> _Node | None:
        """The text's value; None when there is none. Ends at a problem that hides the rest."""
        next(self._events)  # (the stream's start)
        opening = next(self._events)
        if isinstance(opening, yaml.StreamEndEvent):
            return None
        self._check_version(opening)
        first = next(self._events)
        self.is_inline = not opening.explicit and getattr(first, "flow_style", True)
        root = self._node(first, (), 1)
        next(self._events)  # (the document's end)
        following = next(self._events)
        if not isinstance(following, yaml.StreamEndEvent):
            self._report(
                self._place(following),
                (),
                "a second document",
                "one recipe in a file",
                "remove the line '---', or move what follows it to a file of its own",
            )
        return root

    def _node(self, event: Any, path: Path, depth: int) -> _Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path, depth)
        before = self._num_nodes
        self._count(1, event, path)
        self._check_tag(event, path)
        if event.anchor:
            self._anchors[event.anchor] = None
        node = self._content(event, path, depth)
        if event.anchor:
            self._anchors[event.anchor] = _Anchored(node, self._num_nodes - before)
        return node

    def _content(self, event: Any, path: Path, depth: int) -> _Node:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if depth > MAX_DEPTH:
            self._stop(_too_deep(self._place(event), path))
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(event, path, depth)
        return self._mapping(event, path, depth)

    def _scalar(self, event: Any, path: Path) -> _Node:
        self.end = self._start + event.end_mark.index
        place = self._place(event)
        if event.style:
            if _SURROGATE.search(event.value):  # (libyaml refuses these itself)
                self._add(_syntax(place, *_NO_CHARACTER))
            return _Node(event.value, place)
        if len(event.value) > MAX_NUMBER and _NUMBER.fullmatch(event.value):
            self._report(
                place,
                path,
                f"a number of {len(event.value)} characters",
                f"a number of at most {MAX_NUMBER}",
                "put quotes around it if it is text",
            )
            return _Node(None, place)
        return _Node(_core(event.value), place)

    def _sequence(self, start: Any, path: Path, depth: int) -> _Node:
        items: list[_Entry] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            node = self._node(event, (*path, len(items)), depth + 1)
            items.append(_Entry(node.place, node))
        return _collection(tuple(items), self._place(start, event))

    def _mapping(self, start: Any, path: Path, depth: int) -> _Node:
        own: dict[str, _Entry] = {}
        merge: _Entry | None = None
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if _is_merge(event):
                place = self._place(event)
                self._count(1, event, path)
                if merge is not None:
                    self._duplicate("<<", place, merge.key, path)
                num_problems = len(self.problems)
                node = self._node(next(self._events), (*path, "<<"), depth + 1)
                if len(self.problems) == num_problems:  # (else what is wrong with it was said)
                    merge = _Entry(place, node)
            else:
                self._pair(event, own, path, depth)
        merged = self._merged(merge.node, (*path, "<<")) if merge else {}
        return _collection({**merged, **own}, self._place(start, event))

    def _pair(self, event: Any, own: dict[str, _Entry], path: Path, depth: int) -> None:
        """Read a key and its value into `own`."""
        num_problems = len(self.problems)
        key = self._node(event, path, depth + 1)
        name = key.content
        if not isinstance(name, str):
            written = event.value if isinstance(event, yaml.ScalarEvent) else ""
            if len(self.problems) == num_problems:  # (else what is wrong with it was said)
                self._bad_key(key, written, path)
            self._node(next(self._events), (*path, written) if written else path, depth + 1)
            return
        if name in own:
            self._duplicate(name, key.place, own[name].key, path)
        value = self._node(next(self._events), (*path, name), depth + 1)
        own.setdefault(name, _Entry(key.place, value))

    def _merged(self, node: _Node, path: Path) -> dict[str, _Entry]:
        """The entries that `<<` brings in: of two mappings with one key the earlier wins."""
        listed = isinstance(node.content, tuple)
        sources = (
            [entry.node for entry in node.content] if isinstance(node.content, tuple) else [node]
        )
        merged: dict[str, _Entry] = {}
        for number, source in enumerate(sources):
            if isinstance(source.content, dict):
                for key, entry in source.content.items():
                    merged.setdefault(key, entry)
            else:
                self._report(
                    source.place,
                    (*path, number) if listed else path,
                    _shown(source.content),
                    "a mapping to merge, or a list of them: '<<: *name'",
                    "put quotes around '<<' if it is a key of its own",
                )
        return merged

    def _alias(self, event: Any, path: Path, depth: int) -> _Node:
        place = self._place(event)
        self.end = self._start + event.end_mark.index
        if (anchored := self._anchors.get(event.anchor)) is None:
            self._bad_alias(event.anchor, place, path)
            return _Node(None, place)
        self._count(anchored.num_nodes, event, path)
        if depth - 1 + anchored.node.height > MAX_DEPTH:
            self._stop(_too_deep(place, path))
        return anchored.node

    def _count(self, number: int, event: Any, path: Path) -> None:
        self._num_nodes += number
        if self._num_nodes > MAX_NODES:
            self._stop(
                Problem(
                    self._place(event),
                    dotted(path) or "recipe",
                    got=f"more than {MAX_NODES:,} keys and values, with aliases written out",
                    expected=f"at most {MAX_NODES:,}",
                    fix="remove aliases to aliases, or keep data out of the recipe",
                )
            )

    def _check_version(self, opening: Any) -> None:
        if opening.version not in (None, (1, 2)):
            self._report(
                self._place(opening),
                (),
                "%YAML {}.{}".format(*opening.version),
                "YAML 1.2",
                "remove the line: recipes are always YAML 1.2",
            )

    def _check_tag(self, event: Any, path: Path) -> None:
        if event.tag is None:
            return
        start = self._start + event.start_mark.index
        match = _TAG.match(self._source.text, start)
        span = match.span(1) if match else (start, start + 1)
        self._report(
            self._source.place(*span),
            path,
            f"the tag {_clipped(self._source.text[slice(*span)])}",
            "no tags",
            "remove it: quotes make text of a number, and nothing else needs a tag",
        )

    def _bad_key(self, key: _Node, written: str, path: Path) -> None:
        quotes = f'put quotes around it: "{written}"'
        braces = "write a word; text that begins with '{' or '[' needs quotes around the whole"
        self._report(
            key.place,
            (*path, written) if written else path,
            f"{_shown(key.content)} as a key",
            "a key that is text",
            quotes if written else braces if key.is_collection else "write a word before the ':'",
        )

    def _bad_alias(self, anchor: str, place: Place, path: Path) -> None:
        is_open = anchor in self._anchors
        self._report(
            place,
            path,
            f"*{anchor} inside the value it stands for" if is_open else f"*{anchor}",
            "an alias to an earlier, finished value"
            if is_open
            else f"an anchor &{anchor} before it",
            "write the value out"
            if is_open
            else f"put quotes around it if it is text: '*{anchor}'",
        )

    def _duplicate(self, key: str, place: Place, first: Place, path: Path) -> None:
        where = f"line {first.line}" if first.line else f"column {first.column}"
        self._report(
            place,
            (*path, key),
            f"the key {_clipped(key)!r} a second time",
            "each key once",
            f"remove one of them: the first stands in {where}",
        )

    def _report(self, place: Place, path: Path, got: str, expected: str, fix: str) -> None:
        self._add(Problem(place, dotted(path) or "recipe", got, expected, fix))

    def _add(self, problem: Problem) -> None:
        if len(self.problems) >= MAX_PROBLEMS:
            fix = "correct those above first: reading stopped here"
            self._stop(Problem(problem.place, "recipe", f"over {MAX_PROBLEMS} problems", fix=fix))
        self.problems.append(problem)

    def _stop(self, problem: Problem) -> NoReturn:
        raise RecipeError([*self.problems, problem])

    def _place(self, event: Any, closing: Any = None) -> Place:
        """The place of a node past its anchor; of a block collection, its first character."""
        start = event.start_mark.index + self._start
        end = (closing or event).end_mark.index + self._start
        if closing is not None and event.flow_style:
            self.end = end
        if match := _PROPERTIES.match(self._source.text, start):
            start = match.end() if match.end() < end else start
        if getattr(event, "style", None) in ("|", ">"):
            header = _BLOCK_HEADER.match(self._source.text, start)
            end = header.end() if header else start
        elif closing is not None and not event.flow_style:
            end = start
        return self._source.place(start, end)


def _is_merge(event: Any) -> bool:
    if not isinstance(event, yaml.ScalarEvent) or event.style or event.tag or event.anchor:
        return False
    return bool(event.value == "<<")


def _too_deep(place: Place, path: Path) -> Problem:
    return Problem(
        place,
        dotted(path[:3]) or "recipe",
        got=f"more than {MAX_DEPTH} mappings and lists inside each other",
        expected=f"at most {MAX_DEPTH}",
        fix="write it flatter",
    )


# ---------------------------------------------------------------------------------- syntax errors


def _events(source: _Text, start: int) -> Iterator[Any]:
    """The parser's events, one by one: a text is read no further than it makes sense."""
    try:
        yield from yaml.parse(source.text[start:], Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        raise RecipeError([_syntax_problem(error, source, start)]) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # Without a mark: the pure Python parser meets escapes beyond Unicode in this way.
        raise RecipeError([_syntax(source.place(start), str(error), "")]) from error


class _Slip(NamedTuple):
    """A mistake that people make, and how the parsers call it.

    Attributes:
        pattern: matches `context: problem`, the words of libyaml or of PyYAML.
        at: which of the error's two marks shows the mistake.
        got: what came, with {char} for the character there.
        fix: what to do about it.
    """

    pattern: str
    at: Literal["context", "problem"]
    got: str
    fix: str


_NO_CHARACTER: Final = ("an escape that means no character", "write the character itself")
_QUOTE = "put quotes around it: '…'"
_SLIPS: Final = (
    _Slip("cannot start any token", "problem", "text that begins with {char}", _QUOTE),
    _Slip("directive", "context", "text that begins with {char}", _QUOTE),
    _Slip("an? (alias|anchor)", "context", "text that begins with {char}", _QUOTE),
    _Slip("block scalar", "context", "text that begins with {char}", _QUOTE),
    _Slip(
        "quoted scalar: .*(end of stream|document)",
        "context",
        "a quote that is opened here and never closed",
        "close it with another {char}",
    ),
    _Slip(
        "unknown escape",
        "problem",
        "a backslash that begins no escape",
        "use single quotes, which keep backslashes as they are, or write each twice",
    ),
    _Slip("quoted scalar: ", "problem", *_NO_CHARACTER),
    _Slip(
        "flow sequence", "context", "'[' that is not closed", "close it with ']', or add a comma"
    ),
    _Slip(
        "flow mapping", "context", "'{{' that is not closed", "close it with '}', or add a comma"
    ),
    _Slip("expected ':'", "context", "a line without 'key: value'", "write a colon and a space"),
    _Slip(
        "sequence entries",
        "problem",
        "a list's '-' in the line of its key",
        "begin the list in the next line, or write [a, b]",
    ),
    _Slip(
        "node content",
        "problem",
        "{char} where a value should begin",
        "put quotes around text that holds , [ ] { or }, and close every bracket",
    ),
    _Slip("tag", "problem", "a tag", "remove it: recipes have no tags"),
    _Slip(
        "incompatible", "problem", "another version of YAML", "remove the line that begins with %"
    ),
    _Slip(
        "document start",
        "problem",
        "text after the end of the document",
        "remove the line '...', or what follows it",
    ),
    _Slip(
        "expected (key|'-')|<block end>",
        "problem",
        "{char}, which continues nothing above it",
        "begin all keys of one mapping, or all dashes of one list, in the same column",
    ),
)


def _syntax_problem(error: yaml.MarkedYAMLError, source: _Text, start: int) -> Problem:
    marks = {"context": error.context_mark, "problem": error.problem_mark}
    at = marks["problem"] or marks["context"]
    end = len(source.text.rstrip())  # (an error below the last line is shown at its end)
    index = min(start + (at.index if at else 0), end)
    words = f"{error.context}: {error.problem}"
    if found := _special_slip(words, source, index):
        return found
    if found := _missing_comma(error, source, start):
        return found
    for slip in _SLIPS:
        if re.search(slip.pattern, words):
            mark = marks[slip.at] or at
            index = min(start + (mark.index if mark else 0), end)
            char = repr(source.text[index]) if index < end else "the end of the text"
            got, fix = (
                text.replace("{char}", char).replace("{{", "{") for text in (slip.got, slip.fix)
            )
            return _syntax(source.place(index), got, fix)
    return _syntax(source.place(index), str(error.problem), "")


def _syntax(place: Place, got: str, fix: str) -> Problem:
    return Problem(place, "YAML", got, "valid YAML 1.2", fix)


_UNSPACED: Final = re.compile(r"\s*(?:- +)?([\w.-]+):([^\s:/][^:]*)")


def _special_slip(words: str, source: _Text, index: int) -> Problem | None:
    """Mistakes that only the lines around the error tell apart."""
    if source.text[index : index + 1] == "\t" or "tab character" in words:
        return _syntax(source.place(index), "a tab", "write spaces instead")
    if "node content" in words and index >= len(source.text.rstrip()):
        fix = "close every '[' with ']', and every '{' with '}'"
        return _syntax(source.place(index), "the end of the text inside brackets", fix)
    line = source.line_at(index)
    if "mapping values" in words or "expected ':'" in words:
        return _unspaced(source, line) or _second_colon(words, source, index, line)
    before = source.text[source.starts[line] : index].rstrip()
    if re.search("expected key|<block end>", words) and before.endswith(("'", '"')):
        return _syntax(
            source.place(index),
            "text after a closing quote",
            "close the quote above, or write a quote inside single quotes twice: 'it''s'",
        )
    return None


def _missing_comma(error: yaml.MarkedYAMLError, source: _Text, start: int) -> Problem | None:
    """In brackets, an error in the line of the opening one is a comma left out, most likely."""
    opened, found = error.context_mark, error.problem_mark
    words = re.search("expected (',' or '.')", str(error.problem))
    if not words or not opened or not found or opened.line != found.line:
        return None
    index = start + found.index
    if index >= len(source.text.rstrip()):
        return None
    got = f"{source.text[index]!r} where {words[1]} should be"
    return _syntax(source.place(index), got, "add a comma, or close the bracket")


def _unspaced(source: _Text, line: int) -> Problem | None:
    """A colon without its space makes plain text of a line; the error comes one line later."""
    for number in range(line, max(line - 2, -1), -1):
        if match := _UNSPACED.fullmatch(source.lines[number].rstrip()):
            colon = source.starts[number] + match.end(1)
            fix = f"put a space after it: '{match[1]}: {match[2]}'"
            return _syntax(source.place(colon), "a colon without a space after it", fix)
    return None


def _second_colon(words: str, source: _Text, index: int, line: int) -> Problem | None:
    if "mapping values" not in words:
        return None
    if ": " in source.text[source.starts[line] : index]:
        fix = "put quotes around the value if the colon is part of it"
        return _syntax(source.place(index), "a second ': ' in one line", fix)
    fix = "begin all keys of one mapping in the same column"
    return _syntax(source.place(index), "a key that is not in line with those above", fix)


# ---------------------------------------------------------------------------------- --set


class _Step(NamedTuple):
    """One part of a setting's dotted key, and where it stands in the argument."""

    part: str | int
    place: Place


def _read_setting(argument: str, order: int) -> tuple[list[_Step], _Node]:
    """The dotted key of `key=value`, part by part, and the value."""
    source = _Text(re.sub(f"{_FORBIDDEN.pattern}|[\r\n]", "�", argument), "--set", order)
    if found := re.search(f"{_FORBIDDEN.pattern}|[\r\n]", argument):
        raise RecipeError([_forbidden(found[0], source.place(found.start()), "--set")])
    if len(_encoded(argument)) > MAX_BYTES:
        raise RecipeError([_too_long("--set")])
    equals = argument.find("=")
    if equals < 0:
        raise RecipeError([_no_equals(source)])
    return _setting_steps(source, equals), _setting_value(source, equals + 1)


def _setting_steps(source: _Text, equals: int) -> list[_Step]:
    key = source.text[:equals]
    lead = len(key) - len(key.lstrip())
    key = key.strip()
    parts, stop = _split_key(key)
    if not key or stop < len(key):
        rest = key[stop:]
        got = f"{rest!r} in the key" if rest else "no key before the '='"
        place = source.place(lead + stop, lead + len(key))
        raise RecipeError([Problem(place, key or "--set", got, _KEY_FORM)])
    steps = [_Step(part, source.place(lead + start, lead + end)) for part, start, end in parts]
    if len(steps) > MAX_DEPTH:
        raise RecipeError([_too_deep(steps[MAX_DEPTH].place, tuple(step.part for step in steps))])
    return steps


def _setting_value(source: _Text, start: int) -> _Node:
    reader = _Reader(source, start)
    node = reader.read() or _Node(None, source.place(start))
    rest = source.text[reader.end :]
    if not reader.problems and not reader.is_inline:
        reader.problems.append(_not_inline(source, start))
    elif not reader.problems and rest.strip():
        reader.problems.append(_left_over(source, len(source.text) - len(rest.lstrip())))
    if reader.problems:
        raise RecipeError(reader.problems)
    return node


def _no_equals(source: _Text) -> Problem:
    return Problem(
        source.place(0, len(source.text)),
        "--set",
        got=repr(source.text),
        expected="key=value",
        fix=f"write --set {source.text.strip() or 'key'}=…",
    )


def _not_inline(source: _Text, start: int) -> Problem:
    return Problem(
        source.place(start, len(source.text)),
        source.text[: start - 1].strip(),
        got=repr(source.text[start:]),
        expected="a scalar, a list in brackets or a mapping in braces",
        fix="write [a, b] or {key: value}, and put quotes around text that holds ': '",
    )


def _left_over(source: _Text, start: int) -> Problem:
    rest = source.text[start:]
    return Problem(
        source.place(start, len(source.text)),
        source.text.partition("=")[0].strip(),
        got=f"the comment {rest!r}" if rest.startswith("#") else f"{rest!r} after the value",
        expected="one value",
        fix="put quotes around the whole value if this is part of it",
    )


def _put(node: _Node, steps: Sequence[_Step], at: int, value: _Node) -> _Node:
    """The node with `value` at the end of `steps[at:]`, all else as it was."""
    if at == len(steps):
        return value
    step = steps[at]
    old = _child(node, step.part)
    if old is None and not (isinstance(node.content, dict) and isinstance(step.part, str)):
        raise RecipeError([_no_way(node, steps, at)])
    below = old.node if old else _Node({}, step.place, 1)
    replaced = _put(below, steps, at + 1, value)
    is_last = at == len(steps) - 1
    entry = _Entry(step.place if is_last or old is None else old.key, replaced)
    if isinstance(node.content, tuple):
        index = _index(step.part)
        items = (entry if number == index else item for number, item in enumerate(node.content))
        return _collection(tuple(items), node.place)
    content = node.content if isinstance(node.content, dict) else {}
    return _collection({**content, str(step.part): entry}, node.place)


def _no_way(node: _Node, steps: Sequence[_Step], at: int) -> Problem:
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
        fix = f"its keys are {', '.join(map(_key_text, node.content))}" if node.content else ""
    else:
        expected = f"a mapping or a list at {parent}, which is {_shown(node.content)}"
        fix = f"set {parent} itself: {parent}={{…}}"
    return Problem(steps[at].place, dotted(path), repr(steps[at].part), expected, fix)
