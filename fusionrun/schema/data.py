"""Where views and labels come from, and how the rows are split. Shapes of the recipe only:
whether a file exists and what is in it is for `fusionrun.data`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    TypeAdapter,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from fusionrun.schema.base import Fraction, Natural, Section, Seed
from fusionrun.schema.kinds import Kinds

SUM_TOLERANCE: Final = 1e-9
"""How far fractions may sum from 1: thirds written with nine digits or more still pass."""


class FractionSplit(Section):
    """One data set cut in three. The fractions sum to 1."""

    train: Annotated[float, Field(gt=0, le=1)] = 0.6
    """Share of the rows to learn from."""
    val: Fraction = 0.2
    """Share of the rows on which the best weights are chosen."""
    test: Fraction = 0.2
    """Share of the rows that are touched once, at the end."""
    stratify: bool = True
    """Keep each class's share in every part."""
    seed: Seed = 0
    """Seed of the split alone; the recipe's `seed` never moves it."""

    @model_validator(mode="after")
    def _whole(self) -> "FractionSplit":
        total = self.train + self.val + self.test
        if abs(total - 1) > SUM_TOLERANCE:
            raise PydanticCustomError(
                "fractions_sum",
                "train + val + test = 1, but {train} + {val} + {test} = {total}",
                {
                    "train": self.train,
                    "val": self.val,
                    "test": self.test,
                    "total": round(total, 12),
                },
            )
        return self


class FileSplit(Section):
    """Parts that stand in files of their own."""

    train: str
    """File of the rows to learn from."""
    val: str | None = None
    """File of the rows on which the best weights are chosen."""
    test: str | None = None
    """File of the rows that are touched once, at the end."""


class FoldSplit(Section):
    """Cross-validation: every row is in the test part of exactly one fold."""

    folds: Annotated[int, Field(ge=2)]
    """Number of folds."""
    fold: Natural = 0
    """Which fold is the test part, counted from 0."""
    val: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the other folds' rows on which the best weights are chosen."""
    stratify: bool = True
    """Keep each class's share in every fold."""
    seed: Seed = 0
    """Seed of the split alone; the same for all folds of one experiment."""

    @model_validator(mode="after")
    def _fold_exists(self) -> "FoldSplit":
        if self.fold >= self.folds:
            raise PydanticCustomError(
                "fold_range",
                "a fold from 0 to {last}, for there are {folds}",
                {"key": "fold", "last": self.folds - 1, "folds": self.folds},
            )
        return self


Split = FractionSplit | FileSplit | FoldSplit


class SplitShapes:
    """Tells the three shapes of a split apart by what is written, so that an error speaks of
    the shape that was meant: `fold` makes folds, a file name makes files, else fractions.
    """

    shapes: Final = (FractionSplit, FileSplit, FoldSplit)

    def __str__(self) -> str:
        return "a mapping of fractions, of file names, or of folds"

    def choose(self, value: object) -> type[Split] | None:
        """The section class that a written mapping is meant for; None when it is no mapping."""
        if not isinstance(value, Mapping):
            return None
        if "folds" in value or "fold" in value:
            return FoldSplit
        parts = [value[part] for part in ("train", "val", "test") if part in value]
        names = sum(isinstance(part, str) for part in parts)
        return FileSplit if names and names >= len(parts) - names else FractionSplit

    def _validate(self, value: Any) -> Split:
        if isinstance(value, self.shapes):
            return value
        shape = self.choose(value)
        if shape is None:
            raise PydanticCustomError("mapping_type", "a mapping")
        return shape.model_validate(value)

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda section: section.model_dump()
            ),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(TypeAdapter(shape).core_schema) for shape in self.shapes]}


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

    readable: ClassVar[bool] = False
    """Whether this version can read the source."""

    source: str
    """Kind of data source."""
    normalize: Literal["standard", "none"] = "standard"
    """standard: mean 0 and deviation 1, fitted on the training split alone."""
    split: Annotated[Split, SplitShapes()] = Field(default_factory=FractionSplit.model_construct)
    """Fractions, named files, or folds."""


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

    readable = True
    source: Literal["npz"]
    """NumPy archive."""
    views: ArraysByView | None = None
    """Arrays to read, or view name → array; null: every array but the labels."""


class Csv(TableData):
    """A text table whose first line names the columns."""

    readable = True
    source: Literal["csv"]
    """Text table."""
    views: ColumnsByView
    """View name → its columns: a list, or a glob such as "fou_*"."""
    delimiter: Annotated[str, AfterValidator(_delimiter)] = ","
    """The character between two cells."""


class Parquet(TableData):
    """A Parquet file. Needs the extra `parquet`."""

    readable = True
    source: Literal["parquet"]
    """Parquet file."""
    views: ColumnsByView | None = None
    """View name → its columns, a glob, or one column of fixed-size lists; null: each column of
    fixed-size lists is a view."""


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
