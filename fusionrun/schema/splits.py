"""How the rows of a data set become train, val and test: the shapes that `data.split` can have."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fusionrun.schema.base import AUTO, Fraction, Natural, OrAuto, Section, Seed
from fusionrun.schema.chosen import Chosen

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


def _file_or_share(value: Any) -> Any:
    """Choose between the two forms here: a pydantic union would report errors of both."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(value, str) and not (number and 0 <= value < 1):
        words = "a file, or a share of the training rows from 0 to below 1"
        raise PydanticCustomError("file_or_share", words)
    return value


class FileSplit(Section):
    """Parts that stand in files of their own; the validation part may be taken from `train`."""

    train: str
    """File of the rows to learn from."""
    val: Annotated[str | float, BeforeValidator(_file_or_share)] | None = None
    """File of the rows on which the best weights are chosen, or the share of `train` to take."""
    test: str | None = None
    """File of the rows that are touched once, at the end."""
    stratify: bool = True
    """Keep each class's share in what is taken from `train`."""
    seed: Seed = 0
    """Seed of what is taken from `train`."""


class OfficialSplit(Section):
    """The parts in which a data set is published; what it lacks is taken from its training part."""

    val: Annotated[float, Field(ge=0, lt=1), OrAuto()] = AUTO
    """Share of the training part on which the best weights are chosen; auto: the data's own
    validation part, or else 0.1."""
    stratify: bool = True
    """Keep each class's share in what is taken from the training part."""
    seed: Seed = 0
    """Seed of the split alone; the recipe's `seed` never moves it."""


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


Split = FractionSplit | FileSplit | FoldSplit | OfficialSplit

_WORDS: Final[Mapping[type[Split], str]] = {
    FractionSplit: "fractions",
    FileSplit: "file names",
    FoldSplit: "folds",
    OfficialSplit: "what to take from the official training part",
}


class SplitShapes(Chosen):
    """Tells the shapes of a split apart by what is written, so that an error speaks of the shape
    that was meant: `fold` makes folds, a file name makes files, a share of `train` or `test`
    makes fractions; what is left is the first of `shapes`.

    Args:
        shapes: those that a source can have.
    """

    combined = "anyOf"

    def __init__(self, *shapes: type[Split]) -> None:
        self.shapes = shapes

    def __str__(self) -> str:
        kinds = [_WORDS[shape] for shape in self.shapes]
        return f"a mapping of {', of '.join(kinds[:-1])}{', or of ' * (len(kinds) > 1)}{kinds[-1]}"

    def choose(self, value: object) -> type[Split] | None:
        """The section class that a written mapping is meant for; None when it is no mapping."""
        if not isinstance(value, Mapping):
            return None
        meant = self._meant(value)
        return meant if meant in self.shapes else self.shapes[0]

    def _meant(self, value: Mapping[Any, Any]) -> type[Split]:
        if "folds" in value or "fold" in value:
            return FoldSplit
        parts = [value[part] for part in ("train", "val", "test") if part in value]
        names = sum(isinstance(part, str) and part != AUTO for part in parts)
        if names and names >= len(parts) - names:
            return FileSplit
        return FractionSplit if "train" in value or "test" in value else self.shapes[0]

    def _validate(self, value: Any) -> Split:
        if isinstance(value, self.shapes):
            return value
        shape = self.choose(value)
        if shape is None:
            raise PydanticCustomError("mapping_type", "a mapping")
        return shape.model_validate(value)

    def _classes(self) -> Iterable[type[Split]]:
        return self.shapes
