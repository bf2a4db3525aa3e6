"""Header and labels of a Parquet file. pyarrow is imported inside the functions: it is an extra."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusionrun.data.columns import LABEL, pick_columns, require_label, view_key
from fusionrun.data.image_header import image_size
from fusionrun.data.labels import as_classes
from fusionrun.data.report import Faults, blaming, data_error, listing
from fusionrun.data.scan import FileScan
from fusionrun.schema.data import Parquet

if TYPE_CHECKING:
    from fusionrun.schema.images import Images

Encoded = tuple[str, bytes]
"""What an error calls an image, and its bytes."""


def scan_parquet(path: Path, data: Parquet) -> FileScan:
    """Views and labels of a table; of the views only the schema is read.

    Raises:
        DataError: pyarrow is not there; not a Parquet file; columns that are missing or do
            not hold numbers.
    """
    with open_parquet(path) as file:
        schema = file.schema_arrow
        plain = [column.name for column in schema if not _holds_a_sample(column.type)]
        faults = Faults()
        with faults.collected():
            require_label(data.label, schema.names, path, likely=plain)
        with faults.collected():
            views = _views(file, data, path)
        faults.raise_any()
        values = file.read(columns=[data.label]).column(0).to_pylist()
    with blaming(LABEL):
        classes = as_classes(values, f"the labels {data.label!r} of {path}")
    return FileScan(path, views, classes)


def _views(file: Any, data: Parquet, path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of one sample of each view."""
    schema = file.schema_arrow
    faults, views, pictures = Faults(), dict[str, tuple[int, ...]](), False
    for view, names in columns_by_view(schema, data, path).items():
        with faults.collected(), blaming(view_key(view) if data.views else ()):
            if is_picture(schema, names):
                pictures = True
                views[view] = _picture_shape(file, names[0], data, path)
            else:
                views[view] = _sample_shape(view, schema, names, path)
    faults.raise_any()
    if data.images is not None and not pictures:
        raise data_error(
            f"data.images says how encoded images are read, and no view of {path} has any",
            got=f"columns {listing(f'{column.name} ({column.type})' for column in schema)}",
            expected="a column of bytes, or of bytes and path",
            blamed=("data", "images"),
        )
    return views


def is_picture(schema: Any, names: tuple[str, ...]) -> bool:
    """Whether a view is one column of encoded images."""
    return len(names) == 1 and _holds_pictures(schema.field(names[0]).type)


def _holds_pictures(column_type: Any) -> bool:
    """Bytes, or the mapping of bytes and path that the datasets library writes."""
    from pyarrow import types

    if types.is_struct(column_type):
        names = [column_type.field(number).name for number in range(column_type.num_fields)]
        return "bytes" in names and _holds_pictures(column_type.field("bytes").type)
    return bool(types.is_binary(column_type) or types.is_large_binary(column_type))


def _holds_a_sample(column_type: Any) -> bool:
    return bool(_list_shape(column_type)) or _holds_pictures(column_type)


def images_of(data: Parquet) -> Images:
    """How encoded images are read."""
    from fusionrun.schema.images import Images

    return data.images or Images()


def encoded_images(file: Any, name: str, path: Path, batch_size: int = 256) -> Iterator[Encoded]:
    """Each row's image, with what an error calls it.

    Raises:
        DataError: a row has none, or names a file in place of it.
    """
    row = 0
    for batch in file.iter_batches(batch_size=batch_size, columns=[name]):
        for cell in batch.column(0).to_pylist():
            content = cell.get("bytes") if isinstance(cell, dict) else cell
            where = f"in row {row} (counted from 0) of the column {name!r} of {path}"
            if content is None:
                elsewhere = cell.get("path") if isinstance(cell, dict) else None
                raise data_error(
                    f"no image {where}",
                    got=f"the path {elsewhere!r} and no bytes" if elsewhere else "an empty cell",
                    expected="an image in every row",
                    fix="write the bytes of the images into the table",
                )
            yield where, content
            row += 1


def _picture_shape(file: Any, name: str, data: Parquet, path: Path) -> tuple[int, ...]:
    images = images_of(data)
    if images.size is not None:
        return images.shape(*images.size)
    for where, content in encoded_images(file, name, path, batch_size=1):
        return images.shape(*image_size(content, f"the image {where}"))
    return images.shape(1, 1)  # (a table without rows is refused for that)


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
    """View → its columns; without `views`, each column of fixed-size lists or of images is one.

    Raises:
        DataError: a column is missing, or there is no column of lists to take.
    """
    if data.views is not None:
        return pick_columns(data.views, data.label, schema.names, path)
    lists = [f.name for f in schema if _holds_a_sample(f.type) and f.name != data.label]
    if not lists:
        raise data_error(
            f"no column of fixed-size lists or of encoded images in {path}",
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
        expected="numbers, lists of numbers of one fixed size, or a column of encoded images",
        fix="cast it to pyarrow.list_(pyarrow.float32(), SIZE)" if loose else "",
    )
