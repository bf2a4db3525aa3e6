"""One stretch of memory for all trainable parameters, and another for their gradients.

Component after component, in the order of the clip groups; the modules' parameters are views into
it. So whatever handles a component handles one tensor, whatever its number of layers.

Owns that layout and the check that nothing has left it. Knows no optimizer and no rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from fusionrun.errors import TrainingError

__all__ = [
    "Allocate",
    "ClipGroup",
    "ComponentBuffer",
    "clip_groups",
    "common_type",
    "lay_out",
    "own_memory",
]

ALIGNMENT_BYTES: Final = 64
"""Every parameter starts on such a boundary, as torch's own allocations do: the fast kernels of
BLAS and the compiler ask for it. The gaps hold zeros, which no optimizer moves."""


Allocate = Callable[[int, torch.dtype, torch.device], tuple[Tensor, Tensor]]
"""From a size to memory (N,) of zeros for weights, and another for their gradients."""


def own_memory(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of a run that trains by itself: see `Allocate`."""
    weights = torch.zeros(size, dtype=dtype, device=device)
    return weights, torch.zeros_like(weights)


@dataclass(frozen=True)
class ClipGroup:
    """Components that have one norm, and step together.

    Attributes:
        name: what the norm is logged under.
        components: their names.
        max_norm: what the norm is clipped to; None: never clipped, but still measured.
        accumulates: steps once a window of batches, not at every batch.
    """

    name: str
    components: tuple[str, ...]
    max_norm: float | None
    accumulates: bool


def clip_groups(
    experts: Sequence[str], expert_max_norm: float | None, fusion_max_norm: float | None
) -> tuple[ClipGroup, ...]:
    """The contract's groups: each expert with its head; fusion with the global head.

    Args:
        experts: the experts' names, without `experts.`.
        expert_max_norm: what each expert's norm is clipped to.
        fusion_max_norm: what the fusion's norm is clipped to.
    """
    own = [
        ClipGroup(f"experts.{name}", (f"experts.{name}", f"heads.{name}"), expert_max_norm, True)
        for name in experts
    ]
    return (*own, ClipGroup("fusion", ("fusion", "global_head"), fusion_max_norm, False))


class ComponentBuffer:
    """The trainable parameters of one component, as slices of memory that all components share.

    Parameters that want no gradient and a module's buffers stay where they are.

    Args:
        name: the component's.
        module: its parameters are moved by `attach`, never copied again.
        start: where in the shared memory it begins, in numbers.
    """

    flat: Tensor
    """(N,) its numbers, with zeros in the gaps."""
    grad: Tensor
    """(N,) its gradient, likewise."""

    def __init__(self, name: str, module: nn.Module, start: int) -> None:
        self.name = name
        self.parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.start = start
        self.offsets: dict[str, int] = {}
        end = start
        for key, parameter in self.parameters.items():
            self.offsets[key] = end
            step = ALIGNMENT_BYTES // parameter.element_size()
            end += math.ceil(parameter.numel() / step) * step
        self.end = end

    def attach(self, flat: Tensor, grad: Tensor) -> None:
        """Moves the parameters into `flat` and their gradients, zeroed, into `grad`."""
        self.flat, self.grad = flat[self.start : self.end], grad[self.start : self.end]
        for parameter, home, slope in zip(
            self.parameters.values(), self.views(flat), self.views(grad), strict=True
        ):
            home.copy_(parameter.detach())
            parameter.data = home
            parameter.grad = slope

    def views(self, memory: Tensor) -> list[Tensor]:
        """Each parameter's place in memory (N,) of the whole layout, in its own shape."""
        base = int(memory.storage_offset())
        # The strides of a copy: those of the parameter, so that channels_last stays.
        return [
            memory.as_strided(p.shape, torch.empty_like(p).stride(), base + self.offsets[key])
            for key, p in self.parameters.items()
        ]

    def spans(self, factors: Mapping[str, float]) -> list[tuple[float, int, int]]:
        """Factor, start and end of each stretch of parameters that share a factor; 1 if not named.

        Raises:
            ValueError: there is no such parameter.
        """
        if unknown := factors.keys() - self.offsets:
            raise ValueError(f"{self.name}: no parameter {', '.join(sorted(unknown))}")
        bounds = pairwise([*self.offsets.values(), self.end])
        spans: list[tuple[float, int, int]] = []
        for key, (start, end) in zip(self.offsets, bounds, strict=True):
            factor = factors.get(key, 1.0)
            if spans and spans[-1][0] == factor:
                start = spans.pop()[1]
            spans.append((factor, start, end))
        return spans

    def check(self) -> None:
        """Raises TrainingError where a parameter or its gradient no longer lies in the buffer."""
        for key, parameter in self.parameters.items():
            inside = (self.offsets[key] - self.start) * self.flat.element_size()
            if parameter.data_ptr() != self.flat.data_ptr() + inside:
                what, cause = "parameter", "module.to(), or load_state_dict(assign=True)"
            elif parameter.grad is None or parameter.grad.data_ptr() != (
                self.grad.data_ptr() + inside
            ):
                what, cause = "gradient", "zero_grad(): the updater zeroes by itself"
            else:
                continue
            raise TrainingError(
                f"{self.name}: the {what} of {key} has left the updater's memory, "
                f"so no step would reach it; the usual cause is {cause}. "
                "Build the Updater after the last change of that kind"
            )


def lay_out(
    components: Mapping[str, nn.Module], groups: Sequence[ClipGroup]
) -> dict[str, ComponentBuffer]:
    """A buffer for each component, one after the other in the order of the groups."""
    buffers: dict[str, ComponentBuffer] = {}
    owners: dict[int, str] = {}
    end = 0
    for name in (name for group in groups for name in group.components):
        buffer = buffers[name] = ComponentBuffer(name, components[name], end)
        end = buffer.end
        for key, parameter in buffer.parameters.items():
            place = f"{name}: {key}"
            if (other := owners.setdefault(id(parameter), place)) != place:
                raise ValueError(f"two components share a parameter: {other}, and {place}")
    return buffers


def common_type(parameters: Sequence[nn.Parameter]) -> tuple[torch.dtype, torch.device]:
    """The one type and device of all trainable parameters; float32 on the CPU for none.

    Raises:
        ValueError: they differ.
    """
    kinds = {(parameter.dtype, parameter.device) for parameter in parameters}
    if len(kinds) > 1:
        listed = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise ValueError(f"all trainable parameters must have one type and device, got {listed}")
    return kinds.pop() if kinds else (torch.float32, torch.device("cpu"))
