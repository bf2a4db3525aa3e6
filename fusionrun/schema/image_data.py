"""Data sources of images, and those of other packages: loaded when a recipe names one."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from fusionrun.schema.base import Name
from fusionrun.schema.data import Data, FileData


class Idx(FileData):
    """A directory of IDX files, as MNIST and its relatives come."""

    source: Literal["idx"]
    """Directory of IDX files."""
    view: Name = "image"
    """What the experts call the images."""


class Cifar(FileData):
    """A directory of CIFAR's binary files."""

    source: Literal["cifar"]
    """Directory of CIFAR files."""
    classes: Literal[10, 100] = 10
    """CIFAR-10 or CIFAR-100."""
    view: Name = "image"
    """What the experts call the images."""


class ImageFolder(FileData):
    """A directory with one directory of image files for each class."""

    source: Literal["image_folder"]
    """Directory of images."""
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
