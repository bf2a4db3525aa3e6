"""A rate curve as one line of blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrun.plan.sparkline import sparkline

BLOCKS = "▁▂▃▄▅▆▇█"


def test_height_is_the_share_of_the_largest_number() -> None:
    assert sparkline([0.1 * eighth for eighth in range(1, 9)], 8) == BLOCKS


def test_scale_starts_at_zero_and_not_at_the_smallest_number() -> None:
    assert sparkline([0.5, 1.0], 10) == "▄█"


def test_zero_is_drawn_as_the_lowest_block() -> None:
    assert sparkline([0.0, 1.0], 10) == "▁█"


def test_nothing_but_zeros_is_a_low_line() -> None:
    assert sparkline([0.0, 0.0, 0.0], 10) == "▁▁▁"


def test_constant_rate_is_a_full_line() -> None:
    assert sparkline([1e-4] * 7, 3) == "███"


def test_fewer_numbers_than_columns_are_not_stretched() -> None:
    assert len(sparkline([1.0, 2.0, 3.0], 40)) == 3


@pytest.mark.parametrize(("values", "width"), [([], 10), ([1.0], 0)])
def test_nothing_to_draw_is_an_empty_line(values: list[float], width: int) -> None:
    assert sparkline(values, width) == ""


def test_first_column_is_the_first_number() -> None:
    warmup = [0.125, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert sparkline(warmup, 2) == "▁█"


def test_last_column_reaches_the_end_of_a_fall() -> None:
    fall = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    assert sparkline(fall, 2) == "█▄"


@pytest.mark.parametrize("epoch", range(6, 9))
def test_restart_shows_wherever_it_falls_in_a_column(epoch: int) -> None:
    fall = [1.0, 0.875, 0.75, 0.5, 0.375, 0.25, 0.25, 0.25, 0.25]
    assert sparkline([*fall[:epoch], *fall[: 9 - epoch]], 3) == "█▂█"


def test_waves_shorter_than_a_column_still_show() -> None:
    wave = [1.0, 0.75, 0.5, 0.25]
    assert sparkline(wave * 20, 8) == "█▂█▂█▂█▂"


@given(values=st.lists(st.floats(0.0, 1e6), max_size=300), width=st.integers(1, 80))
def test_line_is_never_wider_than_asked(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == min(width, len(values))


@given(values=st.lists(st.floats(0.0, 1e6), min_size=1, max_size=80))
def test_blocks_rise_and_fall_with_the_numbers(values: list[float]) -> None:
    line = sparkline(values, len(values))
    by_value = [block for _, block in sorted(zip(values, line, strict=True))]
    assert by_value == sorted(by_value, key=BLOCKS.index)
