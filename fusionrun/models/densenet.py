"""Densely connected networks with bottlenecks and compression (Huang et al., arXiv 1608.06993).

For small images: a 3 × 3 convolution at full size and no pool before the first block. Tensors have
torchvision's names, less their `features.`.

Shapes: B batch, F features; an image has channels, height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionrun.models.experts import Backbone
from fusionrun.models.resnet import init_convolutions

__all__ = ["DenseNet"]


class _Layer(nn.Module):
    """BatchNorm → ReLU → 1 × 1, BatchNorm → ReLU → 3 × 3; what comes out is put beside the rest."""

    def __init__(self, c_in: int, inner: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, height, width) to (B, c_in + growth, height, width)."""
        new = self.conv1(F.relu(self.norm1(x)))
        new = self.conv2(F.relu(self.norm2(new)))
        return torch.cat([x, new], dim=1)


class _Transition(nn.Module):
    """BatchNorm → ReLU → 1 × 1, and half the height and width."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(c_in)
        self.conv = nn.Conv2d(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, height, width) to (B, c_out, height // 2, width // 2)."""
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet(Backbone):
    """Blocks of layers that each read all before them, with a halving between the blocks.

    Args:
        input_shape: (channels, height, width).
        growth: channels that a layer adds.
        layers: in each block.
        widths: channels at each block's start and, last, behind the last block.
        inner: channels between a layer's two convolutions.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, int, int],
        growth: int,
        layers: Sequence[int],
        widths: Sequence[int],
        inner: int,
    ) -> None:
        super().__init__(input_shape, widths[-1])
        self.conv0 = nn.Conv2d(input_shape[0], widths[0], 3, padding=1, bias=False)
        self._parts: list[str] = []
        for number, (count, c) in enumerate(zip(layers, widths, strict=False), 1):
            block = nn.Sequential()
            for layer in range(count):
                block.add_module(
                    f"denselayer{layer + 1}", _Layer(c + layer * growth, inner, growth)
                )
            self._add(f"denseblock{number}", block)
            if number < len(layers):
                end = c + count * growth
                self._add(f"transition{number}", _Transition(end, widths[number]))
        self.norm5 = nn.BatchNorm2d(widths[-1])
        init_convolutions(self)

    def _add(self, name: str, part: nn.Module) -> None:
        self.add_module(name, part)
        self._parts.append(name)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, height, width) to (B, F)."""
        x = self.conv0(x)
        for name in self._parts:
            x = self.get_submodule(name)(x)
        return F.relu(self.norm5(x)).mean((2, 3))
