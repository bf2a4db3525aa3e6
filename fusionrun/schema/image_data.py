"""Data sources of images, and those of other packages: loaded when a recipe names one."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from fusionrun.schema.base import Name, Section
from fusionrun.schema.data import Data, FileData
from fusionrun.schema.images import Images
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
    """CIFAR's files, as its archives hold them: the binary version, or the one for Python."""

    reader = "fusionrun.data.cifar"
    source: Literal["cifar"]
    """CIFAR's files, of the binary version or the one for Python."""
    path: str
    """Their directory, or that in which the archive was unpacked."""
    classes: Literal[10, 100] = 10
    """CIFAR-10 or CIFAR-100."""
    labels: Literal["fine", "coarse"] = "fine"
    """CIFAR-100's 100 classes, or the 20 that they are grouped in."""

    @model_validator(mode="after")
    def _coarse_of_a_hundred(self) -> "Cifar":
        if self.labels == "coarse" and self.classes == 10:
            words = "fine: only CIFAR-100 has coarse labels too"
            raise PydanticCustomError("coarse", words, {"key": "labels"})
        return self


class ImageFolder(FileData):
    """A directory with one directory of image files for each class. Needs the extra `images`."""

    reader = "fusionrun.data.image_folder"
    source: Literal["image_folder"]
    """Directory of images."""
    split: Annotated[Split, SplitShapes(OfficialSplit, FractionSplit, FileSplit, FoldSplit)] = (
        Field(default_factory=OfficialSplit.model_construct)
    )
    """The directories `train`, `val` and `test` below path; fractions or folds of one directory;
    or a directory for each part."""
    view: Name = "image"
    """What the experts call the images."""
    images: Images = Field(default_factory=Images.model_construct)
    """Size and channels of the images."""


class OfferedData(Data):
    """Base of the sources that come in parts, or as one set that is divided here."""

    split: Annotated[Split, SplitShapes(OfficialSplit, FractionSplit, FoldSplit)] = Field(
        default_factory=OfficialSplit.model_construct
    )
    """What is taken from its training part; or fractions or folds, where it is one set."""


class TorchvisionParts(Section):
    """Arguments of a torchvision class, by the part that it then gives."""

    train: Mapping[str, Any]
    """The rows to learn from."""
    val: Mapping[str, Any] | None = None
    """The rows on which the best weights are chosen; null: a share of `train`."""
    test: Mapping[str, Any] | None = None
    """The rows that are touched once, at the end."""


class Torchvision(OfferedData):
    """A data set of torchvision. Needs the extra `torchvision`, for a plan too."""

    reader = "fusionrun.data.torchvision_sets"
    source: Literal["torchvision"]
    """Data set of torchvision."""
    name: Annotated[str, Field(min_length=1)]
    """Name of its class, such as FashionMNIST."""
    root: str
    """Directory that holds the files, relative to the recipe."""
    view: Name = "image"
    """What the experts call the images."""
    images: Images = Field(default_factory=Images.model_construct)
    """Size and channels of the images."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """Further arguments of the class, for every part."""
    parts: TorchvisionParts | None = None
    """Arguments that make each part; null: `train: true`, or `split: train`, and the like, as the
    class has them."""
    download: bool = False
    """Download what is not in `root`, as soon as a plan needs it."""


class PythonData(OfferedData):
    """A data set that another package offers by an entry point."""

    reader = "fusionrun.data.offered"
    source: Literal["python"]
    """Function of another package."""
    name: Annotated[str, Field(min_length=1)]
    """Name of its entry point, in the group `fusionrun.datasets`."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """What the function is called with."""
