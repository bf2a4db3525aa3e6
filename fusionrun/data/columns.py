"""Which columns of a table make up which view. No files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from fusionrun.data.report import Faults, FaultyDataError, data_error, listing
from fusionrun.nearest import did_you_mean

LABEL = ("data", "label")
"""The recipe's key for the labels."""


def view_key(view: str, item: int | None = None) -> tuple[str | int, ...]:
    """The recipe's key for a view, or for an item of its list of columns."""
    return ("data", "views", view, *(() if item is None else (item,)))


def require_label(
    label: str,
    columns: Sequence[str],
    path: Path,
    what: str = "column",
    likely: Collection[str] = (),
) -> None:
    """Refuse a table without its labels.

    Args:
        label: name of the column that the recipe asks for.
        columns: those of the file.
        path: the file.
        what: `column`, or what the format calls it.
        likely: the columns that can be labels; they are offered first.

    Raises:
        DataError: `label` is not among `columns`.
    """
    if label in columns:
        return
    first = [name for name in columns if name in likely]
    offered = [*first, *(name for name in columns if name not in likely)]
    raise data_error(
        f"no {what} for data.label in {path}",
        got=repr(label),
        expected=f"one of {listing(offered)}",
        fix=did_you_mean(label, first)
        or did_you_mean(label, columns)
        or f"name the {what} of classes in data.label",
        blamed=LABEL,
    )


def unclaimed(columns: Sequence[str], views: Mapping[str, Sequence[str]]) -> list[str]:
    """The columns that no view asks for: the labels are among them, whatever they are called."""
    patterns = [pattern for wanted in views.values() for pattern in wanted]
    return [name for name in columns if not any(fnmatchcase(name, p) for p in patterns)]


def pick_columns(
    views: Mapping[str, Sequence[str]], label: str, columns: Sequence[str], path: Path
) -> dict[str, tuple[str, ...]]:
    """The columns of each view, in the order named; what a glob matches, in the file's order.

    A glob never takes the label: a view that holds the answer would be learnt from it alone.

    Raises:
        DataError: a column is missing, named twice in one view, or is the label.
    """
    faults, picked = Faults(), {}
    for view, patterns in views.items():
        with faults.collected():
            picked[view] = _of_view(view, patterns, label, columns, path)
    faults.raise_any()
    return picked


def _of_view(
    view: str, patterns: Sequence[str], label: str, columns: Sequence[str], path: Path
) -> tuple[str, ...]:
    faults, found = Faults(), list[str]()
    for item, pattern in enumerate(patterns):
        with faults.collected():
            if pattern == label:
                raise label_in_view(view, label, path, item)
            matched = list(_matched(pattern, label, columns))
            if not matched:
                raise _no_column(view, item, pattern, columns, path)
            found += matched
    faults.raise_any()
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise data_error(
            f"data.views.{view} takes a column of {path} twice",
            got=repr(twice),
            expected="each column once in a view",
            blamed=view_key(view),
        )
    return tuple(found)


def _matched(pattern: str, label: str, columns: Sequence[str]) -> Iterator[str]:
    if pattern in columns:
        yield pattern
    else:
        yield from (name for name in columns if name != label and fnmatchcase(name, pattern))


def label_in_view(view: str, label: str, path: Path, item: int | None = None) -> FaultyDataError:
    """The error for a view that would hold the answer."""
    return data_error(
        f"data.views.{view} takes the labels of {path} as input",
        got=repr(label),
        expected="anything but data.label",
        blamed=view_key(view, item),
    )


def _no_column(
    view: str, item: int, pattern: str, columns: Sequence[str], path: Path
) -> FaultyDataError:
    is_glob = any(sign in pattern for sign in "*?[")
    return data_error(
        f"data.views.{view}: no column {'matches in' if is_glob else 'of that name in'} {path}",
        got=repr(pattern),
        expected=f"one of {listing(columns)}",
        fix=did_you_mean(pattern, columns),
        blamed=view_key(view, item),
    )
