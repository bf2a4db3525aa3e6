"""Backbones, and the expert around one: raw view in, features out.

A backbone is any `Backbone`: it takes a scaled sample of `input_shape` and gives `features`
numbers. Scaling, reshaping and the optional norm are the expert's, so that a backbone is only
its layers.

Shapes: B batch, F features of one expert; an image has channels, height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionrun.models.scaler import Scaler

__all__ = ["CNN", "MLP", "Activation", "Backbone", "Expert"]

Activation = Literal["relu", "gelu", "silu"]

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
}


class Backbone(nn.Module):
    """Base of every backbone: (B, *input_shape) to (B, features).

    Attributes:
        input_shape: one sample as the first layer wants it.
        features: width of the output.
    """

    def __init__(self, input_shape: tuple[int, ...], features: int) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.features = features


class MLP(Backbone):
    """Linear → activation → dropout for each hidden layer, then Linear → activation.

    The last activation stands there so that head and fusion read a nonlinear representation: a
    head of one Linear on a plain Linear would be one linear map.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int],
        hidden: Sequence[int],
        features: int,
        dropout: float,
        activation: Activation,
    ) -> None:
        super().__init__(input_shape, features)
        widths = (*input_shape, *hidden, features)
        self.layers = nn.ModuleList(nn.Linear(*sizes) for sizes in pairwise(widths))
        self.dropout = dropout
        self.activation = _ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) to (B, F)."""
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = self.activation(layer(x))
            if self.dropout and number < last:
                x = F.dropout(x, self.dropout, self.training)
        return x


class CNN(Backbone):
    """Blocks of conv 3 × 3 → BatchNorm → ReLU → max pool 2, a mean over the image, Linear → ReLU.

    The convolutions have no bias: the BatchNorm behind each would take it out again. The last
    ReLU is there for the reason that `MLP` gives.
    """

    def __init__(
        self,
        *,
        input_shape: tuple[int, int, int],
        channels: Sequence[int],
        features: int,
        dropout: float,
    ) -> None:
        super().__init__(input_shape, features)
        widths = (input_shape[0], *channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, kernel_size=3, padding=1, bias=False)
            for c_in, c_out in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in channels)
        self.output = nn.Linear(channels[-1], features)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, height, width) to (B, F)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.max_pool2d(F.relu(norm(conv(x))), 2)
        x = x.mean((2, 3))
        if self.dropout:
            x = F.dropout(x, self.dropout, self.training)
        return F.relu(self.output(x))


class Expert(nn.Module):
    """A scaler, a backbone and, with a shared feature norm, a LayerNorm on the features.

    Whoever has the whole table at hand scales it once and calls `encode` on batches; an exported
    expert is called with raw views.

    Args:
        backbone: gives the features.
        scaler_shape: as in `Scaler`.
        norm: whether the features are normalised here, for head and fusion alike.
        channels_last: whether the backbone, one that convolves images, gets them in that order of
            memory and keeps to it; its weights stay in theirs.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        scaler_shape: tuple[int, ...],
        norm: bool,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.scaler = Scaler(scaler_shape)
        self.backbone = backbone
        self.norm = nn.LayerNorm(backbone.features) if norm else None

    @property
    def features(self) -> int:
        """Width F of the features."""
        return self.backbone.features

    def scale(self, raw: Tensor) -> Tensor:
        """(B, *view) raw to (B, *input_shape) scaled: what `encode` takes."""
        scaled: Tensor = self.scaler(raw)
        return scaled.reshape(-1, *self.backbone.input_shape)

    def encode(self, scaled: Tensor) -> Tensor:
        """(B, *input_shape) scaled to (B, F)."""
        if self.channels_last:
            # (not contiguous(), which takes one channel for in order already)
            scaled = scaled.to(memory_format=torch.channels_last)
        features: Tensor = self.backbone(scaled)
        return features if self.norm is None else self.norm(features)

    def forward(self, raw: Tensor) -> Tensor:
        """(B, *view) raw to (B, F)."""
        return self.encode(self.scale(raw))
