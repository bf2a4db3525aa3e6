"""Experts: the backbones that turn a view into features, by `model`.

Owns what a recipe may say of an expert and what follows from it without torch: the width of its
features, the sizes its torch module is built with, the names and shapes of its tensors.

A new backbone is one torch file and one section class here: subclass `Expert`, name the torch
class in `module`, and say `input_dim`, `module_args`, `blueprint` and, if not every view fits,
`check`. Another package offers one as an entry point of the group `fusionrun.experts`.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from math import prod
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from fusionrun.blueprint import Tensor, batch_norm, conv, linear
from fusionrun.schema.base import NAME_PATTERN, Count, Section
from fusionrun.schema.kinds import Kinds

PATHS = ("global", "mean_of_experts")
"""What tables call the paths that are no expert's: no expert may bear these names."""

Shape = tuple[int, ...]
IMAGE_CHANNELS = (1, 3, 4)
"""Channels of nearly every image file: grey, colour, and colour with transparency."""

Dropout = Annotated[float, Field(ge=0, lt=1)]


def _weights(value: str) -> str:
    if not value or (value.startswith("run:") and not re.fullmatch(_RUN_WEIGHTS, value)):
        raise PydanticCustomError("weights", "a path, or run:ID#experts.NAME")
    return value


_RUN_WEIGHTS = rf"run:[^#]+#experts\.{NAME_PATTERN}"


class Epochs(Section):
    """A length of time."""

    epochs: Count
    """Passes over the training split."""


class Until(Section):
    """Frozen at first, trained later."""

    until: Epochs
    """How long the expert stays frozen."""


def _freeze(value: Any) -> Any:
    """Choose between the two forms here: a pydantic union would report errors of both."""
    if isinstance(value, Mapping):
        return Until.model_validate(value)
    if not isinstance(value, bool | Until):
        raise PydanticCustomError("freeze", "true, false, or a mapping: until with epochs below it")
    return value


class UnfitViewError(ValueError):
    """A view that an expert cannot read.

    Attributes:
        keys: the expert's keys that decide it besides `view` and `model`, the likeliest first.
    """

    def __init__(self, message: str, *keys: str) -> None:
        self.keys = keys
        super().__init__(message)


class UnavailableError(ValueError):
    """An expert that cannot be had here, whatever the view.

    Attributes:
        key: the expert's key that is to blame.
        got: what came, ready to print.
        fix: what to do about it, or empty.
    """

    def __init__(self, key: str, got: str, expected: str, fix: str = "") -> None:
        self.key, self.got, self.fix = key, got, fix
        super().__init__(expected)


def looks_channels_last(shape: Shape) -> bool:
    """Whether an image seems to be (height, width, channels), not (channels, height, width).

    A square of 1, 3 or 4 behind another number of channels is none: a small feature map.
    """
    if len(shape) != 3:
        return False
    first, middle, last = shape
    return last in IMAGE_CHANNELS and first not in IMAGE_CHANNELS and middle != last


class Expert(Section):
    """Base of every expert.

    `view_shape` in every method is the shape of one sample of the expert's view: (features,),
    (height, width) or (channels, height, width).
    """

    module: ClassVar[str]
    """The torch backbone, as `package.module:Class`."""
    classifier: ClassVar[tuple[str, ...]] = ()
    """See `classifier_of`."""
    convolves: ClassVar[bool] = False
    """Whether it is built of convolutions, to which the memory's order of an image matters."""
    origin_prefix: ClassVar[str] = "backbone."
    """What stands before the origin's tensor names in an expert's."""

    model: str
    """Kind of backbone."""
    view: str
    """Name of the view it reads; several experts may read one view."""
    weights: Annotated[str, AfterValidator(_weights)] | None = None
    """What it starts from: a path, or `run:ID#experts.NAME`; null: a fresh start."""
    freeze: Annotated[bool | Until, BeforeValidator(_freeze)] = False
    """Keep its weights as they are: true, or `until: {epochs: n}`."""

    def check(self, view_shape: Shape) -> None:
        """Whether the view can be read.

        Raises:
            ValueError: it cannot; the message says what would have been right. An
                `UnfitViewError` also says which keys of the expert decide it; an
                `UnavailableError` that it is not the view's fault.
        """
        if not view_shape:
            raise ValueError("a view with at least one number for each sample")

    def input_dim(self, view_shape: Shape) -> int:
        """The width of the features it gives: what the fusion takes in."""
        raise NotImplementedError

    def module_args(self, view_shape: Shape) -> dict[str, Any]:
        """Keyword arguments of the torch backbone: numbers, words and tuples of numbers."""
        raise NotImplementedError

    def blueprint(self, view_shape: Shape) -> dict[str, Tensor]:
        """Every tensor of the torch backbone, as in its `state_dict`."""
        raise NotImplementedError

    def classifier_of(self, view_shape: Shape) -> tuple[str, ...]:
        """What the origin's own classifier is called in its files of weights: it is left out."""
        return self.classifier

    @property
    def is_pretrained(self) -> bool:
        """Whether it starts from weights."""
        return self.weights is not None


class MLP(Expert):
    """A multi-layer perceptron on the view's numbers in one row, images included."""

    module: ClassVar[str] = "fusionrun.models.experts:MLP"

    model: Literal["mlp"]
    """Multi-layer perceptron."""
    hidden: tuple[Count, ...] = (128,)
    """Widths of the hidden layers, first to last; [] for none."""
    features: Count = 64
    """Width of the features: the expert's input_dim."""
    dropout: Dropout = 0.0
    """Dropout after each hidden layer."""
    activation: Literal["relu", "gelu", "silu"] = "relu"
    """After each layer, the last one included."""

    def input_dim(self, view_shape: Shape) -> int:
        """`features`, whatever the view."""
        return self.features

    def module_args(self, view_shape: Shape) -> dict[str, Any]:
        """Sizes of `fusionrun.models.experts.MLP`."""
        return {
            "input_shape": (prod(view_shape),),
            "hidden": self.hidden,
            "features": self.features,
            "dropout": self.dropout,
            "activation": self.activation,
        }

    def blueprint(self, view_shape: Shape) -> dict[str, Tensor]:
        """One Linear for each hidden layer, and one to the features."""
        widths = (prod(view_shape), *self.hidden, self.features)
        tensors: dict[str, Tensor] = {}
        for number, (n_in, n_out) in enumerate(pairwise(widths)):
            tensors |= linear(f"layers.{number}", n_in, n_out)
        return tensors


def _image_shape(value: Shape) -> Shape:
    if len(value) not in (2, 3):
        raise PydanticCustomError("image_shape", "[height, width] or [channels, height, width]")
    return value


ImageShape = Annotated[
    tuple[Count, ...],
    AfterValidator(_image_shape),
    Field(json_schema_extra={"minItems": 2, "maxItems": 3}),
]


class ImageExpert(Expert):
    """Base of the experts that read images: which image a view is, and the smallest that fits."""

    shape: ImageShape | None = None
    """Image shape of a vector view: [height, width] or [channels, height, width]."""

    def check(self, view_shape: Shape) -> None:
        """The view is an image, or `shape` makes it one, large enough for every layer."""
        if self.shape is None and len(view_shape) not in (2, 3):
            raise UnfitViewError(
                "an image, or the key 'shape' that says which image a row of "
                f"{prod(view_shape)} numbers is: [height, width] or [channels, height, width]",
                "shape",
            )
        if self.shape is not None:
            self._check_reshape(view_shape, self.shape)
        elif looks_channels_last(view_shape):
            raise UnfitViewError(_channels_last(view_shape), "view")
        _, height, width = self.image_shape(view_shape)
        self.check_size(height, width)

    def check_size(self, height: int, width: int) -> None:
        """Raises UnfitViewError where an image of this size is too small."""

    def _check_reshape(self, view_shape: Shape, shape: Shape) -> None:
        if len(view_shape) > 1 and view_shape != shape:
            raise UnfitViewError("no 'shape': the view is an image already", "shape")
        if prod(shape) != prod(view_shape):
            raise UnfitViewError(
                f"a 'shape' of {prod(view_shape)} numbers in all; "
                f"{' × '.join(map(str, shape))} is {prod(shape)}",
                "shape",
            )

    def image_shape(self, view_shape: Shape) -> tuple[int, int, int]:
        """(channels, height, width) of what the first convolution sees."""
        *channels, height, width = self.shape or view_shape
        return (channels[0] if channels else 1, height, width)


class CNN(ImageExpert):
    """A plain convolutional network for small images; each block halves height and width."""

    module: ClassVar[str] = "fusionrun.models.experts:CNN"
    convolves: ClassVar[bool] = True

    model: Literal["cnn"]
    """Small convolutional network."""
    channels: Annotated[tuple[Count, ...], Field(min_length=1)] = (32, 64)
    """Channels of the blocks, first to last."""
    features: Count = 64
    """Width of the features: the expert's input_dim."""
    dropout: Dropout = 0.0
    """Dropout before the last layer."""

    def check_size(self, height: int, width: int) -> None:
        """Each block halves the image."""
        blocks, least = len(self.channels), min(height, width)
        if least < 2**blocks:
            raise UnfitViewError(
                f"an image of at least {2**blocks} × {2**blocks} for {blocks} blocks that halve it "
                f"each; {height} × {width} allows {least.bit_length() - 1} in 'channels'",
                "channels",
                "shape",
            )

    def input_dim(self, view_shape: Shape) -> int:
        """`features`, whatever the view."""
        return self.features

    def module_args(self, view_shape: Shape) -> dict[str, Any]:
        """Sizes of `fusionrun.models.experts.CNN`."""
        return {
            "input_shape": self.image_shape(view_shape),
            "channels": self.channels,
            "features": self.features,
            "dropout": self.dropout,
        }

    def blueprint(self, view_shape: Shape) -> dict[str, Tensor]:
        """A convolution and a BatchNorm for each block, and a Linear to the features."""
        widths = (self.image_shape(view_shape)[0], *self.channels)
        tensors: dict[str, Tensor] = {}
        for number, (c_in, c_out) in enumerate(pairwise(widths)):
            tensors |= conv(f"convs.{number}", c_in, c_out, 3)
            tensors |= batch_norm(f"norms.{number}", c_out)
        return tensors | linear("output", self.channels[-1], self.features)


def _channels_last(shape: Shape) -> str:
    channels, height, width = shape
    return (
        "(channels, height, width), and this looks like channels last; "
        "transpose it: numpy.moveaxis(x, -1, 1); "
        f"if it is {channels} channels of {height} × {width}, say shape: {list(shape)}"
    )


class ExpertKinds(Kinds[Expert]):
    """Kinds of experts, of which some are a whole collection: any name after their prefix.

    A collection is listed as `prefix:NAME`, so that lists of kinds stay short.
    """

    def find(self, name: object) -> type[Expert] | None:
        """The section class of a tag; a collection's for any name after its prefix."""
        if isinstance(name, str):
            prefix, colon, rest = name.partition(":")
            if colon and rest:
                return super().find(f"{prefix}:NAME")
        return super().find(name)


EXPERTS = ExpertKinds(
    "model",
    {
        "mlp": MLP,
        "cnn": CNN,
        "resnet18": "fusionrun.schema.backbones:ResNet18",
        "resnext29": "fusionrun.schema.backbones:ResNeXt29",
        "densenet121": "fusionrun.schema.backbones:DenseNet121",
        "wideresnet": "fusionrun.schema.backbones:WideResNet",
        "timm:NAME": "fusionrun.schema.collections:Timm",
        "torchvision:NAME": "fusionrun.schema.collections:Torchvision",
    },
    group="fusionrun.experts",
)
