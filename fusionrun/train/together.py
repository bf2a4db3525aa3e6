"""The steps of several runs as one: forward, losses and backward along a leading axis; and what
their networks say of their validation splits.

Runs whose networks have the same shapes lie one behind the other in memory (`SideBySide`), so that
the same parameter of all of them is one tensor with a stride. What comes of a step is in each
run's own memory, where its own updater clips and steps; everything else of a run, its records,
choices and checkpoints, is its own and does not know of the others.

The losses, of which there are many kinds, are torch.func.vmap over the very function that a run
by itself calls; forward is `train.batched_forward`.

Shapes: R runs, E experts, B rows, C classes, N numbers of a run's parameters, T loss terms.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor
from torch.func import vmap

from fusionrun.models.network import FusionNetwork, Outputs
from fusionrun.train.batched_forward import Batches, Parts, forward, is_plain
from fusionrun.train.batched_layers import Layer
from fusionrun.train.buffers import Allocate
from fusionrun.train.evaluate import evaluating
from fusionrun.train.losses import loss_terms
from fusionrun.train.masks import Call, drawn, listed
from fusionrun.train.step import Ask, AskLogits, Asks, Step, StepLog
from fusionrun.train.tables import Batch

__all__ = ["SideBySide", "Together"]

_MOST_KEPT: Final = 4
"""Runs that end leave others together than before; and a short batch may part them for a step."""
_EVALUATION_BATCH: Final = 512
"""Rows of each run, however many runs there are: bits must not depend on that."""


class SideBySide:
    """Memory of several runs, one behind the other.

    Args:
        runs: how many.
    """

    def __init__(self, runs: int) -> None:
        self._runs = runs
        self.weights = self.grads = torch.zeros(0)

    def place_of(self, run: int) -> Allocate:
        """Gives the updater of a run its own memory; all must ask for the same size."""

        def allocate(size: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
            if not self.weights.numel():
                self.weights = torch.zeros(self._runs, size, dtype=dtype, device=device)
                self.grads = torch.zeros_like(self.weights)
            assert size == self.weights.shape[1]
            return self.weights[run], self.grads[run]

        return allocate


class Together:
    """Takes the batches of several runs at once, and judges their splits.

    Args:
        steps: by the run's number; networks of the same shapes.
        memory: that their updaters have by the same numbers.
    """

    def __init__(self, steps: Mapping[int, Step], memory: SideBySide) -> None:
        self._steps, self._memory = dict(steps), memory
        self._across: dict[tuple[int, ...], _Across] = {}
        # Where every batch ends with a step there is nothing to add to.
        self._adds = any(step.updater.has_windows for step in steps.values())
        for step in steps.values():
            step.updater.clears = self._adds
        self._calls: dict[int, list[Call]] = {}

    def __call__(self, asks: Mapping[int, Asks]) -> dict[int, Any]:
        """Take the next batch of some of the runs, or give the logits of their splits.

        What is of one size is one product; where folds differ by a row, their last batches and
        their splits are not.

        Args:
            asks: by the run's number, in ascending order.

        Returns:
            By the same numbers a `StepLog` or `Outputs`.
        """
        alike: dict[Any, dict[int, Any]] = {}
        for run, ask in asks.items():
            alike.setdefault(_kind(ask), {})[run] = ask
        answers: dict[int, Any] = {}
        for own in alike.values():
            steps = isinstance(next(iter(own.values())), Ask)
            answers |= self._taken(own) if steps else self._logits(own)
        return answers

    def one(self, ask: Asks) -> Any:
        """Of a run that is the only one, as `Step` and `split_logits` do: to the same bits as
        beside others, for who goes on with one of them.
        """
        (run,) = self._steps
        return self({run: ask})[run]

    def _taken(self, asks: Mapping[int, Ask]) -> dict[int, StepLog]:
        runs = tuple(asks)
        across, batches = self._of(runs), _side_by_side([ask.batch for ask in asks.values()])
        across.fetch()
        logs, experts, overall = self._backward(runs, across, batches)
        across.bring_back()
        found = {}
        for number, (run, ask) in enumerate(asks.items()):
            updater = self._steps[run].updater
            record = updater.after_backward(ask.last_in_epoch)
            own = (logs[number], experts[number], overall[number])
            found[run] = StepLog(*own, record, len(ask.batch.labels))
        return found

    @torch.no_grad()
    def _logits(self, asks: Mapping[int, AskLogits]) -> dict[int, Outputs]:
        """Of splits with equally many rows."""
        runs = tuple(asks)
        across, network = self._of(runs), self._steps[runs[0]].network
        across.fetch()
        found: list[tuple[Tensor, Tensor]] = []
        with evaluating(network):
            splits = (ask.table.in_order(_EVALUATION_BATCH) for ask in asks.values())
            for batches in zip(*splits, strict=True):
                found.append(forward(network, across.parts, _side_by_side(batches), iter(())))
        experts, overall = zip(*found, strict=True)
        own = zip(torch.cat(experts, dim=2), torch.cat(overall, dim=1), strict=True)
        return {run: Outputs(*logits) for run, logits in zip(runs, own, strict=True)}

    def _of(self, runs: tuple[int, ...]) -> _Across:
        """The parameters of these runs; some of those that were asked for last are kept."""
        if runs not in self._across:
            if len(self._across) == _MOST_KEPT:
                del self._across[next(iter(self._across))]
            network = self._steps[runs[0]].network
            self._across[runs] = _Across(network, self._memory, runs, self._adds)
        return self._across[runs]

    def _backward(
        self, runs: Sequence[int], across: _Across, batches: Batches
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Adds every run's gradient to its own memory.

        Returns:
            The log of the loss terms (R, T), and the classes that heads (R, E, B) and global head
            (R, B) chose.
        """
        steps = [self._steps[run] for run in runs]
        network = steps[0].network
        masks = iter(drawn(self._dropped(network, batches), [_generator(s) for s in steps]))
        logits, overall = forward(network, across.parts, batches, masks)
        mapped: dict[str, Any] = {
            "logits": logits,
            "overall": overall,
            "goal": batches.goal,
            "term_weights": torch.stack([step.weights.tensor for step in steps]),
        }
        if batches.present is not None:
            mapped["weights"] = batches.weights
        totals, logs = vmap(lambda own: _losses(steps[0], own))(mapped)
        # Each run's loss has a gradient of 1: what is not finite in one stays in that one.
        totals.sum().backward()  # type: ignore[no-untyped-call]
        return logs, logits.argmax(-1), overall.argmax(-1)

    def _dropped(self, network: FusionNetwork, batches: Batches) -> list[Call]:
        """What one run by itself would ask of dropout at a batch of that size."""
        rows = batches.inputs[0].shape[1]
        if rows not in self._calls:
            first = [x[0] for x in batches.inputs]
            self._calls[rows] = listed(lambda: network(first))
        return self._calls[rows]


class _Across:
    """The parameters of some of the runs as one, with their gradients.

    Runs at equal distances in memory are views; others are copied, in and out, at every step.

    Args:
        network: of the first of them.
        memory: of all runs.
        runs: the numbers of these.
        adds: whether backward adds to the gradients; else it overwrites them.
    """

    def __init__(
        self, network: FusionNetwork, memory: SideBySide, runs: Sequence[int], adds: bool
    ) -> None:
        self._memory, self._runs = memory, list(runs)
        gaps = {after - before for before, after in pairwise(runs)}
        self._is_copy = len(gaps) > 1
        if self._is_copy:
            self._weights, self._grads = memory.weights[self._runs], memory.grads[self._runs]
        else:
            own = slice(runs[0], runs[-1] + 1, gaps.pop() if gaps else 1)
            self._weights, self._grads = memory.weights[own], memory.grads[own]
        self._first = runs[0] * memory.weights.shape[1]
        parameters = {
            f"{component}.{name}": self._leaf(parameter)
            for component, module in network.components().items()
            for name, parameter in module.named_parameters()
        }
        self.parts = Parts(parameters, dict(_layers(parameters, adds)))
        # Those to which autograd adds, whatever layers do.
        left = () if adds or is_plain(network) else ("fusion.", "global_head.")
        added = (p.grad for name, p in parameters.items() if name.startswith(left))
        self._cleared = [grad for grad in added if grad is not None]

    def _leaf(self, parameter: Tensor) -> Tensor:
        """From a parameter of the first run to the same one of all, with a gradient beside it."""
        # Their strides are meant; torch wonders at them once.
        warnings.filterwarnings("ignore", "grad and param do not obey", UserWarning)
        leaf = self._over(self._weights, parameter).detach().requires_grad_()
        leaf.grad = self._over(self._grads, parameter)
        return leaf

    def _over(self, rows: Tensor, parameter: Tensor) -> Tensor:
        shape, strides = (len(rows), *parameter.shape), (rows.stride(0), *parameter.stride())
        offset = int(rows.storage_offset() + parameter.storage_offset()) - self._first
        return rows.as_strided(shape, strides, offset)

    @torch.no_grad()
    def fetch(self) -> None:
        """Before a step: what the runs' own memory holds."""
        if self._is_copy:
            self._weights.copy_(self._memory.weights[self._runs])
            self._grads.copy_(self._memory.grads[self._runs])
        if self._cleared:
            torch._foreach_zero_(self._cleared)

    def bring_back(self) -> None:
        """After it: the gradients, to the runs' own memory."""
        if self._is_copy:
            self._memory.grads[self._runs] = self._grads


def _layers(parameters: Mapping[str, Tensor], adds: bool) -> Iterator[tuple[str, Layer]]:
    """Those with a weight and a bias, by the module's name."""
    for name, weight in parameters.items():
        layer, dot, kind = name.rpartition(".")
        bias = parameters.get(f"{layer}{dot}bias")
        if kind == "weight" and bias is not None:
            assert weight.grad is not None
            assert bias.grad is not None
            yield layer, Layer(weight, bias, weight.grad, bias.grad, adds)


def _kind(ask: Asks) -> Any:
    """What asks must have in common to be answered as one."""
    if isinstance(ask, AskLogits):
        return AskLogits, len(ask.table)
    return Ask, len(ask.batch.labels), ask.batch.goal.ndim, ask.batch.present is None


def _side_by_side(batches: Sequence[Batch]) -> Batches:
    inputs = [torch.stack(own) for own in zip(*(b.inputs for b in batches), strict=True)]
    goal = torch.stack([batch.goal for batch in batches])
    partial = [(b.present, b.weights) for b in batches if b.present is not None]
    if not partial:
        return Batches(inputs, goal, None, None)
    present, weights = (torch.stack(own) for own in zip(*partial, strict=True))
    inputs = [_without(x, ~present[..., e]) for e, x in enumerate(inputs)]
    return Batches(inputs, goal, present, weights)


def _without(scaled: Tensor, missing: Tensor) -> Tensor:
    """As `models.network` has it: zero where a view is missing (R, B)."""
    return scaled.masked_fill(missing.unsqueeze(-1), 0)


def _generator(step: Step) -> torch.Generator:
    assert step.generator is not None
    return step.generator


def _losses(step: Step, own: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Of one run, under vmap: its loss () and the log of its terms (T,)."""
    weights = (own.get("weights"), own["term_weights"])
    terms = loss_terms(own["logits"], own["overall"], own["goal"], step.losses, *weights)
    return terms.total, terms.log
