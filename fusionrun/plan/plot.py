"""A curve over a logarithmic axis: as plain text for a terminal, and as SVG for a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

__all__ = ["Curve", "svg", "text_plot"]

HEIGHT: Final = 14
MARGIN: Final = 10
"""Columns left of the text plot's axis."""
SVG_SIZE: Final = (720, 420)
SVG_MARGIN: Final = 60


class Curve(NamedTuple):
    """What is drawn.

    Attributes:
        xs: above 0, rising.
        ys: one for each.
        x_label: what they are.
        y_label: likewise.
        top: larger numbers are drawn at this one.
        marks: of the x axis, each a letter for the text and a place.
    """

    xs: Sequence[float]
    ys: Sequence[float]
    x_label: str
    y_label: str
    top: float
    marks: Sequence[tuple[str, float]] = ()

    def x_share(self, x: float) -> float:
        """From 0 at the left to 1 at the right."""
        low, high = math.log(self.xs[0]), math.log(self.xs[-1])
        return (math.log(x) - low) / ((high - low) or 1.0)

    def y_share(self, y: float) -> float:
        """From 0 at the bottom to 1 at the top."""
        low = min(self.ys)
        return (min(y, self.top) - low) / ((self.top - low) or 1.0)

    def decades(self) -> Iterator[float]:
        """Powers of ten within the axis."""
        low, high = math.log10(self.xs[0]), math.log10(self.xs[-1])
        for power in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1):
            yield 10.0**power


def text_plot(curve: Curve, width: int) -> list[str]:
    """Lines of at most so many columns: the curve, its axes, and the marks below."""
    columns = max(width - MARGIN - 2, 10)
    grid = [[" "] * columns for _ in range(HEIGHT)]
    for x, y in zip(curve.xs, curve.ys, strict=True):
        row = HEIGHT - 1 - round(curve.y_share(y) * (HEIGHT - 1))
        grid[row][_column(curve, x, columns)] = "*"
    labels = {0: f"{curve.top:.4g}", HEIGHT - 1: f"{min(curve.ys):.4g}"}
    lines = [
        f"{labels.get(n, ''):>{MARGIN}} │{''.join(row)}".rstrip() for n, row in enumerate(grid)
    ]
    axis, below = ["─"] * columns, [" "] * columns
    for letter, place in curve.marks:
        axis[_column(curve, place, columns)] = letter
    for decade in curve.decades():
        _write(below, f"{decade:g}", _column(curve, decade, columns))
    blank = " " * MARGIN
    return [
        f"{curve.y_label:>{MARGIN}}",
        *lines,
        f"{blank} └{''.join(axis)}",
        f"{blank}  {''.join(below)}".rstrip(),
        f"{blank}  {curve.x_label}",
    ]


def _column(curve: Curve, x: float, columns: int) -> int:
    return min(max(round(curve.x_share(x) * (columns - 1)), 0), columns - 1)


def _write(line: list[str], word: str, middle: int) -> None:
    """A word about a column, where nothing else stands there or beside it."""
    start = min(max(middle - len(word) // 2, 0), len(line) - len(word))
    around = line[max(start - 1, 0) : start + len(word) + 1]
    if all(letter == " " for letter in around):
        line[start : start + len(word)] = word


def svg(curve: Curve, title: str) -> str:
    """The same as a picture of its own, without scripts or outside fonts."""
    width, height = SVG_SIZE
    inner = (width - 2 * SVG_MARGIN, height - 2 * SVG_MARGIN)
    bottom, right = height - SVG_MARGIN, width - SVG_MARGIN

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            SVG_MARGIN + curve.x_share(x) * inner[0],
            bottom - curve.y_share(y) * inner[1],
        )

    line = " ".join(
        "{:.1f},{:.1f}".format(*place(x, y)) for x, y in zip(curve.xs, curve.ys, strict=True)
    )
    ticks = [_label(place(d, min(curve.ys))[0], bottom + 18, f"{d:g}") for d in curve.decades()]
    ends = [
        _label(SVG_MARGIN - 8, place(curve.xs[0], y)[1] + 4, f"{y:.4g}", "end")
        for y in (min(curve.ys), curve.top)
    ]
    marks = [
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{SVG_MARGIN}" y2="{bottom}" stroke="#b00" '
        f'stroke-dasharray="4"/>{_label(x, SVG_MARGIN - 6, letter)}'
        for letter, x in ((m, place(at, curve.top)[0]) for m, at in curve.marks)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            _label(width / 2, 24, title),
            f'<path d="M{SVG_MARGIN},{SVG_MARGIN} V{bottom} H{right}" fill="none" stroke="black"/>',
            f'<polyline points="{line}" fill="none" stroke="#05a" stroke-width="2"/>',
            *ticks,
            *ends,
            *marks,
            _label(width / 2, height - 14, curve.x_label),
            "</svg>\n",
        ]
    )


def _label(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
