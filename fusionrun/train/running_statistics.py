"""BatchNorm's running statistics, kept the same on all ranks.

They do not steer training, but evaluation reads them, and they are saved. A step moves them by
the statistics of a rank's own rows; their mean over the ranks, weighted by rows, is moved by the
mean of those. One sum of a few hundred numbers a step, and nothing where there is no BatchNorm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fusionrun.train.ranks import Ranks

__all__ = ["RunningStatistics"]


class RunningStatistics:
    """The running statistics of a network's BatchNorms, the same on all ranks before a step.

    Args:
        network: its buffers are written in place. It must not move to another device afterwards.
    """

    def __init__(self, network: nn.Module) -> None:
        norms = [
            norm
            for norm in network.modules()
            if isinstance(norm, _BatchNorm) and norm.track_running_stats
        ]
        moments = [m for norm in norms for m in (norm.running_mean, norm.running_var)]
        self._moments = [moment for moment in moments if moment is not None]
        self._counts = [n.num_batches_tracked for n in norms if n.num_batches_tracked is not None]

    def copied(self) -> list[Tensor]:
        """Copies of them all, for `put_back`."""
        return [buffer.clone() for buffer in (*self._moments, *self._counts)]

    def put_back(self, before: Sequence[Tensor], if_: Tensor) -> None:
        """Makes them what they were where `if_`, (), is not 0: a step that was left out.

        Decided on the device: nothing is read back.
        """
        for buffer, old in zip((*self._moments, *self._counts), before, strict=True):
            buffer.copy_(torch.where(if_.bool(), old, buffer))

    def average(self, ranks: Ranks, share: float) -> None:
        """Replaces them by their mean over the ranks, and the counts by those of rank 0.

        Args:
            ranks: all of them call it.
            share: of the batch that was this rank's; the shares of all add up to 1.
        """
        if ranks.size == 1 or not self._moments:
            return
        buffers = [*self._moments, *self._counts]
        # In float64 a count is exact, and what no rank has changed stays so to the bit.
        own = [buffer.flatten().double() * share for buffer in self._moments]
        # Rank 0 has rows in every batch; others may have missed one.
        own += [count.flatten().double() * ranks.is_first for count in self._counts]
        flat = torch.cat(own)
        ranks.sum_(flat)
        means = torch.split(flat, [buffer.numel() for buffer in buffers])
        for buffer, mean in zip(buffers, means, strict=True):
            buffer.copy_(mean.view_as(buffer))
