"""Numbers over time as one line of block characters. Pure text: no colours, no terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw numbers of at least 0 as blocks, an eighth of the largest number for each step.

    With more numbers than columns, a column stands for several. The first then shows the first
    number, and every other one that number of its own which lies furthest from the column to its
    left. So a column is always a number that occurred, a restart shows wherever it falls, a fall
    reaches its end, and waves shorter than a column are still waves, where a mean would be flat.

    Args:
        values: in order; none at all draws an empty line.
        width: columns at most.
    """
    if not values or width < 1:
        return ""
    top = max(values)
    return "".join(_block(value, top) for value in _sample(values, width))


def _sample(values: Sequence[float], width: int) -> Iterator[float]:
    columns = min(width, len(values))
    shown = values[0]
    yield shown
    for column in range(1, columns):
        start, stop = (len(values) * c // columns for c in (column, column + 1))
        shown = _furthest_from(shown, values[start:stop])
        yield shown


def _furthest_from(left: float, candidates: Sequence[float]) -> float:
    return max(candidates, key=lambda value: abs(value - left))


def _block(value: float, top: float) -> str:
    eighths = round(len(_BLOCKS) * value / top) if top > 0 else 0
    return _BLOCKS[max(eighths, 1) - 1]
