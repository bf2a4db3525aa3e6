"""What the steps of one epoch leave, until its end, or a checkpoint, adds them up.

While it goes on nothing is read from the device. An epoch that was cut in two by a checkpoint adds
up to the same bits as one that was not: what is kept of each step are numbers of whole batches.

Shapes: B batch, E experts, n steps, T loss terms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fusionrun.train.norms import NO_STEP, StepRecord
from fusionrun.train.ranks import Ranks
from fusionrun.train.step import StepLog

__all__ = ["EpochLog", "Tally"]


class Tally(NamedTuple):
    """Steps of an epoch, of all ranks together, on the CPU; the numbers are float64.

    Attributes:
        losses: (n, T), each step's loss terms times its samples.
        samples: (n,).
        hits: (1 + E,), how many samples each path got right: the global one, then the experts.
        records: norms of the groups that stepped, of none at some, (n) of them.
    """

    losses: Tensor
    samples: Tensor
    hits: Tensor
    records: tuple[StepRecord, ...]

    def mean_losses(self) -> list[float]:
        """The mean of each loss term over samples, (T,); without batches that taught nothing.

        Those are the ones whose loss was not finite and whose gradient was left out for it.
        """
        lost = [n for n, _ in self.nonfinite() if not self.losses[n].isfinite().all()]
        taught = torch.ones(len(self.samples), dtype=torch.bool)
        taught[lost] = False
        mean: list[float] = (self.losses[taught].sum(0) / self.samples[taught].sum()).tolist()
        return mean

    def nonfinite(self) -> list[tuple[int, tuple[str, ...]]]:
        """The steps with a norm that is not finite, from 0, each with the groups it is of."""
        found: list[tuple[int, tuple[str, ...]]] = []
        if _joined_norms(self.records).isfinite().all():  # (as in every epoch of most runs)
            return found
        for number, record in enumerate(self.records):
            sound = record.norms.isfinite().tolist()
            if groups := tuple(g for g, s in zip(record.groups, sound, strict=True) if not s):
                found.append((number, groups))
        return found

    def accuracy(self) -> list[float]:
        """Share of samples that each path got right, (1 + E,)."""
        share: list[float] = (self.hits / self.samples.sum()).tolist()
        return share

    def joined(self, later: Tally) -> Tally:
        """These steps, then `later` ones."""
        return Tally(
            torch.cat([self.losses, later.losses]),
            torch.cat([self.samples, later.samples]),
            self.hits + later.hits,
            self.records + later.records,
        )

    def packed(self) -> tuple[dict[str, Tensor], list[list[str]]]:
        """As a few tensors, and the combinations of groups that stepped together."""
        kinds = list(dict.fromkeys(record.groups for record in self.records))
        index = {groups: i for i, groups in enumerate(kinds)}
        tensors = {
            "losses": self.losses,
            "samples": self.samples,
            "hits": self.hits,
            "norms": _joined_norms(self.records),
            "kinds": torch.tensor([index[r.groups] for r in self.records], dtype=torch.int64),
        }
        return tensors, [list(groups) for groups in kinds]

    @classmethod
    def unpacked(cls, tensors: Mapping[str, Tensor], kinds: Sequence[Sequence[str]]) -> Tally:
        """Take back what `packed` gave."""
        groups = [tuple(kinds[i]) for i in tensors["kinds"].tolist()]
        records = _split_norms(tensors["norms"], groups)
        return cls(tensors["losses"], tensors["samples"], tensors["hits"], records)


class EpochLog:
    """Collects the steps of one epoch.

    Args:
        tally: the steps before, where the epoch goes on from a checkpoint.
    """

    def __init__(self, tally: Tally | None = None) -> None:
        self._tally = tally
        self._logs: list[StepLog] = []
        self._labels: list[Tensor] = []

    def add(self, log: StepLog, labels: Tensor) -> None:
        """Take in one step and the labels (B,) of its rows; nothing is looked at."""
        self._logs.append(log)
        self._labels.append(labels)

    def tally(self, ranks: Ranks) -> Tally | None:
        """All steps so far, of all ranks, which must all ask; None before the first.

        Reads from the device. Asking changes no later answer.
        """
        if self._logs:
            later = _tally(self._logs, self._labels, ranks)
            self._tally = later if self._tally is None else self._tally.joined(later)
            self._logs, self._labels = [], []
        return self._tally


def _tally(logs: Sequence[StepLog], labels: Sequence[Tensor], ranks: Ranks) -> Tally:
    samples = torch.tensor([log.samples for log in logs], dtype=torch.float64)
    losses = torch.stack([log.terms for log in logs]).to("cpu", torch.float64) * samples[:, None]
    overall = torch.cat([log.overall for log in logs])[None]
    chosen = torch.cat([overall, torch.cat([log.experts for log in logs], dim=1)])
    hits = (chosen == torch.cat(list(labels))).sum(1).to("cpu", torch.float64)
    records = [log.record or NO_STEP for log in logs]
    if ranks.size > 1:
        losses[samples == 0] = 0.0  # a rank without rows has no losses
        losses, samples, hits = _summed(ranks, losses, samples, hits)
    # Norms are those of the whole gradient: the same on all ranks.
    norms = _joined_norms(records).to("cpu")
    return Tally(losses, samples, hits, _split_norms(norms, [record.groups for record in records]))


def _summed(ranks: Ranks, *tensors: Tensor) -> list[Tensor]:
    """Each tensor summed over the ranks, in one go."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    ranks.sum_(flat)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor).clone() for part, tensor in zip(parts, tensors, strict=True)]


def _joined_norms(records: Sequence[StepRecord]) -> Tensor:
    norms = [record.norms for record in records if record.groups]
    return torch.cat(norms) if norms else torch.zeros(0)


def _split_norms(norms: Tensor, groups: Sequence[tuple[str, ...]]) -> tuple[StepRecord, ...]:
    parts = torch.split(norms, [len(names) for names in groups])
    return tuple(StepRecord(*pair) for pair in zip(groups, parts, strict=True))
