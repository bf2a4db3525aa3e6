"""Published image backbones for small images: loaded when a recipe names one.

What they are without their classifier; the parameter counts of the publications are with one of
ten classes. See `fusionrun.schema.experts`.
"""

from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from fusionrun.blueprint import Tensor, batch_norm, conv, under
from fusionrun.schema.base import Count
from fusionrun.schema.experts import Dropout, ImageExpert, Shape, UnfitViewError


class Published(ImageExpert):
    """Base of the backbones here: an image of any size that leaves a pixel after each halving."""

    convolves: ClassVar[bool] = True
    halvings: ClassVar[int]
    """How often the network halves height and width."""

    def check_size(self, height: int, width: int) -> None:
        """A pixel is left after all halvings."""
        least = 2**self.halvings
        if min(height, width) < least:
            raise UnfitViewError(
                f"an image of at least {least} × {least}: {self.model} halves it "
                f"{self.halvings} times; this one is {height} × {width}",
                "shape",
            )


class ResNet18(Published):
    """ResNet-18 (He et al., 2016), as on CIFAR: 11,173,962 parameters with ten classes."""

    module: ClassVar[str] = "fusionrun.models.resnet:ResNet"
    classifier: ClassVar[tuple[str, ...]] = ("fc",)
    halvings: ClassVar[int] = 3
    channels: ClassVar[tuple[int, ...]] = (64, 128, 256, 512)

    model: Literal["resnet18"]
    """Residual network of 18 layers."""

    def input_dim(self, view_shape: Shape) -> int:
        """512."""
        return self.channels[-1]

    def module_args(self, view_shape: Shape) -> dict[str, Any]:
        """Sizes of `fusionrun.models.resnet.ResNet`."""
        shape = self.image_shape(view_shape)
        return {"input_shape": shape, "channels": self.channels, "blocks": 2}

    def blueprint(self, view_shape: Shape) -> dict[str, Tensor]:
        """Two basic blocks for each stage."""
        tensors = _first(self.image_shape(view_shape)[0], self.channels[0])
        for number, (c_in, c_out) in enumerate(pairwise((self.channels[0], *self.channels))):
            stage = f"layer{number + 1}"
            tensors |= under(f"{stage}.0", _basic_block(c_in, c_out))
            tensors |= under(f"{stage}.1", _basic_block(c_out, c_out))
        return tensors


class ResNeXt29(Published):
    """ResNeXt-29 (Xie et al., 2017): 8x64d has 34.4 million parameters with ten classes."""

    module: ClassVar[str] = "fusionrun.models.resnet:ResNeXt"
    classifier: ClassVar[tuple[str, ...]] = ("fc",)
    halvings: ClassVar[int] = 2
    first: ClassVar[int] = 64
    channels: ClassVar[tuple[int, ...]] = (256, 512, 1024)

    model: Literal["resnext29"]
    """Residual network of 29 layers with grouped convolutions."""
    cardinality: Count = 8
    """Groups of the 3 × 3 convolutions."""
    width: Count = 64
    """Channels of a group in the first stage; each later stage doubles them."""

    def input_dim(self, view_shape: Shape) -> int:
        """1024."""
        return self.channels[-1]

    @property
    def _inner(self) -> tuple[int, ...]:
        return tuple(self.cardinality * self.width * 2**stage for stage in range(3))

    def module_args(self, view_shape: Shape) -> dict[str, Any]:
        """Sizes of `fusionrun.models.resnet.ResNeXt`."""
        return {
            "input_shape": self.image_shape(view_shape),
            "first": self.first,
            "channels": self.channels,
            "inner": self._inner,
            "groups": self.cardinality,
            "blocks": 3,
        }

    def blueprint(self, view_shape: Shape) -> dict[str, Tensor]:
        """Three bottlenecks for each stage."""
        tensors = _first(self.image_shape(view_shape)[0], self.first)
        widths = pairwise((self.first, *self.channels))
        for number, ((c_in, c_out), inner) in enumerate(zip(widths, self._inner, strict=True), 1):
            for block, c in enumerate((c_in, c_out, c_out)):
                tensors |= under(
                    f"layer{number}.{block}", _bottleneck(c, inner, c_out, self.cardinality)
                )
        return tensors


class DenseNet121(Published):
    """DenseNet-121 (Huang et al., 2017), as on CIFAR: 6,956,298 parameters with ten classes."""

    module: ClassVar[str] = "fusionrun.models.densenet:DenseNet"
    classifier: ClassVar[tuple[str, ...]] = ("classifier",)
    halvings: ClassVar[int] = 3
    layers: ClassVar[tuple[int, ...]] = (6, 12, 24, 16)

    model: Literal["densenet121"]
    """Densely connected network of 121 layers."""
    growth: Count = 32
    """Channels that each layer adds."""

    @property
    def _widths(self) -> tuple[int, ...]:
        """Channels at each block's start, and behind the last one."""
        widths = [2 * self.growth]
        for number, layers in enumerate(self.layers, 1):
            end = widths[-1] + layers * self.growth
            widths.append(end // 2 if number < len(self.layers) else end)
        return tuple(widths)

    def input_dim(self, view_shape: Shape) -> int:
        """1024 for a growth of 32."""
        return self._widths[-1]

    def module_args(self, view_shape: Shape) -> dict[str, Any]:
        """Sizes of `fusionrun.models.densenet.DenseNet`."""
        return {
            "input_shape": self.image_shape(view_shape),
            "growth": self.growth,
            "layers": self.layers,
            "widths": self._widths,
            "inner": 4 * self.growth,
        }

    def blueprint(self, view_shape: Shape) -> dict[str, Tensor]:
        """Blocks of layers, and a transition between each two blocks."""
        growth, widths = self.growth, self._widths
        tensors = conv("conv0", self.image_shape(view_shape)[0], widths[0], 3)
        for number, layers in enumerate(self.layers, 1):
            c = widths[number - 1]
            for layer in range(layers):
                name = f"denseblock{number}.denselayer{layer + 1}"
                tensors |= under(name, _dense_layer(c + layer * growth, growth))
            if number < len(self.layers):
                end = c + layers * growth
                tensors |= batch_norm(f"transition{number}.norm", end)
                tensors |= conv(f"transition{number}.conv", end, widths[number], 1)
        return tensors | batch_norm("norm5", widths[-1])


def _depth(value: int) -> int:
    if value < 10 or (value - 4) % 6:
        raise PydanticCustomError("depth", "6 n + 4 layers: 10, 16, 22, 28, 34, 40, …")
    return value


class WideResNet(Published):
    """WRN (Zagoruyko and Komodakis, 2016): 28-10 has 36.5 million parameters with ten classes."""

    module: ClassVar[str] = "fusionrun.models.wide_resnet:WideResNet"
    classifier: ClassVar[tuple[str, ...]] = ("fc",)
    halvings: ClassVar[int] = 2

    model: Literal["wideresnet"]
    """Wide residual network."""
    depth: Annotated[int, AfterValidator(_depth), Field(json_schema_extra={"minimum": 10})] = 28
    """Number of layers: 6 n + 4."""
    width: Count = 10
    """Factor on the number of channels."""
    dropout: Dropout = 0.0
    """Dropout between the two convolutions of a block; the paper's is 0.3."""

    @property
    def _channels(self) -> tuple[int, ...]:
        return (16, 16 * self.width, 32 * self.width, 64 * self.width)

    @property
    def _blocks(self) -> int:
        return (self.depth - 4) // 6

    def input_dim(self, view_shape: Shape) -> int:
        """64 times the width."""
        return self._channels[-1]

    def module_args(self, view_shape: Shape) -> dict[str, Any]:
        """Sizes of `fusionrun.models.wide_resnet.WideResNet`."""
        return {
            "input_shape": self.image_shape(view_shape),
            "channels": self._channels,
            "blocks": self._blocks,
            "dropout": self.dropout,
        }

    def blueprint(self, view_shape: Shape) -> dict[str, Tensor]:
        """Three stages; a stage's first block is projected where it changes anything."""
        tensors = conv("conv1", self.image_shape(view_shape)[0], self._channels[0], 3)
        for number, (c_in, c_out) in enumerate(pairwise(self._channels)):
            for block in range(self._blocks):
                own = _wide_block(c_out if block else c_in, c_out, bool(number) and not block)
                tensors |= under(f"stages.{number}.{block}", own)
        return tensors | batch_norm("bn", self._channels[-1])


def _first(c_in: int, c_out: int) -> dict[str, Tensor]:
    return conv("conv1", c_in, c_out, 3) | batch_norm("bn1", c_out)


def _basic_block(c_in: int, c_out: int) -> dict[str, Tensor]:
    tensors = conv("conv1", c_in, c_out, 3) | batch_norm("bn1", c_out)
    tensors |= conv("conv2", c_out, c_out, 3) | batch_norm("bn2", c_out)
    return tensors | (_projection(c_in, c_out) if c_in != c_out else {})


def _bottleneck(c_in: int, inner: int, c_out: int, groups: int) -> dict[str, Tensor]:
    tensors = conv("conv1", c_in, inner, 1) | batch_norm("bn1", inner)
    tensors |= conv("conv2", inner, inner, 3, groups) | batch_norm("bn2", inner)
    tensors |= conv("conv3", inner, c_out, 1) | batch_norm("bn3", c_out)
    return tensors | (_projection(c_in, c_out) if c_in != c_out else {})


def _projection(c_in: int, c_out: int) -> dict[str, Tensor]:
    return conv("downsample.0", c_in, c_out, 1) | batch_norm("downsample.1", c_out)


def _dense_layer(c_in: int, growth: int) -> dict[str, Tensor]:
    inner = 4 * growth
    tensors = batch_norm("norm1", c_in) | conv("conv1", c_in, inner, 1)
    return tensors | batch_norm("norm2", inner) | conv("conv2", inner, growth, 3)


def _wide_block(c_in: int, c_out: int, halves: bool) -> dict[str, Tensor]:
    tensors = batch_norm("bn1", c_in) | conv("conv1", c_in, c_out, 3)
    tensors |= batch_norm("bn2", c_out) | conv("conv2", c_out, c_out, 3)
    return tensors | (conv("shortcut", c_in, c_out, 1) if halves or c_in != c_out else {})
