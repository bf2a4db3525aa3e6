"""Header and labels of a Parquet file. pyarrow is imported inside the functions: it is an extra."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fusionrun.data.columns import LABEL, pick_columns, require_label, view_key
from fusionrun.data.labels import as_classes
from fusionrun.data.report import Faults, blaming, data_error, listing
from fusionrun.data.scan import FileScan
from fusionrun.schema.data import Parquet


def scan_parquet(path: Path, data: Parquet) -> FileScan:
    """Views and labels of a table; of the views only the schema is read.

    Raises:
        DataError: pyarrow is not there; not a Parquet file; columns that are missing or do
            not hold numbers.
    """
    with open_parquet(path) as file:
        schema = file.schema_arrow
        plain = [column.name for column in schema if not _list_shape(column.type)]
        faults = Faults()
        with faults.collected():
            require_label(data.label, schema.names, path, likely=plain)
        with faults.collected():
            views = _views(schema, data, path)
        faults.raise_any()
        values = file.read(columns=[data.label]).column(0).to_pylist()
    with blaming(LABEL):
        classes = as_classes(values, f"the labels {data.label!r} of {path}")
    return FileScan(path, views, classes)


def _views(schema: Any, data: Parquet, path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of one sample of each view."""
    faults, views = Faults(), dict[str, tuple[int, ...]]()
    for view, names in columns_by_view(schema, data, path).items():
        with faults.collected(), blaming(view_key(view) if data.views else ()):
            views[view] = _sample_shape(view, schema, names, path)
    faults.raise_any()
    return views


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """The file as pyarrow's ParquetFile; pyarrow's errors come out as `DataError`."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise data_error(
            "source: parquet needs pyarrow, which is not installed",
            fix="pip install 'fusionrun[parquet]'",
        ) from error
    try:
        with ParquetFile(path) as file:
            yield file
    except (ArrowException, OSError) as error:
        raise data_error(
            f"cannot read {path} as Parquet", got=str(error), expected="a whole Parquet file"
        ) from error


def columns_by_view(schema: Any, data: Parquet, path: Path) -> Mapping[str, tuple[str, ...]]:
    """View → its columns; without `views`, each column of fixed-size lists is one.

    Raises:
        DataError: a column is missing, or there is no column of lists to take.
    """
    if data.views is not None:
        return pick_columns(data.views, data.label, schema.names, path)
    lists = [f.name for f in schema if _list_shape(f.type) and f.name != data.label]
    if not lists:
        raise data_error(
            f"no column of fixed-size lists in {path}",
            got=f"columns {listing(schema.names)}",
            expected="data.views, which says which columns are a view",
            fix='for instance  views: {measured: ["height", "width"], spectrum: "band_*"}',
            blamed=("data", "views"),
        )
    return {name: (name,) for name in lists}


def _list_shape(column_type: Any) -> tuple[int, ...]:
    """Sizes of fixed-size lists, of lists of lists, …; empty for a plain column."""
    from pyarrow.types import is_fixed_size_list

    shape = []
    while is_fixed_size_list(column_type):
        shape.append(column_type.list_size)
        column_type = column_type.value_type
    return tuple(shape)


def _sample_shape(view: str, schema: Any, names: tuple[str, ...], path: Path) -> tuple[int, ...]:
    for name in names:
        _require_numbers(view, name, schema.field(name).type, path)
    shapes = [_list_shape(schema.field(name).type) for name in names]
    if not any(shapes):
        return (len(names),)
    if len(names) > 1 or len(shapes[0]) > 3:
        raise data_error(
            f"data.views.{view} in {path}",
            got=f"a column of lists among {len(names)}" if len(names) > 1 else f"{shapes[0]}",
            expected="plain columns, or one column of lists of one, two or three dimensions",
        )
    return (1, *shapes[0]) if len(shapes[0]) == 2 else shapes[0]


def _require_numbers(view: str, name: str, column_type: Any, path: Path) -> None:
    from pyarrow import types

    inner = column_type
    while types.is_fixed_size_list(inner):
        inner = inner.value_type
    if types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner):
        return
    loose = types.is_list(inner) or types.is_large_list(inner)
    raise data_error(
        f"data.views.{view}: the column {name!r} of {path}",
        got=f"{column_type}",
        expected="numbers, or lists of numbers of one fixed size",
        fix="cast it to pyarrow.list_(pyarrow.float32(), SIZE)" if loose else "",
    )
