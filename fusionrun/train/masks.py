"""What dropout draws, where several runs are computed as one and each has a generator of its own.

A network asks `torch.nn.functional.dropout` for its masks, which draws from torch's one generator.
Here those calls are first listed, by running the network once, then answered with masks that were
drawn beforehand: for each run from its own generator, to the bits that the call would have drawn.

Shapes: R runs; a call's own shape is that of one run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Call", "drawn", "given", "listed"]


class Call(NamedTuple):
    """One call of dropout: the shape of what it gets, and the share it drops."""

    shape: tuple[int, ...]
    p: float


def listed(run: Callable[[], object]) -> list[Call]:
    """The calls that `run` makes, in order; nothing is drawn."""
    calls: list[Call] = []

    def note(x: Tensor, p: float) -> Tensor:
        calls.append(Call(tuple(x.shape), p))
        return x

    with torch.no_grad(), _Instead(note):
        run()
    return calls


def drawn(calls: Sequence[Call], generators: Sequence[torch.Generator]) -> list[Tensor]:
    """(R, *shape) for each call: 0 or 1 / (1 - p), as dropout multiplies by."""
    masks = []
    for shape, p in calls:
        mask = torch.empty((len(generators), *shape))
        for own, generator in zip(mask, generators, strict=True):
            own.bernoulli_(1 - p, generator=generator)
        masks.append(mask.div_(1 - p))
    return masks


def given(masks: Sequence[Tensor]) -> TorchFunctionMode:
    """A context in which calls of dropout take these masks, one after the other."""
    left = iter(masks)
    return _Instead(lambda x, p: x * next(left))


class _Instead(TorchFunctionMode):
    """Answers every call of dropout that would draw."""

    def __init__(self, answer: Callable[[Tensor, float], Tensor]) -> None:
        super().__init__()
        self._answer = answer

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is not F.dropout:
            return function(*args, **(kwargs or {}))
        return self._dropped(*args, **(kwargs or {}))

    def _dropped(
        self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        return self._answer(x, p) if training and p else x
