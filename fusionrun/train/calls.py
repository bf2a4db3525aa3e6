"""What moves at which rate, in as few calls of the optimizer as that takes.

Owns the optimizer's moments and the step counters. Decides neither when a step is taken nor by
what gradient; the memory of both weights and gradients is the updater's.

Shapes: N numbers of all parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from fusionrun.train.optimizer import Call, Counter, OptimizerSettings, optimize
from fusionrun.train.update_rules import scales_of

__all__ = ["Calls", "Span"]

_FUSED_DEVICES: Final = ("cpu", "cuda")


class Span(NamedTuple):
    """A stretch of the memory that moves at one rate.

    Attributes:
        start: first number; `end` the one behind its last.
        counter: what counts its steps.
        rate: its learning rate.
        weight_decay: its own.
    """

    start: int
    end: int
    counter: Counter
    rate: float
    weight_decay: float


class Calls:
    """The optimizer on slices of one stretch of memory.

    Args:
        settings: of the optimizer.
        flat: (N,), the weights.
        grad: (N,), their gradients.
        counters: all that spans will ever count by.
    """

    def __init__(
        self,
        settings: OptimizerSettings,
        flat: Tensor,
        grad: Tensor,
        counters: Collection[Counter],
    ) -> None:
        self.settings, self._flat, self._grad = settings, flat, grad
        self.moments = {name: torch.zeros_like(flat) for name in settings.moments}
        can_fuse = flat.device.type in _FUSED_DEVICES
        self.fused = can_fuse if settings.fused is None else settings.fused
        device = flat.device if self.fused else torch.device("cpu")
        names = list(dict.fromkeys(counters))
        # (C,), and each of them by name.
        self.steps = torch.zeros(len(names), device=device)
        self._counters = {name: self.steps[place] for place, name in enumerate(names)}
        self._calls: list[Call] = []
        # Whether the calls know the numbers of steps, each for itself, or `_counters` does.
        self._calls_count = False
        self.spans: tuple[Span, ...] = ()
        # What of them a compiled step is made for: all but the rates.
        self.moves: tuple[tuple[int, Counter, float], ...] = ()
        # (K,), of the spans: rate, in float64 as a plain number is, and which counter's steps.
        self._rates = torch.zeros(0, dtype=torch.float64)
        self._places = torch.zeros(0, dtype=torch.int64)

    def set(self, spans: Sequence[Span]) -> None:
        """What moves from now on, in ascending order; what is in no span stays as it is.

        Spans that share counter, rate and weight decay make one call, and those of them that lie
        side by side one slice.
        """
        self.counters()
        self.spans = tuple(spans)
        self.moves = tuple((span.start, span.counter, span.weight_decay) for span in spans)
        rates = [span.rate for span in spans]
        self._rates = self.steps.new_tensor(rates, dtype=torch.float64)
        places = [list(self._counters).index(span.counter) for span in spans]
        self._places = self.steps.new_tensor(places, dtype=torch.int64)
        alike: dict[tuple[Counter, float, float], list[tuple[int, int]]] = {}
        for start, end, *kind in spans:
            _append(alike.setdefault(tuple(kind), []), start, end)  # type: ignore[arg-type]
        self._calls = [self._call(*kind, cuts) for kind, cuts in alike.items()]
        self._calls_count = True

    def step(self, left_out: Tensor, *, all_of_them: bool) -> None:
        """Moves the weights by their gradients.

        Args:
            left_out: (), 1 where nothing is to move after all.
            all_of_them: also those that wait for the end of a window.
        """
        if not self._calls_count:
            self._spread_counters()
        # Only a fused optimizer can be told on the device.
        if not self.fused and left_out.item():
            return
        for call in self._calls:
            if all_of_them or not call.counter.waits:
                optimize(self.settings, call, left_out if self.fused else None)

    def counters(self) -> dict[Counter, Tensor]:
        """Steps so far, () each. Whoever writes them moves weights by another hand, or puts back
        what was saved: the next `step` goes on from there.
        """
        if self._calls_count:
            for call in self._calls:
                self._counters[call.counter].copy_(call.steps[0])
            self._calls_count = False
        return self._counters

    def scales(self) -> Tensor:
        """(3, K): what the next step of each span is scaled by, see `update_rules`."""
        self.counters()
        steps = self.steps.index_select(0, self._places) + 1
        return scales_of(self.settings, self._rates, steps, self._flat)

    def _spread_counters(self) -> None:
        self._calls_count = True
        for call in self._calls:
            for step in call.steps:
                step.copy_(self._counters[call.counter])

    def _call(
        self, counter: Counter, lr: float, weight_decay: float, cuts: list[tuple[int, int]]
    ) -> Call:
        def cut(memory: Tensor) -> list[Tensor]:
            return [memory[start:end] for start, end in cuts]

        moments = [cut(memory) for memory in self.moments.values()]
        steps = [self._counters[counter].clone() for _ in cuts]
        return Call(counter, lr, weight_decay, cut(self._flat), cut(self._grad), moments, steps)


def _append(cuts: list[tuple[int, int]], start: int, end: int) -> None:
    """Adds a stretch behind those before, merged with one it touches."""
    if cuts and cuts[-1][1] == start:
        start = cuts.pop()[0]
    cuts.append((start, end))
