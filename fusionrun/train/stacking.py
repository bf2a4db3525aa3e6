"""Which experts of a network are computed together, over the memory of its updater.

Equal experts lie side by side there (`in_stacks`), each with its head behind it, so that the same
parameter of all of them is one tensor with a stride: nothing is copied, in or out.

Shapes: S experts of a stack.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from fusionrun.models.network import FusionNetwork
from fusionrun.models.stacked import Stack
from fusionrun.train.updates import Updater

__all__ = ["in_stacks", "stack_experts"]


def in_stacks(network: FusionNetwork, stacks: Sequence[Sequence[str]]) -> list[str]:
    """The experts' names in the order of the updater's memory: those of a stack side by side."""
    together = [name for names in stacks for name in names]
    return [*together, *(name for name in network.names if name not in together)]


def stack_experts(
    network: FusionNetwork, updater: Updater, stacks: Sequence[Sequence[str]]
) -> None:
    """Compute these experts together from now on.

    Args:
        network: whose experts they are.
        updater: holds their parameters, in the order that `in_stacks` gives.
        stacks: names, as `stacks_of` gives them.
    """
    # Their strides are meant; torch wonders at them once.
    warnings.filterwarnings("ignore", "grad and param do not obey", UserWarning)
    experts, heads = network.experts_by_name, dict(zip(network.names, network.heads, strict=True))
    for names in stacks:
        head = heads[names[0]]
        assert isinstance(head, nn.Linear)
        network.stacks.append(Stack(names, experts[names[0]], head, _Across(updater, names)))


class _Across:
    """Gives the same parameter of several experts as one, (S, *shape), in the updater's memory."""

    def __init__(self, updater: Updater, names: Sequence[str]) -> None:
        starts = [updater.buffers[f"experts.{name}"].start for name in names]
        (self._stride,) = {after - before for before, after in pairwise(starts)}
        self._updater, self._size = updater, len(names)

    def __call__(self, parameter: Tensor) -> nn.Parameter:
        """Of one expert's parameter, or its head's."""
        whole = nn.Parameter(self._over(self._updater.flat, parameter))
        whole.grad = self._over(self._updater.grad, parameter)
        return whole

    def _over(self, memory: Tensor, parameter: Tensor) -> Tensor:
        size, strides = (self._size, *parameter.shape), (self._stride, *parameter.stride())
        return memory.as_strided(size, strides, parameter.storage_offset())
