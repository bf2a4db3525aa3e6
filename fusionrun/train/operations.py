"""The image operations of RandAugment and TrivialAugment, each on many images with an amount each.

They are those of torchvision on bytes, and are held against it in the tests. Images are float32
tensors of whole numbers from 0 to 255 here, so that no operation has to go from one type to
another and back; each gives whole numbers again, rounded as torchvision does.

All of it is arithmetic pixel by pixel, sums of whole numbers, and sorting: the same bits on a part
of the batch as on all of it, and deterministic on every device.

Shapes: B images, C channels, H height, W width; an amount a sample is (B, 1, 1, 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["COLOURS", "moved"]

WHITE = 255.0
GREY = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in grey: ITU-R BT.601, as torchvision rounds it."""


def moved(images: Tensor, matrices: Tensor) -> Tensor:
    """Every image through an affine map of its own, by the nearest pixel; black where none is.

    Args:
        images: (B, C, H, W).
        matrices: (B, 2, 3): a place (x, y, 1) of the new image to the (x, y) it is taken from,
            in pixels from the image's middle.
    """
    height, width = images.shape[2:]
    x = _from_the_middle(width, images).view(1, 1, -1)
    y = _from_the_middle(height, images).view(1, -1, 1)
    places = [
        (row[:, :1, None] * x + row[:, 1:2, None] * y + row[:, 2:, None]) * (2 / size)
        for row, size in zip(matrices.unbind(1), (width, height), strict=True)
    ]
    grid = torch.stack(places, -1)
    return F.grid_sample(images, grid, "nearest", "zeros", align_corners=False)


def _from_the_middle(size: int, like: Tensor) -> Tensor:
    return torch.arange(size, dtype=like.dtype, device=like.device) - (size - 1) / 2


def _brightness(images: Tensor, amounts: Tensor) -> Tensor:
    return (images * (1 + amounts)).clamp_(0, WHITE).floor_()


def _colour(images: Tensor, amounts: Tensor) -> Tensor:
    """Between grey and the image, and beyond; where there are no three colours, the image."""
    return _blended(images, _grey(images), amounts) if images.shape[1] == len(GREY) else images


def _contrast(images: Tensor, amounts: Tensor) -> Tensor:
    return _blended(images, _grey(images).mean((1, 2, 3), keepdim=True), amounts)


def _sharpness(images: Tensor, amounts: Tensor) -> Tensor:
    """Between a blurred image and the image, and beyond; its edge stays."""
    if min(images.shape[2:]) <= 2:
        return images
    # A kernel of ones with 5 in the middle, over 13: its sums are whole and so exact.
    inner = images[:, :, 1:-1, 1:-1]
    sums = F.avg_pool2d(images, 3, 1, divisor_override=1) + 4 * inner
    sharper = images.clone()
    sharper[:, :, 1:-1, 1:-1] = _blended(inner, (sums / 13).round_(), amounts)
    return sharper


def _posterize(images: Tensor, amounts: Tensor) -> Tensor:
    """The amount is how many of the eight bits stay."""
    step = torch.exp2(8 - amounts)
    return (images / step).floor_() * step


def _solarize(images: Tensor, amounts: Tensor) -> Tensor:
    """Inverted from the amount on, in shares of white."""
    return torch.where(images >= amounts * WHITE, WHITE - images, images)


def _autocontrast(images: Tensor, amounts: Tensor) -> Tensor:
    """Each channel from black to white; one of a single value stays."""
    low, high = (extreme(images, (2, 3), keepdim=True) for extreme in (torch.amin, torch.amax))
    scale = (high - low) * (1 / WHITE)
    wide = ((images - low) / scale).clamp_(0, WHITE).floor_()
    return torch.where(high > low, wide, images)


def _equalize(images: Tensor, amounts: Tensor) -> Tensor:
    """Each channel's values spread evenly, as Pillow does it.

    A value becomes the number of pixels below it, in steps of which 255 make up all pixels but
    the brightest ones. Where a step would be less than a pixel the channel stays.
    """
    rows = images.flatten(2)
    below = torch.searchsorted(rows.sort(-1).values, rows)
    step = below.amax(-1, keepdim=True) // 255
    spread = (below + step // 2) // step.clamp(min=1)
    spread = spread.clamp_(max=255).to(images.dtype)
    return torch.where(step > 0, spread, rows).view_as(images)


def _grey(images: Tensor) -> Tensor:
    """(B, 1, H, W) whole numbers of three colours; of other channels the images themselves."""
    if images.shape[1] != len(GREY):
        return images
    red, green, blue = (images[:, i : i + 1] * share for i, share in enumerate(GREY))
    return (red + green + blue).floor_()


def _blended(images: Tensor, others: Tensor, amounts: Tensor) -> Tensor:
    """The images where the amount is 0, the others at -1, as far on the other side at 1."""
    return (images * (1 + amounts) - others * amounts).clamp_(0, WHITE).floor_()


COLOURS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Brightness": _brightness,
    "Color": _colour,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _autocontrast,
    "Equalize": _equalize,
}
"""By the name that the papers and torchvision give it: (B, C, H, W) and amounts to the same."""
