"""Each image operation against torchvision's own, image by image, on bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fusionrun.train.policies import OPERATIONS, Policy, Round, changed, randaugment, trivialaugment

SHAPES = [(1, 28, 28), (3, 32, 32), (3, 17, 24)]
# Where torchvision's products are rounded otherwise, one level of 256 on this share of pixels.
MOST_UNLIKE = 0.02
BLENDS = {"Brightness", "Color", "Contrast", "Sharpness"}


def images(channels: int, height: int, width: int) -> Tensor:
    """Noise, and noise of few dark values, whose contrast and histogram are poor."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(
        256, (12, channels, height, width), generator=generator, dtype=torch.uint8
    )
    pixels[6:] //= 9
    return pixels


def theirs(pixels: Tensor, operation: str, amount: float) -> Tensor:
    from torchvision.transforms import v2

    policy = v2.RandAugment()
    settings: dict[str, Any] = {"interpolation": policy.interpolation, "fill": policy._fill}
    apply = policy._apply_image_or_video_transform
    return torch.stack([apply(image, operation, amount, **settings) for image in pixels])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_is_torchvisions(operation: str, shape: tuple[int, int, int]) -> None:
    pixels, place = images(*shape), OPERATIONS.index(operation)
    for policy in (randaugment(1, 9, shape[1:]), trivialaugment()):
        for amount in amounts(policy, operation):
            own = changed(pixels.float(), Round(np.full(12, place), np.full(12, amount)))
            unlike = (own - theirs(pixels, operation, amount).float()).abs()
            assert unlike.max() <= (operation in BLENDS), amount
            assert (unlike > 0).float().mean() < MOST_UNLIKE, amount


def amounts(policy: Policy, operation: str) -> list[float]:
    """Weak, middling and strong, of either sign."""
    if operation not in policy.ranges:
        return [0.0]
    first, last, signed = policy.ranges[operation]
    found = [first + (last - first) * bin_ / 30 for bin_ in (3, 17, 30)]
    found = [float(round(a)) if operation == "Posterize" else a for a in found]
    return [*found, *([-a for a in found] if signed else [])]


@pytest.mark.parametrize("name", ["RandAugment", "TrivialAugmentWide"])
def test_the_ranges_are_torchvisions(name: str) -> None:
    from torchvision.transforms import v2

    height, width = 28, 20
    own = randaugment(2, 9, (height, width)) if name == "RandAugment" else trivialaugment()
    space = getattr(v2, name)._AUGMENTATION_SPACE
    assert tuple(space) == OPERATIONS
    for operation, (magnitudes, signed) in space.items():
        theirs = magnitudes(31, height, width)
        if theirs is None:
            assert operation not in own.ranges
            continue
        first, last, own_sign = own.ranges[operation]
        steps = first + (last - first) * np.arange(31) / 30
        steps = steps.round() if operation == "Posterize" else steps
        np.testing.assert_allclose(steps, theirs, atol=1e-5)
        assert own_sign == signed
