"""How a wrong data set is reported: what, what came, what was expected, and the fix.

Errors name the recipe's key that is to blame, where one is; only `fusionrun.plan` knows the
recipe's text and puts the place to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from fusionrun.errors import DataError, Problem

Key = tuple[str | int, ...]

_SHOWN = 12


class Fault(NamedTuple):
    """One thing that is wrong with a data set.

    Attributes:
        problem: what it is; its `key` names a file, an array or a line of a file.
        blamed: the recipe's key that is to blame, part by part; empty when none is.
    """

    problem: Problem
    blamed: Key = ()


class FaultyDataError(DataError):
    """A `DataError` in parts: each fault with the recipe's key that is to blame."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n\n".join(fault.problem.render() for fault in self.faults))
        self.problems = tuple(fault.problem for fault in self.faults)

    def blaming(self, key: Key) -> FaultyDataError:
        """The same, where faults that blame no key blame this one."""
        return FaultyDataError([Fault(f.problem, f.blamed or key) for f in self.faults])


def data_error(
    what: str, *, got: str = "", expected: str = "", fix: str = "", blamed: Key = ()
) -> FaultyDataError:
    """An error of one fault, laid out like a recipe's problem. `what` names the file or the key."""
    return FaultyDataError([Fault(Problem(None, what, got, expected, fix), blamed)])


@contextmanager
def blaming(key: Key) -> Iterator[None]:
    """Faults found inside blame this key of the recipe, unless they blame another already."""
    try:
        yield
    except FaultyDataError as error:
        raise error.blaming(key) from error


class Faults:
    """Faults of several files or views, so that all of them are told at once."""

    def __init__(self) -> None:
        self._found: list[Fault] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Keep what is wrong inside for later; what follows the fault inside is skipped."""
        try:
            yield
        except FaultyDataError as error:
            self._found += error.faults

    def raise_any(self) -> None:
        """Raise what was collected.

        Raises:
            DataError: there was something.
        """
        if self._found:
            raise FaultyDataError(self._found)


def counted(number: int, noun: str) -> str:
    """A number and what it counts: `1 row`, `2 rows`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listing(names: Iterable[object]) -> str:
    """Names in a row, cut short when there are many."""
    texts = [str(name) for name in names]
    more = f", … ({len(texts)} in all)" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
