"""Data sources of images, and those of other packages: loaded when a recipe names one."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from fusionrun.schema.base import Name
from fusionrun.schema.data import Data, FileData
from fusionrun.schema.splits import (
    FileSplit,
    FoldSplit,
    FractionSplit,
    OfficialSplit,
    Split,
    SplitShapes,
)


class PublishedData(Data):
    """Base of the sources that are published in a training and a test part."""

    split: Annotated[Split, SplitShapes(OfficialSplit)] = Field(
        default_factory=OfficialSplit.model_construct
    )
    """What is taken from the official training part; the official test part stays as it is."""
    view: Name = "image"
    """What the experts call the images."""


class Idx(PublishedData):
    """IDX files, as MNIST and its relatives come: four of them, packed by gzip or not."""

    reader = "fusionrun.data.idx"
    source: Literal["idx"]
    """IDX files of images and labels."""
    path: str
    """Their directory, or what their names begin with, as in `emnist/emnist-letters-`."""


class Cifar(PublishedData):
    """A directory of CIFAR's binary files."""

    source: Literal["cifar"]
    """Directory of CIFAR files."""
    path: str
    """The directory."""
    classes: Literal[10, 100] = 10
    """CIFAR-10 or CIFAR-100."""


class ImageFolder(FileData):
    """A directory with one directory of image files for each class."""

    source: Literal["image_folder"]
    """Directory of images."""
    split: Annotated[Split, SplitShapes(OfficialSplit, FractionSplit, FileSplit, FoldSplit)] = (
        Field(default_factory=OfficialSplit.model_construct)
    )
    """The directories `train`, `val` and `test` below path; fractions or folds of one directory;
    or a directory for each part."""
    view: Name = "image"
    """What the experts call the images."""


class Torchvision(Data):
    """A data set of torchvision."""

    source: Literal["torchvision"]
    """Data set of torchvision."""
    name: Annotated[str, Field(min_length=1)]
    """Name of its class, such as FashionMNIST."""
    root: str
    """Directory that holds the files, relative to the recipe."""
    view: Name = "image"
    """What the experts call the images."""


class PythonData(Data):
    """A data set that another package offers."""

    source: Literal["python"]
    """Function of another package."""
    name: Annotated[str, Field(min_length=1)]
    """Name of its entry point."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """What the function is called with."""
