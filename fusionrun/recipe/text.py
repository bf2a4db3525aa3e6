"""A text the user wrote: its characters, its lines and the places in them.

Owns what no recipe's text may be, whatever it says: too long, not UTF-8, or with characters that
cannot be seen. It must not know YAML's grammar.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path
from typing import Final

from fusionrun.errors import Place, Problem, RecipeError
from fusionrun.regular import open_regular

__all__ = [
    "FORBIDDEN",
    "MAX_BYTES",
    "Text",
    "decoded",
    "encoded",
    "forbidden",
    "read_raw",
    "too_long",
]

MAX_BYTES: Final = 1_000_000
MAX_SHOWN_LINE: Final = 2_000
"""A longer line is no help on a screen, and a message may hold it a hundred times."""

FORBIDDEN: Final = (
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"
)
"""What YAML 1.2 does not let stand in a file, and four that it does: U+0085, U+2028 and U+2029
are line breaks to YAML 1.1 parsers and not to YAML 1.2; U+FEFF cannot be seen. Written as what
is refused: as what is allowed, up to U+10FFFF, it takes ten times as long to compile."""
_BLANKS: Final = dict.fromkeys(map(ord, "\t\n\r"))


class Text:
    """A text, and the places in it by character index. With `order` above 0 a `--set` argument."""

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
            line=0 if self._order > 0 else number + 1,
            column=column + 1,
            source=self._name,
            text=line if self._order > 0 or len(line) <= MAX_SHOWN_LINE else "",
            length=max(1, stop - column),
        )


def read_raw(path: Path) -> bytes:
    """A file's bytes, no more of them than tell that there are too many: some files never end."""
    with open_regular(path) as file:
        return file.read(MAX_BYTES + 1)


def decoded(text: str | bytes, name: str) -> str:
    """The characters of a file, without byte order mark.

    Raises:
        RecipeError: the text is what no recipe can be.
    """
    if len(text) > MAX_BYTES or (isinstance(text, str) and len(encoded(text)) > MAX_BYTES):
        raise RecipeError([too_long(name)])
    if isinstance(text, bytes):
        text = _from_utf8(text, name)
    text = text.removeprefix("\ufeff")
    # A text that can be printed holds none of them; to compile the search takes longer than that.
    is_printable = text.translate(_BLANKS).isprintable()
    if not is_printable and (found := re.search(FORBIDDEN, text)):
        source = Text(re.sub(FORBIDDEN, "�", text), name)
        raise RecipeError([forbidden(found[0], source.place(found.start()), "recipe")])
    return text


def encoded(text: str) -> bytes:
    """A text as bytes, to count them: lone surrogates, too, which no file can hold."""
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
        source = Text(re.sub(FORBIDDEN, "�", before + after), name)
        found = f"the byte 0x{raw[error.start]:02x}, which is no UTF-8"
        raise RecipeError([_not_utf8(source.place(len(before)), found)]) from error


def too_long(name: str) -> Problem:
    """The problem of a text of more than `MAX_BYTES`."""
    return Problem(
        Place(0, 1, 1, name),
        "recipe",
        got=f"more than {MAX_BYTES:,} bytes",
        expected=f"a recipe of at most {MAX_BYTES:,} bytes",
        fix="check the path: this looks like a data file",
    )


def _not_utf8(place: Place, got: str) -> Problem:
    return Problem(place, "recipe", got, "UTF-8 text", "save the file as UTF-8")


def forbidden(character: str, place: Place, key: str) -> Problem:
    """The problem of a character that may not stand in a text."""
    code = f"{ord(character):04X}"
    escape = f"\\u{code}" if len(code) == 4 else f"\\U{code:0>8}"
    return Problem(
        place,
        key,
        got=f"the character U+{code}, which cannot be seen",
        expected="printable characters",
        fix=f'remove it, or write it in double quotes as "{escape}"',
    )
