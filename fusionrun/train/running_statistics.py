"""BatchNorm's running statistics, as they were before a step that is left out.

They do not steer training, but evaluation reads them, and they are saved.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["RunningStatistics"]


class RunningStatistics:
    """The running statistics of a network's BatchNorms.

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
