"""BatchNorm's running statistics around a step that is left out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fusionrun.train.running_statistics import RunningStatistics


@pytest.mark.parametrize("left_out", [0.0, 1.0])
def test_a_step_that_is_left_out_leaves_no_trace_in_running_statistics(left_out: float) -> None:
    norm = nn.BatchNorm1d(3)
    statistics = RunningStatistics(norm)
    norm(torch.randn(8, 3))
    before = statistics.copied()
    norm(torch.full((8, 3), math.nan))
    statistics.put_back(before, torch.tensor(left_out))
    assert bool(norm.running_mean is not None and norm.running_mean.isfinite().all()) == left_out
    assert norm.num_batches_tracked is not None
    assert int(norm.num_batches_tracked) == 2 - left_out
