"""A split on the device, scaled once: batches are rows taken by index, no loader in between.

Shapes: N rows, B batch, K columns of all blocks together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fusionrun.data.load import Rows
from fusionrun.models.experts import Expert


@dataclass(frozen=True)
class Slot:
    """Where one expert's input stands in the table: columns `start` to `stop`, as `shape`."""

    start: int
    stop: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """What one step reads: each expert's scaled input (B, *shape), and labels (B,)."""

    inputs: list[Tensor]
    labels: Tensor


class Table:
    """Every expert's scaled input as columns of one matrix, so that one gather makes a batch.

    Experts whose scaled input is the same (one view, one scaling) share their columns.

    Args:
        rows: raw views (N, *view) and labels (N,) of one split.
        experts: the expert modules by name, on the device; they do the scaling.
        views: each expert's view.
        device: where the table lives.
    """

    def __init__(
        self,
        rows: Rows,
        experts: Mapping[str, Expert],
        views: Mapping[str, str],
        device: torch.device,
    ) -> None:
        blocks: list[Tensor] = []
        self.slots: list[Slot] = []
        for name, expert in experts.items():
            raw = torch.from_numpy(np.ascontiguousarray(rows.views[views[name]])).to(device)
            scaled = expert.scale(raw)
            self.slots.append(_place(scaled.flatten(1), tuple(scaled.shape[1:]), blocks))
        self.matrix = torch.cat(blocks, dim=1)
        self.labels = torch.from_numpy(rows.labels).to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> Batch:
        """The rows of a batch: `indices` (B,), int64, on the table's device. B may be 0."""
        taken = self.matrix.index_select(0, indices)
        return Batch(self._inputs(taken), self.labels.index_select(0, indices))

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All rows as they stand, for evaluation."""
        for start in range(0, len(self), batch_size):
            stop = start + batch_size
            yield Batch(self._inputs(self.matrix[start:stop]), self.labels[start:stop])

    def _inputs(self, taken: Tensor) -> list[Tensor]:
        return [
            taken[:, slot.start : slot.stop].view(len(taken), *slot.shape)
            if len(slot.shape) > 1
            else taken[:, slot.start : slot.stop]
            for slot in self.slots
        ]


def _place(block: Tensor, shape: tuple[int, ...], blocks: list[Tensor]) -> Slot:
    """Put a block at the end, unless it stands there already."""
    start = 0
    for other in blocks:
        if other.shape == block.shape and torch.equal(other, block):
            return Slot(start, start + other.shape[1], shape)
        start += other.shape[1]
    blocks.append(block)
    return Slot(start, start + block.shape[1], shape)


def epoch_order(rows: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """The order of rows in an epoch: a pure function of seed and epoch, the same on any device.

    Returns:
        (N,) int64.
    """
    generator = torch.Generator().manual_seed(_mixed(seed, epoch))
    return torch.randperm(rows, generator=generator).to(device)


def _mixed(seed: int, epoch: int) -> int:
    """One 63-bit number of two, so that (0, 1) and (1, 0) have nothing in common."""
    words = np.random.SeedSequence([seed, epoch]).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1


def spans(rows: int, batch_size: int) -> Sequence[tuple[int, int]]:
    """Start and stop of each batch of an epoch; the last may be shorter, and is used."""
    return [(start, min(start + batch_size, rows)) for start in range(0, rows, batch_size)]
