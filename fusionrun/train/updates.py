"""From gradients to new weights: accumulate, clip, step, for each component by itself.

All trainable parameters lie in one stretch of memory, component after component, and their
gradients in another of the same layout; the modules' parameters are views into them. So a step
takes a handful of calls whatever the number of layers: one norm for each clip group, one
multiplication, one optimizer call for all components that share rate and decay, one zeroing.
With several ranks there is one call more, before all that: the sum of the gradients that step
now, over the ranks. What waits in a window is summed once, when the window closes; where the two
paths are kept apart (`train.paths`), they are summed and joined at every batch.

Owns that memory, the optimizer's moments and the loss scale of float16. Never reads a value back
from the device and never decides a rate. Results equal those of plain `torch.optim` with a
`clip_grad_norm_` for each group, to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fusionrun.errors import TrainingError
from fusionrun.schema.training import Combination
from fusionrun.train.buffers import Allocate, ClipGroup, common_type, lay_out, own_memory
from fusionrun.train.calls import Calls, Span
from fusionrun.train.loss_scale import LossScale
from fusionrun.train.matching import same_names, same_state
from fusionrun.train.norms import NormSummary, StepRecord, by_group, summary
from fusionrun.train.optimizer import Counter, OptimizerSettings
from fusionrun.train.paths import PathGradients
from fusionrun.train.ranks import SINGLE, Ranks

__all__ = ["Updater"]


class _Due(NamedTuple):
    """What a step handles, looked up once: only the groups of every batch, or all of them."""

    groups: tuple[ClipGroup, ...]
    grads: list[Tensor]
    whole: Tensor
    limits: Tensor | None


class Updater:
    """Turns the gradients of one backward a batch into steps of every component.

    Groups that accumulate step at every `accumulation`-th batch and at the epoch's end, their
    gradient divided by the number of batches really in the window; the others at every batch.
    Building it moves the modules' parameters: do so after `.to(device)`.

    A parameter that no loss reaches has a gradient of zero here, not None, and so still decays:
    freeze what must not move (the heads, where neither λ nor distillation trains them).

    Args:
        components: module by component name. Parameters that want no gradient are left out, and
            a component without others never steps.
        groups: every component in exactly one of them.
        optimizer: type and numbers of the optimizer.
        weight_decay: by component name.
        accumulation: batches in a full window, at least 1.
        loss_scale: for float16; `backward` is then called on the loss times its value.
        max_skipped: steps with a gradient that is not finite that may be left out. One more, and
            every step from there on is left out: the weights stay what they were before it.
        ranks: those that train together. Each calls `backward` on its own part of the batch's
            loss, parts that add up to the whole, and all call `after_backward` alike; norms,
            steps and weights are then the same on all. They must begin with the same weights.
        frozen_epochs: by component name, for how long it takes no step at first; none: from the
            first batch on. Components that begin to step together count their steps together.
        combination: how the gradients of the two paths meet on an expert, see `train.paths`. All
            but `sum` join them at every batch, over all ranks; what is joined is accumulated.
        rate_factors: by component, what parameters multiply its rate by; 1 where not named.
        allocate: gives the memory: several runs that train together have theirs side by side.

    Raises:
        ValueError: components, groups and decays do not match, two components share a parameter,
            or parameters differ in type or device.
    """

    def __init__(
        self,
        components: Mapping[str, nn.Module],
        groups: Sequence[ClipGroup],
        optimizer: OptimizerSettings,
        weight_decay: Mapping[str, float],
        accumulation: int = 1,
        loss_scale: LossScale | None = None,
        ranks: Ranks = SINGLE,
        max_skipped: int = 0,
        frozen_epochs: Mapping[str, int] | None = None,
        combination: Combination = "sum",
        rate_factors: Mapping[str, Mapping[str, float]] | None = None,
        allocate: Allocate = own_memory,
    ) -> None:
        if accumulation < 1:
            raise ValueError(f"accumulation: expected 1 or more, got {accumulation}")
        # Those that accumulate come first, so that what steps at every batch is one stretch.
        ordered = self._ordered = sorted(groups, key=lambda group: not group.accumulates)
        same_names("groups", [name for group in ordered for name in group.components], components)
        same_names("weight_decay", weight_decay, components)
        self._weight_decay = dict(weight_decay)
        self._accumulation = accumulation
        self._loss_scale = loss_scale
        self.ranks = ranks
        self._max_skipped = max_skipped
        self._frozen_epochs = {name: (frozen_epochs or {}).get(name, 0) for name in components}
        self._pending = 0
        self._has_rates = False
        # Whether a step leaves gradients of zero, for the next backward to add to; else that must
        # overwrite those of all parameters.
        self.clears = True
        self.buffers = lay_out(components, ordered)
        factors = rate_factors or {}
        self.stretches = {name: b.spans(factors.get(name, {})) for name, b in self.buffers.items()}
        self._allocate(optimizer, allocate)
        self.groups = tuple(group for group in ordered if self.grad[self.place(group)].numel())
        self._all = self._due(self.groups)
        self._every_batch = self._due([group for group in self.groups if not group.accumulates])
        self._shares: dict[int, Tensor] = {}
        # What takes in the two paths' gradients; None: `backward` adds their sum to `grad`.
        apart = combination != "sum"
        self.paths = PathGradients(combination, self.buffers, self.grad, ranks) if apart else None

    def _allocate(self, optimizer: OptimizerSettings, allocate: Allocate) -> None:
        parameters = [p for buffer in self.buffers.values() for p in buffer.parameters.values()]
        dtype, device = common_type(parameters)
        size = max((buffer.end for buffer in self.buffers.values()), default=0)
        self.flat, self.grad = allocate(size, dtype, device)
        for buffer in self.buffers.values():
            buffer.attach(self.flat, self.grad)
        counters = [self._counter(g, name) for g in self._ordered for name in g.components]
        self.calls = Calls(optimizer, self.flat, self.grad, counters)
        if self._loss_scale is not None and not self.calls.fused:
            raise ValueError("a loss scale needs a fused optimizer: only that can skip on overflow")
        self._overflowed = torch.zeros((), device=device)
        self.nonfinite = torch.zeros((), device=device)
        # Whether the last step was left out: 1 or 0.
        self.left_out = torch.zeros((), device=device)

    @property
    def has_windows(self) -> bool:
        """Whether any group waits for the end of a window."""
        return any(map(self.waits, self.groups))

    def waits(self, group: ClipGroup) -> bool:
        """Whether some batches pass without a step of the group."""
        return group.accumulates and self._accumulation > 1

    def _counter(self, group: ClipGroup, name: str) -> Counter:
        return Counter(self.waits(group), self._frozen_epochs[name])

    def place(self, group: ClipGroup) -> slice:
        """Where a clip group lies in the memory; its components are side by side."""
        own = [self.buffers[name] for name in group.components]
        return slice(own[0].start, own[-1].end)

    def _due(self, groups: Sequence[ClipGroup]) -> _Due:
        grads = [self.grad[self.place(group)] for group in groups]
        start = self.place(groups[0]).start if groups else self.grad.numel()
        limits = [math.inf if g.max_norm is None else g.max_norm for g in groups]
        bounded = any(math.isfinite(limit) for limit in limits)
        return _Due(
            tuple(groups),
            grads,
            self.grad[start:],
            self.grad.new_tensor(limits) if bounded else None,
        )

    @property
    def pending_batches(self) -> int:
        """Batches in the window that has not stepped yet."""
        return self._pending

    def due(self, closes: bool) -> tuple[ClipGroup, ...]:
        """The groups that step at a batch, by whether it closes the window."""
        return (self._all if closes else self._every_batch).groups

    def closes(self, last_in_epoch: bool) -> bool:
        """Whether the next batch closes the window."""
        return last_in_epoch or self._pending + 1 == self._accumulation

    def takes(self, last_in_epoch: bool) -> tuple[bool, bool, int]:
        """Counts a batch whose step is taken by another hand (`train.engines`).

        Returns:
            Whether the batch opens its window, whether it closes it, and which it is in it, from 1.
            Where nothing waits for a window's end, experts that are frozen say, each is one.
        """
        number, closes = self._pending + 1, self.closes(last_in_epoch)
        self._pending = 0 if closes else number
        if not self.has_windows:
            return True, True, 1
        return number == 1, closes, number

    @property
    def implementation(self) -> str:
        """How the optimizer is carried out: its bits depend on it."""
        return "fused" if self.calls.fused else "foreach"

    def nonfinite_steps(self) -> int:
        """Steps so far with a gradient that was not finite. Reads from the device.

        Under a loss scale an overflow is no such step: the scale answers for it.
        """
        return int(self.nonfinite.item())

    @property
    def max_skipped(self) -> int:
        """How many such steps may be left out."""
        return self._max_skipped

    def set_rates(self, rates: Mapping[str, float | None]) -> None:
        """Sets the learning rate of every component, from the next step on.

        One whose rate is None is frozen: no step, no decay, moments and count stay. What shares
        rate, factor included, and weight decay is put into one optimizer call, and what of it lies
        side by side into one slice.

        Raises:
            ValueError: a component is missing or unknown.
        """
        same_names("rates", rates, self.buffers)
        self.calls.set([span for g in self.groups for span in self._spans(g, rates)])
        self._has_rates = True

    def _spans(self, group: ClipGroup, rates: Mapping[str, float | None]) -> Iterator[Span]:
        """What of a group moves."""
        for name in group.components:
            if (rate := rates[name]) is not None:
                counter, decay = self._counter(group, name), self._weight_decay[name]
                for factor, start, end in self.stretches[name]:
                    yield Span(start, end, counter, rate * factor, decay)

    def after_backward(self, last_in_epoch: bool = False) -> StepRecord | None:
        """Takes in the batch whose gradients `backward` has just added, and steps what is due.

        Args:
            last_in_epoch: closes the window even if it is not full.

        Returns:
            The norms of the groups that stepped; None where none did.

        Raises:
            TrainingError: no rates were set; or, at the epoch's end, a parameter has left the
                updater's memory.
            RankError: another rank was lost.
        """
        if not self._has_rates:
            raise TrainingError("the updater has no learning rates: call set_rates() first")
        if self.paths is not None:
            self.paths.join()
        closes = self.closes(last_in_epoch)
        self._pending += 1
        due = self._all if closes else self._every_batch
        record = self._step(due, closes) if due.groups else None
        if closes:
            self._pending = 0
        if last_in_epoch:
            self.check()
        return record

    def _step(self, due: _Due, closes: bool) -> StepRecord:
        # An overflow on one rank is one in the sum, so that all of them leave the step out.
        if self.paths is None:  # (else it is the whole batch's already)
            self.ranks.sum_(due.whole)
        norms = self._clip(due)
        self.left_out = self._judge(norms)
        self.calls.step(self.left_out, all_of_them=closes)
        if self.clears:
            due.whole.zero_()
        if self._loss_scale is not None:
            # The scale must not change while a window is open: its gradients are added up.
            torch.maximum(self._overflowed, self.left_out, out=self._overflowed)
            if closes:
                self._loss_scale.update(self._overflowed)
                self._overflowed.zero_()
        return StepRecord(tuple(group.name for group in due.groups), norms)

    def _clip(self, due: _Due) -> Tensor:
        """Divides by window and loss scale, and clips, in one multiplication.

        Returns:
            The norms between the two, (groups,).
        """
        norms = torch.stack(torch._foreach_norm(due.grads))
        share: Tensor | None = self._share(due) if self._pending > 1 else None
        if self._loss_scale is not None:
            inverse = self._loss_scale.value.reciprocal().to(norms.dtype)
            share = inverse.expand_as(norms) if share is None else share * inverse
        if share is not None:
            norms = norms * share
        factor = share
        if due.limits is not None:
            factor = (due.limits / (norms + 1e-6)).clamp_(max=1.0)  # as clip_grad_norm_ has it
            if not self.clears:
                # The gaps between parameters are overwritten by nobody: a NaN would stay in them.
                factor.nan_to_num_(0.0)
            factor = factor if share is None else factor.mul_(share)
        if factor is not None:
            torch._foreach_mul_(due.grads, list(factor.unbind()))
        return norms

    def _judge(self, norms: Tensor) -> Tensor:
        """Whether the step must be left out, 1 or 0, decided on the device."""
        # A norm times zero is zero, or it was not finite; so is their sum.
        bad = (norms.sum() * 0).ne(0).to(self.nonfinite.dtype)
        if self._loss_scale is not None:
            return bad
        self.nonfinite += bad
        return torch.maximum(bad, (self.nonfinite > self._max_skipped).to(bad.dtype))

    def _share(self, due: _Due) -> Tensor | None:
        """What each group's gradient is multiplied by: one over its batches, (groups,)."""
        if due is self._every_batch:
            return None
        if self._pending not in self._shares:
            shares = [1.0 / self._pending if g.accumulates else 1.0 for g in due.groups]
            self._shares[self._pending] = self.grad.new_tensor(shares)
        return self._shares[self._pending]

    def check(self) -> None:
        """Raises TrainingError where a module's parameter has left the updater's memory."""
        for buffer in self.buffers.values():
            buffer.check()

    def scale(self, loss: Tensor) -> Tensor:
        """What to call `backward` on: the loss, times the loss scale where there is one."""
        return loss if self._loss_scale is None else loss * self._loss_scale.value

    def summarize(self, records: Iterable[StepRecord | None]) -> dict[str, NormSummary]:
        """What the norms of an epoch come to, by clip group. Reads from the device, once."""
        limits = {group.name: group.max_norm for group in self.groups}
        skips = self._loss_scale is not None or self._max_skipped > 0
        norms = by_group(record for record in records if record is not None)
        return {name: summary(own, limits[name], skips) for name, own in norms.items()}

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """All that the next step depends on beside weights and rates.

        Returns:
            For each component that can step its moments (N,), the number of its steps () for
            Adam and AdamW, and within a window the gradient so far (N,); and `updater`: the
            window's batches, the steps left out, and the loss scale. They are views, to be copied
            before the next step. A component's layout is that of its trainable parameters in
            order, each on a 64-byte boundary.

        Raises:
            TrainingError: within a window of several ranks, each of which then holds a part of
                the gradient that the others do not know.
        """
        if self._pending and self.ranks.size > 1 and self.has_windows:
            raise TrainingError(
                f"the updater's state was asked for within a window, {self._pending} of "
                f"{self._accumulation} batches in, on one of {self.ranks.size} ranks. "
                "Ask where pending_batches is 0"
            )
        counters = self.calls.counters()
        state: dict[str, dict[str, Tensor]] = {}
        for group in self.groups:
            for name in group.components:
                buffer = self.buffers[name]
                own = {key: m[buffer.start : buffer.end] for key, m in self.calls.moments.items()}
                if self.calls.settings.counts_steps:
                    own["step"] = counters[self._counter(group, name)]
                if self._pending and self.waits(group):
                    own["grad"] = buffer.grad
                state[name] = own
        pending = torch.tensor(self._pending)
        state["updater"] = {"pending_batches": pending, "nonfinite": self.nonfinite}
        if self._loss_scale is not None:
            state["updater"] |= {"overflowed": self._overflowed, **self._loss_scale.state_dict()}
        return state

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes back what `state_dict` gave, for the same components and settings.

        Raises:
            ValueError: components, moments or sizes are not those of this updater; it is then
                as it was.
        """
        before = self._pending
        same_names("state", state, self.state_dict())
        self._pending = int(state["updater"]["pending_batches"])
        mine = self.state_dict()
        try:
            for component, own in mine.items():
                same_state(component, state[component], own)
        except ValueError:
            self._pending = before
            raise
        self.grad.zero_()
        for component, own in mine.items():
            for key, tensor in own.items():
                tensor.copy_(state[component][key])
