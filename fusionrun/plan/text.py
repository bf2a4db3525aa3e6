"""How the plan's text is laid out: lines and tables as wide as the terminal, values and sizes.

Text is as wide as the terminal, within bounds; what goes to a file or a pipe is `LINE_WIDTH` wide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any

LINE_WIDTH = 118
"""The widest line, and the width where there is no terminal and COLUMNS does not say."""
LEAST_WIDTH = 60
MOST_SHOWN = 40
"""Characters of a value in a table."""
Row = tuple[str, ...]


def line_width() -> int:
    """Columns of the terminal, or of COLUMNS, between `LEAST_WIDTH` and `LINE_WIDTH`."""
    return min(max(get_terminal_size((LINE_WIDTH, 24)).columns, LEAST_WIDTH), LINE_WIDTH)


def fits(lines: Sequence[str]) -> bool:
    """Whether no line is wider than the terminal."""
    return max(map(len, lines)) <= line_width()


def wrapped(text: str, indent: str = "") -> list[str]:
    """Lines as wide as the terminal; all but the first are indented, words are never cut."""
    return wrap(
        text,
        line_width(),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def columns(rows: Sequence[Row], right: Sequence[int] = (), gap: str = "  ") -> Iterator[str]:
    """Rows as aligned lines; the columns numbered in `right` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield gap.join(cells).rstrip()


def labelled(rows: Sequence[Row]) -> Iterator[str]:
    """Rows of a label and a text; long texts go on below themselves, words are never cut."""
    indent = max(len(label) for label, _ in rows) + 2
    for label, text in rows:
        lines = wrap(text, line_width() - indent, break_long_words=False, break_on_hyphens=False)
        for number, line in enumerate(lines):
            yield f"{'' if number else label:{indent}}{line}"


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: "1 batch", "2 batches"; the plural is in s where none is given."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(num_bytes: int) -> str:
    """Bytes in a unit that reads well."""
    amount, units = float(num_bytes), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.3g} {units[0]}"


def literal(value: Any) -> str:
    """The same, cut where a table would get too wide."""
    text = flow(value)
    return text if len(text) <= MOST_SHOWN else text[: MOST_SHOWN - 1] + "…"


def flow(value: Any) -> str:
    """A value as YAML's flow style writes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)
