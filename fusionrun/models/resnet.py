"""Residual networks for small images: ResNet-18 (arXiv 1512.03385) and ResNeXt-29 (1611.05431).

Both begin with a 3 × 3 convolution at full size and without a pool, as on CIFAR, and end in the
mean over the image. Tensors have torchvision's names.

Shapes: B batch, F features; an image has channels, height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from fusionrun.models.experts import Backbone

__all__ = ["ResNeXt", "ResNet", "init_convolutions"]


def init_convolutions(network: nn.Module) -> None:
    """Draws every convolution's weights from N(0, 2 / fan_out) (He et al., arXiv 1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _shortcut(c_in: int, c_out: int, stride: int) -> nn.Sequential | None:
    """A projection where the block changes the size or the number of channels; else None."""
    if stride == 1 and c_in == c_out:
        return None
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 1, stride, bias=False),
        nn.BatchNorm2d(c_out),
    )


class _BasicBlock(nn.Module):
    """Two 3 × 3 convolutions, and what came in added to them."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample = _shortcut(c_in, c_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, height, width) to (B, c_out, height / stride, width / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class _Bottleneck(nn.Module):
    """1 × 1 down, 3 × 3 in groups, 1 × 1 up, and what came in added to them."""

    def __init__(self, c_in: int, inner: int, c_out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.downsample = _shortcut(c_in, c_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, height, width) to (B, c_out, height / stride, width / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class _Stages(Backbone):
    """A first convolution, then stages of blocks; every stage but the first halves the image."""

    def __init__(
        self, input_shape: tuple[int, int, int], first: int, stages: Sequence[nn.Sequential], c: int
    ) -> None:
        super().__init__(input_shape, c)
        self.conv1 = nn.Conv2d(input_shape[0], first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        for number, stage in enumerate(stages, 1):
            self.add_module(f"layer{number}", stage)
        self._num_stages = len(stages)
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, height, width) to (B, F)."""
        x = F.relu(self.bn1(self.conv1(x)))
        for number in range(1, self._num_stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean((2, 3))


class ResNet(_Stages):
    """Stages of basic blocks.

    Args:
        input_shape: (channels, height, width).
        channels: of each stage; those of the first convolution are the first stage's.
        blocks: in each stage.
    """

    def __init__(
        self, *, input_shape: tuple[int, int, int], channels: Sequence[int], blocks: int
    ) -> None:
        stages = []
        for number, (c_in, c_out) in enumerate(pairwise((channels[0], *channels))):
            sizes = [(c_in, c_out, 2 if number else 1), *[(c_out, c_out, 1)] * (blocks - 1)]
            stages.append(nn.Sequential(*(_BasicBlock(*size) for size in sizes)))
        super().__init__(input_shape, channels[0], stages, channels[-1])


class ResNeXt(_Stages):
    """Stages of bottlenecks whose 3 × 3 convolution works in groups.

    Args:
        input_shape: (channels, height, width).
        first: channels of the first convolution.
        channels: of each stage.
        inner: channels inside the bottlenecks of each stage.
        groups: of the 3 × 3 convolutions, the cardinality.
        blocks: in each stage.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, int, int],
        first: int,
        channels: Sequence[int],
        inner: Sequence[int],
        groups: int,
        blocks: int,
    ) -> None:
        stages = []
        for number, (c_in, c_out) in enumerate(pairwise((first, *channels))):
            sizes = [(c_in, 2 if number else 1), *[(c_out, 1)] * (blocks - 1)]
            stages.append(
                nn.Sequential(
                    *(_Bottleneck(c, inner[number], c_out, stride, groups) for c, stride in sizes)
                )
            )
        super().__init__(input_shape, first, stages, channels[-1])
