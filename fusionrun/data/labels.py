"""Labels as they stand in a file made into classes: whole numbers or text. No numpy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from fusionrun.data.report import data_error
from fusionrun.data.scan import Label

_WHOLE: Final = re.compile(r"0|-?[1-9][0-9]*")


def as_classes(values: Sequence[Any], where: str) -> Sequence[Label]:
    """Check a column of labels; truth values and whole floats become integers.

    Args:
        values: what a file holds: all numbers or all text; None where it holds nothing.
        where: file and label, for the message.

    Raises:
        DataError: a label is missing, not a number, not whole, or of another kind.
    """
    kinds = {type(value) for value in values}
    if kinds <= {int} or kinds <= {str}:
        return values
    if type(None) in kinds:
        raise _missing(where, values.index(None), "nothing")
    if kinds <= {int, bool}:
        return [int(value) for value in values]
    if kinds <= {int, bool, float}:
        return _whole_numbers(values, where)
    raise data_error(
        where,
        got=f"labels of type {', '.join(sorted(kind.__name__ for kind in kinds))}",
        expected="whole numbers or text",
    )


def _whole_numbers(values: Sequence[float], where: str) -> list[int]:
    for row, value in enumerate(values):
        if value != value:
            raise _missing(where, row, "NaN")
        if not float(value).is_integer():
            raise data_error(
                where,
                got=f"{value!r} in row {row} (counted from 0)",
                expected="a class in every row: a whole number or text",
                fix="check data.label: fusionrun predicts classes, not quantities",
            )
    return [int(value) for value in values]


def _missing(where: str, row: int, got: str) -> Exception:
    return data_error(
        where,
        got=f"{got} in row {row} (counted from 0)",
        expected="a class in every row: a whole number or text",
        fix="remove the rows without a label, or label them",
    )


def numbers_if_all_whole(columns: Sequence[Sequence[str]]) -> list[Sequence[Label]]:
    """Labels of text files: numbers when each, in all files, is written as `str(int)` would
    write it; else text, so that `007` and `7` stay two classes.
    """
    distinct = set().union(*columns)
    if not all(_WHOLE.fullmatch(text) for text in distinct):
        return list(columns)
    numbers = {text: int(text) for text in distinct}
    return [[numbers[text] for text in column] for column in columns]
