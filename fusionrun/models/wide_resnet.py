"""Wide residual networks (Zagoruyko and Komodakis, arXiv 1605.07146): few layers, many channels.

Shapes: B batch, F features; an image has channels, height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from fusionrun.models.experts import Backbone
from fusionrun.models.resnet import init_convolutions

__all__ = ["WideResNet"]


class _Block(nn.Module):
    """BatchNorm → ReLU → 3 × 3 convolution, twice, with dropout between; what came in is added.

    Where the number of channels changes, what is added is projected after the first ReLU.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        changes = stride != 1 or c_in != c_out
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if changes else None
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, height, width) to (B, c_out, height / stride, width / stride)."""
        active = F.relu(self.bn1(x))
        out = F.relu(self.bn2(self.conv1(active)))
        if self.dropout:
            out = F.dropout(out, self.dropout, self.training)
        out = self.conv2(out)
        total: Tensor = out + (x if self.shortcut is None else self.shortcut(active))
        return total


class WideResNet(Backbone):
    """A first convolution of 16 channels, three stages of which two halve the image, and the mean.

    Args:
        input_shape: (channels, height, width).
        channels: of the first convolution and of each stage.
        blocks: in each stage.
        dropout: between the two convolutions of a block.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, int, int],
        channels: Sequence[int],
        blocks: int,
        dropout: float,
    ) -> None:
        super().__init__(input_shape, channels[-1])
        self.conv1 = nn.Conv2d(input_shape[0], channels[0], 3, padding=1, bias=False)
        self.stages = nn.ModuleList()
        for number, (c_in, c_out) in enumerate(pairwise(channels)):
            sizes = [(c_in, c_out, 2 if number else 1), *[(c_out, c_out, 1)] * (blocks - 1)]
            self.stages.append(nn.Sequential(*(_Block(*size, dropout) for size in sizes)))
        self.bn = nn.BatchNorm2d(channels[-1])
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, height, width) to (B, F)."""
        x = self.conv1(x)
        for stage in self.stages:
            x = stage(x)
        return F.relu(self.bn(x)).mean((2, 3))
