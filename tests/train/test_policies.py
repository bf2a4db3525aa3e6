"""RandAugment and TrivialAugment: which operation each sample gets, and its own alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fusionrun.train.policies import OPERATIONS, Policy, Round, changed, randaugment, trivialaugment

SIZE = (28, 20)


def images(rows: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (rows, channels, *SIZE), generator=generator).float()


def drawn(policy: Policy, rows: int = 4000, seed: int = 0) -> Round:
    return next(policy.drawn(np.random.default_rng(seed), rows))


def test_every_operation_comes_as_often_as_any_other() -> None:
    counts = np.bincount(drawn(trivialaugment(), 14_000).operations, minlength=len(OPERATIONS))
    assert len(counts) == 14
    assert (abs(counts - 1000) < 120).all()


def test_one_magnitude_for_all_and_signs_at_even_odds() -> None:
    found = drawn(randaugment(2, 15, SIZE))
    rotations = found.amounts[found.operations == OPERATIONS.index("Rotate")]
    assert set(rotations) == {15.0, -15.0}
    assert 0.35 < (rotations > 0).mean() < 0.65
    shifts = found.amounts[found.operations == OPERATIONS.index("TranslateX")]
    assert abs(shifts) == pytest.approx(150 / 331 * 20 / 2)
    assert set(found.amounts[found.operations == OPERATIONS.index("Posterize")]) == {6.0}


def test_a_magnitude_of_its_own_for_each_sample() -> None:
    found = drawn(trivialaugment(), 14_000)
    for name, values in (("Rotate", 61), ("Solarize", 31), ("Posterize", 7), ("Equalize", 1)):
        own = found.amounts[found.operations == OPERATIONS.index(name)]
        assert len(set(own)) == values, name


def test_as_many_rounds_as_operations_and_each_anew() -> None:
    rounds = list(randaugment(3, 9, SIZE).drawn(np.random.default_rng(0), 50))
    assert len(rounds) == 3
    assert (rounds[0].operations != rounds[1].operations).any()


def test_each_image_gets_what_it_would_get_alone() -> None:
    """To the bit: the batch that a rank has must not matter."""
    x, wanted = images(60), drawn(trivialaugment(), 60)
    whole = changed(x, wanted)
    for row in range(60):
        own = np.array([row])
        assert torch.equal(changed(x[row : row + 1], wanted.of(own)), whole[row : row + 1]), row


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_whole_numbers_of_a_byte_stay_so(channels: int) -> None:
    x, wanted = images(200, channels), drawn(trivialaugment(), 200)
    result = changed(x, wanted)
    assert torch.equal(result, result.round())
    assert result.min() >= 0
    assert result.max() <= 255


def test_identity_and_operations_of_no_strength_change_nothing() -> None:
    x = images(20)
    for name in ("Identity", "ShearX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast"):
        place = OPERATIONS.index(name)
        assert torch.equal(changed(x, Round(np.full(20, place), np.zeros(20))), x), name


def test_an_image_of_one_value_survives_every_operation() -> None:
    x = torch.full((14, 3, *SIZE), 7.0)
    result = changed(x, Round(np.arange(14), np.full(14, 0.5)))
    assert result.isfinite().all()
