"""One training step: forward, loss, backward, update. Nothing is read back from the device.

Shapes: B batch, E experts, C classes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fusionrun.models.network import FusionNetwork
from fusionrun.train.losses import LossSettings, loss_terms
from fusionrun.train.norms import StepRecord
from fusionrun.train.tables import Batch
from fusionrun.train.updates import Updater

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class StepLog(NamedTuple):
    """What a step leaves for the epoch's end, still on the device.

    Attributes:
        terms: the loss terms, in the order of `losses.term_names`.
        experts: (E, B), the class that each head chose.
        overall: (B,), the class that the global head chose.
        record: norms of the groups that stepped, or None.
        samples: B.
    """

    terms: Tensor
    experts: Tensor
    overall: Tensor
    record: StepRecord | None
    samples: int


@dataclass(frozen=True)
class Step:
    """The step of one run.

    Attributes:
        network: in training mode.
        updater: owns the network's parameters.
        losses: weights of the terms.
        precision: float32, bf16 or fp16: of the forward pass.
        device: where everything is.
    """

    network: FusionNetwork
    updater: Updater
    losses: LossSettings
    precision: str
    device: torch.device

    def __call__(self, batch: Batch, last_in_epoch: bool) -> StepLog:
        """Take one batch.

        Args:
            batch: scaled inputs and labels.
            last_in_epoch: closes the experts' accumulation window.
        """
        with autocast(self.precision, self.device):
            outputs = self.network(batch.inputs)
        terms = loss_terms(outputs.expert_logits, outputs.global_logits, batch.labels, self.losses)
        self.updater.scale(terms.total).backward()  # type: ignore[no-untyped-call]
        record = self.updater.after_backward(last_in_epoch)
        return StepLog(
            terms.log,
            outputs.expert_logits.argmax(-1),
            outputs.global_logits.argmax(-1),
            record,
            len(batch.labels),
        )


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass in a recipe's precision."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])
