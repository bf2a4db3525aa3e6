"""A csv file, read as a stream: every cell that the recipe uses is checked, none is guessed."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fusionrun.data.columns import pick_columns, require_label, unclaimed
from fusionrun.data.report import Faults, data_error
from fusionrun.data.scan import FileScan
from fusionrun.schema.data import Csv

Sink = Callable[[list[float]], object]


@dataclass(frozen=True)
class _Layout:
    """Where things stand in a line."""

    columns: Sequence[str]
    label: int
    features: Sequence[int]


def scan_csv(path: Path, data: Csv, sink: Sink | None = None) -> FileScan:
    """Views and labels of a table; labels are left as text.

    Args:
        path: the file, UTF-8, with the columns' names in its first line.
        data: the recipe's section.
        sink: called with each row's numbers, view after view.

    Raises:
        DataError: a column is missing; a line has too few or too many cells; a cell that
            should hold a number does not.
    """
    with _reader(path, data.delimiter) as lines:
        columns = _column_names(lines, path)
        faults = Faults()
        with faults.collected():
            require_label(data.label, columns, path, likely=unclaimed(columns, data.views))
        with faults.collected():
            chosen = pick_columns(data.views, data.label, columns, path)
        faults.raise_any()
        features = [columns.index(name) for names in chosen.values() for name in names]
        layout = _Layout(columns, columns.index(data.label), features)
        labels = []
        for line in lines:
            if line:  # csv gives an empty list for a blank line
                labels.append(_label(line, layout, path, lines.line_num))
                numbers = _numbers(line, layout, path, lines.line_num)
                if sink:
                    sink(numbers)
    return FileScan(path, {view: (len(names),) for view, names in chosen.items()}, labels)


class _Lines(Iterator[list[str]]):
    """A csv reader whose own errors name the line in which the bad row begins."""

    def __init__(self, text: Iterator[str], delimiter: str, path: Path) -> None:
        self._reader = csv.reader(text, delimiter=delimiter, strict=True)
        self._path = path

    @property
    def line_num(self) -> int:
        """Line of the file that was read last, counted from 1."""
        return self._reader.line_num

    def __next__(self) -> list[str]:
        first = self.line_num + 1
        try:
            return next(self._reader)
        except csv.Error as error:
            raise self._bad_row(error, first) from error
        except UnicodeDecodeError as error:
            raise _not_utf8(self._path) from error

    def _bad_row(self, error: csv.Error, first: int) -> Exception:
        """A quote that is never closed takes in all that follows: the row's first line tells."""
        last = self.line_num
        if last > first or "unexpected end" in str(error):
            return data_error(
                f"{self._path}:{first}",
                got=f"a row that begins here and goes on to line {last}: csv: {error}",
                expected="every quote closed, and one inside a quoted cell written twice",
                fix="look for a quote in this row that is not closed",
            )
        return data_error(f"{self._path}:{last}", got=f"csv: {error}")


def _not_utf8(path: Path) -> Exception:
    """Text is decoded in blocks, ahead of the rows: which line it is, only the bytes tell."""
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return data_error(
                    f"{path}:{number}",
                    got=f"the byte 0x{line[error.start]:02x}, which is not UTF-8",
                    expected="text in UTF-8",
                    fix="save the file as UTF-8",
                )
    return data_error(f"{path} changed while it was read", fix="try again")


@contextmanager
def _reader(path: Path, delimiter: str) -> Iterator[_Lines]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as text:
            yield _Lines(text, delimiter, path)
    except OSError as error:
        raise data_error(f"cannot read {path}", got=str(error)) from error


def _column_names(lines: _Lines, path: Path) -> list[str]:
    columns = next(lines, [])
    if not columns:
        raise data_error(f"{path} is empty", expected="a first line that names the columns")
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise data_error(f"{path}:1", got=f"two columns named {twice!r}", expected="each name once")
    return columns


def _label(line: list[str], layout: _Layout, path: Path, number: int) -> str:
    if len(line) != len(layout.columns):
        raise data_error(
            f"{path}:{number}",
            got=f"{len(line)} cells",
            expected=f"{len(layout.columns)}, as the first line has names",
            fix="check data.delimiter, and quote cells that hold it",
        )
    label = line[layout.label].strip()
    if label in {"", "nan", "NaN"}:
        raise data_error(
            f"{path}:{number}  column {layout.columns[layout.label]!r}",
            got=f"no label ({label!r})",
            expected="a class in every row",
            fix="remove the rows without a label, or label them",
        )
    return label


def _numbers(line: list[str], layout: _Layout, path: Path, number: int) -> list[float]:
    try:
        return [float(line[i]) for i in layout.features]
    except ValueError as error:
        raise _not_a_number(line, layout, path, number) from error


def _not_a_number(line: list[str], layout: _Layout, path: Path, number: int) -> Exception:
    bad = next(i for i in layout.features if not _is_number(line[i]))
    return data_error(
        f"{path}:{number}  column {layout.columns[bad]!r}",
        got=repr(line[bad]) if line[bad].strip() else "an empty cell",
        expected="a number",
        fix="fill or remove the row, or leave the column out of data.views",
    )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
