"""Changes of images, each against a plain loop over the samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fusionrun.train.draws import Draws, mixed
from fusionrun.train.pixels import ERASED_AREA, ERASED_RATIO, cropped, erased, flipped, pasted

CPU = torch.device("cpu")
DRAWS = Draws(7, 3, CPU)
IMAGES = torch.arange(6 * 2 * 5 * 7, dtype=torch.float32).view(6, 2, 5, 7) + 1


def test_a_flip_exchanges_left_and_right_of_some() -> None:
    which = torch.tensor([True, False, True, False, False, True])
    expected = [x[:, :, range(6, -1, -1)] if f else x for f, x in zip(which, IMAGES, strict=True)]
    assert torch.equal(flipped(IMAGES, which), torch.stack(expected))


def test_a_crop_is_the_old_size_out_of_a_padded_image() -> None:
    black = torch.tensor([-1.0, -2.0]).view(2, 1, 1)
    offsets = DRAWS.below("crop", 5, 2, 6)
    result = cropped(IMAGES, offsets, 2, black)
    for n, (row, column) in enumerate(offsets.T.tolist()):
        for y in range(5):
            for x in range(7):
                i, j = y + row - 2, x + column - 2
                inside = 0 <= i < 5 and 0 <= j < 7
                expected = IMAGES[n, :, i, j] if inside else black[:, 0, 0]
                assert torch.equal(result[n, :, y, x], expected)


def test_a_rectangle_is_erased_as_by_torchvisions_loop() -> None:
    images = torch.ones(200, 1, 9, 6)
    which = DRAWS.uniform("which", 200) < 0.5
    numbers = DRAWS.uniform("numbers", 4, 200, 3)
    result = erased(images, which, numbers)
    for n in range(200):
        expected = looped(images[n], numbers[:, n]) if which[n] else images[n]
        assert torch.equal(result[n], expected), n


def looped(image: Tensor, numbers: Tensor) -> Tensor:
    """One image, as the loop of torchvision's RandomErasing goes about it."""
    height, width = image.shape[1:]
    low, high = map(math.log, ERASED_RATIO)
    for area_, ratio_, top_, left_ in numbers.T.tolist():
        area = (ERASED_AREA[0] + area_ * (ERASED_AREA[1] - ERASED_AREA[0])) * height * width
        ratio = math.exp(low + ratio_ * (high - low))
        tall, wide = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if tall < height and wide < width:
            top, left = int(top_ * (height - tall + 1)), int(left_ * (width - wide + 1))
            image = image.clone()
            image[:, top : top + tall, left : left + wide] = 0
            return image
    return image


def test_a_box_of_another_image_is_pasted() -> None:
    result = pasted(IMAGES, -IMAGES, (1, 2, 3, 7))
    assert (result < 0).sum() == 6 * 2 * (2 * 5)
    assert torch.equal(result[:, :, 1:3, 2:7], -IMAGES[:, :, 1:3, 2:7])


# --- draws ------------------------------------------------------------------------------------


def test_a_draw_is_a_function_of_seed_step_and_purpose() -> None:
    assert torch.equal(DRAWS.uniform("flip", 4), Draws(7, 3, CPU).uniform("flip", 4))
    others = [Draws(8, 3, CPU), Draws(7, 4, CPU)]
    drawn = [DRAWS.uniform("flip", 4), DRAWS.uniform("crop", 4)]
    drawn += [other.uniform("flip", 4) for other in others]
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 4


def test_a_draw_leaves_the_global_generators_alone() -> None:
    before = torch.get_rng_state()
    DRAWS.normal("noise", 10)
    DRAWS.below("crop", 3, 10)
    DRAWS.numbers("mixing").random()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("words", [(1, 0), (0, 1, 1), (0, 2)])
def test_numbers_mixed_to_one_tell_their_order(words: tuple[int, ...]) -> None:
    assert mixed(0, 1) != mixed(*words)
