"""Tables that fit a screen: first what matters least goes, then the gaps, then the names fold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

__all__ = ["NOTHING", "Justify", "fitted", "make_console"]

Justify = Literal["left", "right"]
Row = Mapping[str, "Text"]

NOTHING: Final = "–"

PIPED_WIDTH: Final = 10_000
"""Text that is piped is not cut to a screen that is not there."""


def make_console() -> Console:
    """For standard output: plain where that is no terminal, and then as wide as need be."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        return console
    return Console(width=PIPED_WIDTH, highlight=False, markup=False, emoji=False)


def fitted(
    rows: Sequence[Row], columns: Mapping[str, Justify], width: int, least: Sequence[str]
) -> Table:
    """A table without lines.

    Args:
        rows: cells by the columns' names.
        columns: how each is aligned; the first one's cells fold where they must.
        width: of the screen, in characters.
        least: columns that go where there is no room, the first first.
    """
    from rich.table import Table

    names = list(columns)
    for name in least:
        if _width(rows, names, 2) > width:
            names.remove(name)
    gap = 2 if _width(rows, names, 2) <= width else 1
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="dim")
    for name in names:
        folds = name == names[0]
        how: Literal["fold", "ellipsis"] = "fold" if folds else "ellipsis"
        table.add_column(name, justify=columns[name], no_wrap=not folds, overflow=how)
    for row in rows:
        table.add_row(*(row[name] for name in names))
    return table


def _width(rows: Sequence[Row], names: Iterable[str], gap: int) -> int:
    widths = [max([len(name), *(row[name].cell_len for row in rows)]) + gap for name in names]
    return sum(widths) - gap
