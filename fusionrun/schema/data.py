"""Where views and labels come from, and how the rows are split. Shapes of the recipe only:
whether a file exists and what is in it is for `fusionrun.data`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from fusionrun.schema.base import OnDemand, Section
from fusionrun.schema.kinds import Kinds
from fusionrun.schema.splits import FileSplit, FoldSplit, FractionSplit, Split, SplitShapes

if TYPE_CHECKING:
    from fusionrun.schema.images import Images
else:
    # Few tables hold images: the class is made when one does.
    Images = Any


def _arrays_by_view(value: Any) -> Any:
    """A list of array names is short for each being a view of its own name."""
    if not isinstance(value, (tuple, list)):
        return value
    if not all(isinstance(name, str) for name in value) or len(set(value)) < len(value):
        raise PydanticCustomError("array_names", "names of arrays, each once")
    return {name: name for name in value}


class _ListToo:
    """Says in the JSON Schema what `_arrays_by_view` takes besides the mapping."""

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        names = {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "minItems": 1}
        return {"anyOf": [handler(schema), names]}


class _TextToo:
    """Says in the JSON Schema that one name may stand for a list of one."""

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(schema), {"type": "string"}]}


def _delimiter(value: str) -> str:
    if len(value) != 1 or value in '"\r\n':
        raise PydanticCustomError("delimiter", 'one character such as "," or ";" or "\\t"')
    return value


ArraysByView = Annotated[
    Mapping[str, str], Field(min_length=1), BeforeValidator(_arrays_by_view), _ListToo()
]
"""View name → array name. A list of arrays becomes a mapping of each to itself."""

Columns = Annotated[
    tuple[str, ...],
    Field(min_length=1),
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    _TextToo(),
]
"""Column names or globs, in the order of the view's features. One text becomes a tuple of one."""

ColumnsByView = Annotated[Mapping[str, Columns], Field(min_length=1)]


class Data(Section):
    """Base of every data source."""

    reader: ClassVar[str | None] = None
    """The module that reads it, a `fusionrun.data.reading.Reader`; None: this version cannot."""

    source: str
    """Kind of data source."""
    normalize: Literal["standard", "none"] = "standard"
    """standard: mean 0 and deviation 1 of each feature, or of each channel of an image, fitted on
    the training split alone. none: the numbers as they are, an image's from 0 to 255."""
    split: Annotated[Split, SplitShapes(FractionSplit, FileSplit, FoldSplit)] = Field(
        default_factory=FractionSplit.model_construct
    )
    """Fractions, named files, or folds."""
    fusion_holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training rows that no expert's pretraining sees, and that the fused run, which
    starts from these experts, trains on: a part of its own. 0: it trains on all of them."""
    expert_shares: Literal["shared", "iid", "classes"] = "shared"
    """Which training rows each expert's pretraining sees. shared: all of them. iid: as many of
    each class as the others, and none of theirs. classes: every row of its own classes."""


class FileData(Data):
    """Base of the sources that stand in files named by the recipe."""

    path: str | None = None
    """Relative to the recipe; `package:NAME` is data that ships with fusionrun."""

    @model_validator(mode="after")
    def _path_or_files(self) -> "FileData":
        named = isinstance(self.split, FileSplit)
        if self.path is None and not named:
            raise PydanticCustomError(
                "path_missing", "a path, or a split that names files", {"key": "path"}
            )
        if self.path is not None and named:
            raise PydanticCustomError(
                "exclusive",
                "{one} or {other}, not both",
                {"key": "path", "one": "path", "other": "a split that names files"},
            )
        return self


class TableData(FileData):
    """Base of the sources that hold one array or column of labels beside the views."""

    label: str = "label"
    """Array or column that holds each row's class."""


class Npz(TableData):
    """A NumPy archive: one array a view, and one for the labels."""

    reader = "fusionrun.data.tables"
    source: Literal["npz"]
    """NumPy archive."""
    views: ArraysByView | None = None
    """Arrays to read, or view name → array; null: every array but the labels."""


class Csv(TableData):
    """A text table whose first line names the columns."""

    reader = "fusionrun.data.tables"
    source: Literal["csv"]
    """Text table."""
    views: ColumnsByView
    """View name → its columns: a list, or a glob such as "fou_*"."""
    delimiter: Annotated[str, AfterValidator(_delimiter)] = ","
    """The character between two cells."""


class Parquet(TableData):
    """A Parquet file. Needs the extra `parquet`, and `images` where it holds encoded images."""

    reader = "fusionrun.data.tables"
    source: Literal["parquet"]
    """Parquet file."""
    views: ColumnsByView | None = None
    """View name → its columns, a glob, or one column of fixed-size lists or of encoded images;
    null: each column of one of these two kinds is a view."""
    images: Annotated[Images, OnDemand("fusionrun.schema.images:Images")] | None = None
    """Size and channels of encoded images: bytes, or the mapping of bytes and path that other
    libraries write; null: colour, in the size of the first one."""


DATA: Final = Kinds[Data](
    "source",
    {
        "npz": Npz,
        "csv": Csv,
        "parquet": Parquet,
        "idx": "fusionrun.schema.image_data:Idx",
        "cifar": "fusionrun.schema.image_data:Cifar",
        "image_folder": "fusionrun.schema.image_data:ImageFolder",
        "torchvision": "fusionrun.schema.image_data:Torchvision",
        "python": "fusionrun.schema.image_data:PythonData",
    },
    group="fusionrun.data",
)
