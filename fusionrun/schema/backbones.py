"""Image backbones: loaded when a recipe names one. See `fusionrun.schema.experts`."""

from typing import Annotated, Literal

from pydantic import Field

from fusionrun.schema.base import Count
from fusionrun.schema.experts import Expert


class ResNet18(Expert):
    """ResNet-18 (He et al., 2016)."""

    model: Literal["resnet18"]
    """Residual network of 18 layers."""


class ResNeXt29(Expert):
    """ResNeXt-29 (Xie et al., 2017)."""

    model: Literal["resnext29"]
    """Residual network of 29 layers with grouped convolutions."""


class DenseNet121(Expert):
    """DenseNet-121 (Huang et al., 2017)."""

    model: Literal["densenet121"]
    """Densely connected network of 121 layers."""


class WideResNet(Expert):
    """A wide residual network (Zagoruyko and Komodakis, 2016)."""

    model: Literal["wideresnet"]
    """Wide residual network."""
    depth: Count = 28
    """Number of layers."""
    width: Count = 10
    """Factor on the number of channels."""


class Timm(Expert):
    """A model of the timm collection, by its name there."""

    model: Annotated[str, Field(pattern=r"^timm:\S+$")]
    """`timm:NAME`."""


class Torchvision(Expert):
    """A model of torchvision, by its name there."""

    model: Annotated[str, Field(pattern=r"^torchvision:\S+$")]
    """`torchvision:NAME`."""
