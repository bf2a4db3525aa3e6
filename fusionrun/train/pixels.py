"""What augmentation does to a batch of images, each by numbers that were drawn before.

Shapes: B batch, C channels, H height, W width, A attempts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["ERASED_AREA", "ERASED_RATIO", "cropped", "erased", "flipped", "pasted"]

ERASED_AREA = (0.02, 0.33)
"""Least and most share of the image that is erased. Source: torchvision's RandomErasing."""
ERASED_RATIO = (0.3, 3.3)
"""Least and most height over width of what is erased. Source: torchvision's RandomErasing; in
Zhong et al., 2017, it is 0.3 to 1 / 0.3."""


def flipped(images: Tensor, which: Tensor) -> Tensor:
    """Left and right exchanged in some.

    Args:
        images: (B, C, H, W).
        which: (B,), bool.
    """
    return torch.where(which.view(-1, 1, 1, 1), images.flip(-1), images)


def cropped(images: Tensor, offsets: Tensor, padding: int, black: Tensor) -> Tensor:
    """Padded on all sides, then cut to the old size.

    Args:
        images: (B, C, H, W).
        offsets: (2, B) int64, from 0 to twice the padding: first row and column of each.
        padding: pixels on each side.
        black: (C, 1, 1), the value of what lies outside.
    """
    size, (height, width) = len(images), images.shape[2:]
    shape = (size, images.shape[1], height + 2 * padding, width + 2 * padding)
    padded = black.to(images.dtype).expand(shape).clone()
    padded[:, :, padding : padding + height, padding : padding + width] = images
    rows = offsets[0].unsqueeze(1) + torch.arange(height, device=images.device)
    columns = offsets[1].unsqueeze(1) + torch.arange(width, device=images.device)
    sample = torch.arange(size, device=images.device).view(-1, 1, 1)
    # (B, H, W, C): a slice between indices puts what they pick in front.
    taken = padded[sample, :, rows.unsqueeze(2), columns.unsqueeze(1)]
    return taken.permute(0, 3, 1, 2).contiguous()


def erased(images: Tensor, which: Tensor, numbers: Tensor) -> Tensor:
    """A random rectangle set to 0, the training split's mean, in some.

    As torchvision goes about it: area and ratio are drawn up to A times, until a rectangle fits;
    where none does, the image stays.

    Args:
        images: (B, C, H, W), scaled.
        which: (B,), bool.
        numbers: (4, B, A), from 0 up to 1: area, logarithm of the ratio, row and column.
    """
    height, width = images.shape[2:]
    low, high = map(math.log, ERASED_RATIO)
    area = (ERASED_AREA[0] + numbers[0] * (ERASED_AREA[1] - ERASED_AREA[0])) * (height * width)
    ratio = (low + numbers[1] * (high - low)).exp()
    tall, wide = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    tall, wide = tall.gather(1, first), wide.gather(1, first)
    top = _whole(numbers[2].gather(1, first), height - tall)
    left = _whole(numbers[3].gather(1, first), width - wide)
    inside = _between(top, tall, height).unsqueeze(2) & _between(left, wide, width).unsqueeze(1)
    hit = inside & (which & fits.any(1)).view(-1, 1, 1)
    return images.masked_fill(hit.unsqueeze(1), 0)


def _whole(share: Tensor, most: Tensor) -> Tensor:
    """A whole number from 0 to `most`, of one from 0 up to 1; (B, 1)."""
    return (share * (most + 1)).floor().minimum(most)


def _between(first: Tensor, length: Tensor, size: int) -> Tensor:
    """Which of `size` places lie in a stretch: (B, 1) and (B, 1) to (B, size)."""
    place = torch.arange(size, device=first.device)
    return (place >= first) & (place < first + length)


def pasted(images: Tensor, others: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """A rectangle of other images put over these.

    Args:
        images: (B, C, H, W); `others` likewise.
        box: top, left, bottom, right.
    """
    top, left, bottom, right = box
    result = images.clone()
    result[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return result
