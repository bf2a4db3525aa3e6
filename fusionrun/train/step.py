"""One training step: forward, loss, backward, update. Nothing is read back from the device.

With several ranks each takes its own rows of the batch, and what comes of it is what one rank
with the whole batch would get, BatchNorm included (see `fusionrun.train.batch_statistics`).

Shapes: B rows of this rank, E experts, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from fusionrun.models.network import FusionNetwork, Outputs
from fusionrun.train.batch_statistics import WholeBatch, has_batch_norm
from fusionrun.train.loss_weights import LossWeights, loss_weights
from fusionrun.train.losses import LossSettings, LossTerms, loss_terms
from fusionrun.train.norms import StepRecord
from fusionrun.train.running_statistics import RunningStatistics
from fusionrun.train.tables import Batch, Table
from fusionrun.train.updates import Updater

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Ask(NamedTuple):
    """A batch that is to be taken, in the words of `Step.__call__`."""

    batch: Batch
    last_in_epoch: bool
    batch_rows: int | None = None
    known: Mapping[str, Tensor] | None = None


class AskLogits(NamedTuple):
    """A split whose logits are wanted, in its order, of the network in evaluation mode."""

    table: Table


Asks = Ask | AskLogits


class StepLog(NamedTuple):
    """What a step leaves for the epoch's end, still on the device.

    Attributes:
        terms: the loss terms, in the order of `LossWeights.log`: means over this rank's rows,
            0 where it had none.
        experts: (E, B), the class that each head chose.
        overall: (B,), the class that the global head chose.
        record: norms of the groups that stepped, the same on all ranks; or None.
        samples: B, this rank's rows.
    """

    terms: Tensor
    experts: Tensor
    overall: Tensor
    record: StepRecord | None
    samples: int


TakeStep = Callable[[Ask], StepLog]
"""Takes one batch: by a `Step`, or by what does the same otherwise."""
TakeLogits = Callable[[Table], Outputs]
"""Gives the logits of a split: by `evaluate.split_logits`, or by what does the same otherwise."""


@dataclass(eq=False)
class Step:
    """The step of one run.

    Attributes:
        network: in training mode.
        updater: owns the network's parameters, and knows the ranks.
        losses: weights of the terms.
        precision: float32, bf16 or fp16: of the forward pass.
        device: where everything is.
        generator: what dropout draws from; None: torch's own.
    """

    network: FusionNetwork
    updater: Updater
    losses: LossSettings
    precision: str
    device: torch.device
    generator: torch.Generator | None = None

    def __call__(
        self,
        batch: Batch,
        last_in_epoch: bool,
        batch_rows: int | None = None,
        known: Mapping[str, Tensor] | None = None,
    ) -> StepLog:
        """Take one batch. All ranks do so together, also those that have none of its rows.

        Args:
            batch: scaled inputs and labels, augmented: this rank's rows.
            last_in_epoch: closes the experts' accumulation window.
            batch_rows: rows of the whole batch; None: there are no others.
            known: (B, F), features that these experts are known to give for the batch.

        Raises:
            RankError: another rank was lost.
        """
        rows = len(batch.labels)
        share = 1.0 if batch_rows is None else rows / batch_rows
        # A step that is left out must not leave its activations in the running statistics.
        before = self._running_statistics.copied() if self.updater.max_skipped else None
        with self._statistics(rows, rows if batch_rows is None else batch_rows):
            if rows:
                terms, experts, overall = self._backward(batch, share, known)
                log = self.weights.log(terms)
            else:
                log, experts, overall = self._nothing(batch, known)
        record = self.updater.after_backward(last_in_epoch)
        left_out = None if record is None else self.updater.left_out
        self.weights.learn(log, share, left_out)
        if before is not None and left_out is not None:
            self._running_statistics.put_back(before, left_out)
        return StepLog(log, experts, overall, record, rows)

    def weigh(self, losses: LossSettings) -> None:
        """Weigh the terms otherwise from now on; what was learned of the weights begins anew."""
        if losses != self.losses:
            self.losses = losses
            self.__dict__.pop("weights", None)  # (it is made of them when it is asked for)

    def _statistics(self, rows: int, batch_rows: int) -> AbstractContextManager[object]:
        """The context in which BatchNorm sees the whole batch."""
        ranks = self.updater.ranks
        if self._normalises_by_batch and (ranks.size > 1 or batch_rows == 1):
            return WholeBatch(ranks, rows, max(rows, 1), batch_rows)
        return nullcontext()

    def _backward(
        self, batch: Batch, share: float, known: Mapping[str, Tensor] | None
    ) -> tuple[LossTerms, Tensor, Tensor]:
        """Adds the gradients of this rank's `share` of the batch's mean loss."""
        with autocast(self.precision, self.device):
            outputs = self.network(batch.inputs, batch.present, known)
        paths = self.updater.paths
        # Kept apart, both paths begin where the loss ends: at the logits.
        ends = outputs if paths is None else Outputs(*(_end(logits) for logits in outputs))
        terms = loss_terms(
            ends.expert_logits,
            ends.global_logits,
            batch.goal,
            self.losses,
            weights=batch.weights,
            term_weights=self.weights.tensor,
        )
        own = self.updater.scale(terms.total if share == 1 else terms.total * share)
        if paths is None:
            own.backward()  # type: ignore[no-untyped-call]
        else:
            paths.backward(outputs, Outputs(*torch.autograd.grad(own, ends)))
        return terms, outputs.expert_logits.argmax(-1), outputs.global_logits.argmax(-1)

    def _nothing(
        self, batch: Batch, known: Mapping[str, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What a batch without rows leaves: no gradient, terms of 0, no choices.

        Where the others wait for it in a BatchNorm, a row of zeros goes all the way, for nothing.
        """
        if self._normalises_by_batch:
            row = Batch([_one_row(x) for x in batch.inputs], _one_row(batch.labels))
            rows = {name: _one_row(features) for name, features in (known or {}).items()}
            self._backward(row, 0.0, rows)
        experts = len(self.network.names)
        none = torch.empty((experts, 0), dtype=torch.int64, device=self.device)
        log = torch.zeros(self.weights.log_size, dtype=self._log_dtype, device=self.device)
        return log, none, none.new_empty(0)

    @cached_property
    def weights(self) -> LossWeights:
        """What each loss term weighs."""
        like = torch.empty(0, dtype=self._log_dtype, device=self.device)
        return loss_weights(self.network.names, self.losses, like, self.updater.ranks)

    @property
    def _log_dtype(self) -> torch.dtype:
        """Losses are of float32 at least, whatever autocast says."""
        return torch.promote_types(self.updater.flat.dtype, torch.float32)

    @cached_property
    def _running_statistics(self) -> RunningStatistics:
        return RunningStatistics(self.network)

    @cached_property
    def _normalises_by_batch(self) -> bool:
        return has_batch_norm(self.network)


def _end(logits: Tensor) -> Tensor:
    """The same numbers, as the place where a gradient of the loss arrives."""
    return logits.detach().requires_grad_()


def _one_row(empty: Tensor) -> Tensor:
    return empty.new_zeros((1, *empty.shape[1:]))


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass in a recipe's precision."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])
