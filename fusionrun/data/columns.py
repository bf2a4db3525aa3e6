"""Which columns of a table make up which view. No files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from fusionrun.data.report import data_error, listing
from fusionrun.nearest import did_you_mean


def require_label(label: str, columns: Sequence[str], path: Path, what: str = "column") -> None:
    """Refuse a table without its labels.

    Raises:
        DataError: `label` is not among `columns`.
    """
    if label not in columns:
        raise data_error(
            f"no {what} for data.label in {path}",
            got=repr(label),
            expected=f"one of {listing(columns)}",
            fix=did_you_mean(label, columns) or f"name the {what} of classes in data.label",
        )


def pick_columns(
    views: Mapping[str, Sequence[str]], label: str, columns: Sequence[str], path: Path
) -> dict[str, tuple[str, ...]]:
    """The columns of each view, in the order named; what a glob matches, in the file's order.

    A glob never takes the label: a view that holds the answer would be learnt from it alone.

    Raises:
        DataError: a column is missing, named twice in one view, or is the label.
    """
    return {
        view: _of_view(view, patterns, label, columns, path) for view, patterns in views.items()
    }


def _of_view(
    view: str, patterns: Sequence[str], label: str, columns: Sequence[str], path: Path
) -> tuple[str, ...]:
    found: list[str] = []
    for pattern in patterns:
        if pattern == label:
            raise label_in_view(view, label, path)
        if pattern in columns:
            found.append(pattern)
            continue
        matched = [name for name in columns if name != label and fnmatchcase(name, pattern)]
        if not matched:
            raise _no_column(view, pattern, columns, path)
        found += matched
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        raise data_error(
            f"data.views.{view} takes a column of {path} twice",
            got=repr(twice),
            expected="each column once in a view",
        )
    return tuple(found)


def label_in_view(view: str, label: str, path: Path) -> Exception:
    """The error for a view that would hold the answer."""
    return data_error(
        f"data.views.{view} takes the labels of {path} as input",
        got=repr(label),
        expected="anything but data.label",
    )


def _no_column(view: str, pattern: str, columns: Sequence[str], path: Path) -> Exception:
    is_glob = any(sign in pattern for sign in "*?[")
    return data_error(
        f"data.views.{view}: no column {'matches in' if is_glob else 'of that name in'} {path}",
        got=repr(pattern),
        expected=f"one of {listing(columns)}",
        fix=did_you_mean(pattern, columns),
    )
