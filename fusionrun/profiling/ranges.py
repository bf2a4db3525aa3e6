"""Named ranges around the parts of a trainer, for torch's profiler; gone when the block ends.

The trainer's own code knows nothing of them. A method of an object is replaced on that object by
one that opens a range, calls it and closes the range; outside of the block the object is as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import nn
from torch.autograd.profiler import record_function

from fusionrun.models.network import FusionNetwork
from fusionrun.train.bare import BareTrainer
from fusionrun.train.epoch_log import EpochLog

__all__ = [
    "AUGMENTATION",
    "BACKWARD",
    "DATA",
    "FORWARD",
    "LOGGING",
    "LOSSES",
    "UPDATE",
    "WHOLE",
    "Ranges",
    "parts_of",
]

DATA: Final = "data"
AUGMENTATION: Final = "augmentation"
FORWARD: Final = "forward"
LOSSES: Final = "losses"
BACKWARD: Final = "backward"
UPDATE: Final = "clip + optimizer"
LOGGING: Final = "logging"
WHOLE: Final = "the whole step"

# What is called of each kind of part.
_METHODS: Final = {"experts": ("encode",), "stack": ("encode", "judge")}
"""Of a compiled engine, which has no parts to be seen. Not a range: what lies between others."""


def parts_of(network: FusionNetwork) -> dict[str, nn.Module]:
    """What a step's time is told by: the components; of stacked ones the stack, with its heads."""
    stacked = {name for stack in network.stacked for name in stack.components}
    stacks = {f"stack.{'+'.join(stack.names)}": stack for stack in network.stacked}
    components = network.components().items()
    return {**stacks, **{name: module for name, module in components if name not in stacked}}


class Ranges:
    """The ranges of one trainer.

    Args:
        trainer: whose parts are named.
    """

    def __init__(self, trainer: BareTrainer) -> None:
        self._trainer = trainer
        self._open: record_function | None = None
        self._replaced: list[tuple[Any, str]] = []

    @contextmanager
    def on(self) -> Iterator[None]:
        """The ranges are there while the block runs; it must begin between two epochs or steps."""
        self._around_batches(self._trainer.train, DATA)
        if self._trainer.augment is not None:
            self._around_batches(self._trainer.augment, AUGMENTATION)
        if self._trainer.engine == "eager":
            self._around_parts()
        try:
            yield
        finally:
            self._close()
            for thing, method in self._replaced:
                delattr(thing, method)
            self._replaced.clear()

    def _around_parts(self) -> None:
        """A compiler would take the ranges into its graph, or break it: it gets none."""
        step, network = self._trainer.step, self._trainer.step.network
        for name, module in parts_of(network).items():
            for method in _METHODS.get(name.partition(".")[0], ("forward",)):
                self._around(module, method, name)
        self._replace(network, "forward", self._forward)
        self._replace(step.updater, "scale", self._scale)
        self._replace(step.updater, "after_backward", self._after_backward)

    def around_log(self, log: EpochLog) -> None:
        """Likewise around what takes in a step's numbers: every epoch has one of its own."""
        if (log, "add") not in self._replaced:
            self._around(log, "add", LOGGING)

    def _replace(self, thing: Any, method: str, using: Callable[..., Any]) -> None:
        """`using` is called with the method and what the method is called with."""
        original = getattr(thing, method)

        def replacement(*arguments: Any, **named: Any) -> Any:
            return using(original, *arguments, **named)

        setattr(thing, method, replacement)
        self._replaced.append((thing, method))

    def _around(self, thing: Any, method: str, name: str) -> None:
        def ranged(original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
            if not self._trainer.step.network.training:  # of a validation
                return original(*arguments, **named)
            with record_function(name):
                return original(*arguments, **named)

        self._replace(thing, method, ranged)

    def _around_batches(self, thing: Any, name: str) -> None:
        """Around every batch that a generator gives, not around the making of the generator."""

        def ranged(original: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
            batches = iter(original(*arguments))
            while True:
                with record_function(name):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch

        self._replace(thing, "batches", ranged)

    def _forward(self, original: Callable[..., Any], *arguments: Any) -> Any:
        network: FusionNetwork = self._trainer.step.network
        if not network.training:  # of a validation
            return original(*arguments)
        with record_function(FORWARD):
            outputs = original(*arguments)
        self._begin(LOSSES)
        return outputs

    def _scale(self, original: Callable[..., Any], loss: torch.Tensor) -> Any:
        scaled = original(loss)
        self._begin(BACKWARD)
        return scaled

    def _after_backward(self, original: Callable[..., Any], *arguments: Any) -> Any:
        self._close()
        with record_function(UPDATE):
            return original(*arguments)

    def _begin(self, name: str) -> None:
        """Where one range ends and the next begins, and nothing is called."""
        self._close()
        self._open = record_function(name)
        self._open.__enter__()  # type: ignore[no-untyped-call]

    def _close(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None
