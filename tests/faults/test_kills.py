"""A share of the harness, of every kind of kill; `python -m tests.faults` does all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign, Count
from tests.faults.soak import soak

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    return Campaign(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    return Campaign(tmp_path_factory.mktemp("two"), ranks=2)


def bit_equal(count: Count) -> bool:
    assert count.failures == []
    return count.deaths > 0


def test_killed_before_a_file_operation_it_ends_with_the_same_bits(one: Campaign) -> None:
    assert bit_equal(one.at_boundaries(25))


def test_killed_half_way_through_a_write_it_ends_with_the_same_bits(one: Campaign) -> None:
    assert bit_equal(one.at_boundaries(40, torn=True))


def test_killed_while_old_checkpoints_go_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    every_step = ("training.checkpoints.keep_last=1", "training.checkpoints.every_steps=1")
    assert bit_equal(Campaign(tmp_path, *every_step).at_boundaries(150))


def test_killed_five_times_in_a_row_it_ends_with_the_same_bits(one: Campaign) -> None:
    assert bit_equal(one.in_a_row(2))


def test_killed_at_any_instant_it_ends_with_the_same_bits(one: Campaign) -> None:
    assert bit_equal(one.at_random_instants(8, within_s=0.6))


def test_two_ranks_of_which_the_first_is_killed_end_with_the_same_bits(two: Campaign) -> None:
    assert bit_equal(two.at_boundaries(120))


def test_two_ranks_killed_at_any_instant_end_with_the_same_bits(two: Campaign) -> None:
    assert bit_equal(two.at_random_instants(2, within_s=2.0))


@pytest.mark.long
def test_a_run_hurt_for_a_while_ends_with_the_same_bits(tmp_path: Path) -> None:
    assert bit_equal(soak(tmp_path, 30.0, epochs=800))
