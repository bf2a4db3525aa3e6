"""How a wrong data set is reported: what, what came, what was expected, and the fix."""

from __future__ import annotations

from collections.abc import Iterable

from fusionrun.errors import DataError, Problem

_SHOWN = 12


def data_error(what: str, *, got: str = "", expected: str = "", fix: str = "") -> DataError:
    """A `DataError` laid out like a recipe's problem. `what` names the file or the key."""
    return DataError(Problem(None, what, got, expected, fix).render())


def listing(names: Iterable[object]) -> str:
    """Names in a row, cut short when there are many."""
    texts = [str(name) for name in names]
    more = f", … ({len(texts)} in all)" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
