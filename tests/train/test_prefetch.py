"""Batches that are made ahead of need."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from fusionrun.train.prefetch import NUM_AHEAD, Prefetch

CPU = torch.device("cpu")
ROWS = torch.arange(60).view(20, 3)


def rows_of(indices: Tensor) -> Tensor:
    return ROWS.index_select(0, indices)


def test_batches_come_in_the_order_in_which_they_were_asked_for() -> None:
    wanted = [torch.tensor(own, dtype=torch.int64) for own in ([3, 1], [], [19], [0, 0, 7], [4])]
    prefetch = Prefetch(rows_of, CPU)
    found = list(prefetch.batches(wanted))
    assert [batch.tolist() for batch in found] == [ROWS[own].tolist() for own in wanted]
    assert torch.equal(prefetch.take(wanted[0]), ROWS[wanted[0]])


def test_some_batches_are_made_ahead_and_no_more() -> None:
    made: list[int] = []
    came = threading.Event()

    def make(indices: Tensor) -> Tensor:
        made.append(int(indices))
        if len(made) == NUM_AHEAD + 1:
            came.set()
        return rows_of(indices)

    batches = Prefetch(make, CPU).batches([torch.tensor([n]) for n in range(20)])
    next(batches)
    assert came.wait(10)
    assert sorted(made) == list(range(NUM_AHEAD + 1))
    assert len(list(batches)) == 19
    assert sorted(made) == list(range(20))


def test_an_error_comes_with_the_batch_that_it_is_in() -> None:
    def make(indices: Tensor) -> Tensor:
        if int(indices) == 1:
            raise ValueError("batch 1")
        return rows_of(indices)

    batches = Prefetch(make, CPU).batches([torch.tensor([n]) for n in range(3)])
    next(batches)
    with pytest.raises(ValueError, match="batch 1"):
        next(batches)
