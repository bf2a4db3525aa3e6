"""A split on the device: batches are rows taken by index, no loader in between.

Numbers are scaled once, beforehand; images stay bytes, a quarter of the size, and are scaled
when a batch is taken.

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
from fusionrun.models.scaler import Scaler


@dataclass(frozen=True)
class Slot:
    """Where one expert's input stands in the table: columns `start` to `stop`, as `shape`."""

    start: int
    stop: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Picture:
    """Which images one expert reads, as `shape`, and what scales them.

    Experts whose scaling is the same share the first one's scaler, so that a batch is scaled once.
    """

    view: str
    scaler: Scaler
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """What one step reads: each expert's scaled input (B, *shape), and labels (B,)."""

    inputs: list[Tensor]
    labels: Tensor


class Table:
    """Every expert's scaled input as columns of one matrix, so that one gather makes a batch;
    and the images of each view, with a gather of their own.

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
        self.images: dict[str, Tensor] = {}
        self.slots: list[Slot | Picture] = []
        for name, expert in experts.items():
            view = views[name]
            if view not in self.images:
                raw = torch.from_numpy(np.ascontiguousarray(rows.views[view])).to(device)
                if raw.dtype == torch.uint8:
                    self.images[view] = raw
            if view in self.images:
                self.slots.append(self._picture(view, expert))
            else:
                scaled = expert.scale(raw)
                self.slots.append(_place(scaled.flatten(1), tuple(scaled.shape[1:]), blocks))
        self.labels = torch.from_numpy(rows.labels).to(device)
        nothing = torch.empty(len(self.labels), 0, device=device)
        self.matrix = torch.cat(blocks, dim=1) if blocks else nothing

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> Batch:
        """The rows of a batch: `indices` (B,), int64, on the table's device. B may be 0."""
        taken = self.matrix.index_select(0, indices)
        images = {view: bytes_.index_select(0, indices) for view, bytes_ in self.images.items()}
        return Batch(self._inputs(taken, images), self.labels.index_select(0, indices))

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All rows as they stand, for evaluation."""
        for start in range(0, len(self), batch_size):
            stop = start + batch_size
            images = {view: bytes_[start:stop] for view, bytes_ in self.images.items()}
            inputs = self._inputs(self.matrix[start:stop], images)
            yield Batch(inputs, self.labels[start:stop])

    def _picture(self, view: str, expert: Expert) -> Picture:
        """Which scaler serves an expert: that of an earlier one where it does the same."""
        own = expert.scaler
        earlier = (s.scaler for s in self.slots if isinstance(s, Picture) and s.view == view)
        scaler = next((other for other in earlier if _same(other, own)), own)
        return Picture(view, scaler, expert.backbone.input_shape)

    def _inputs(self, taken: Tensor, images: Mapping[str, Tensor]) -> list[Tensor]:
        """Every expert's input: of columns as they are, of images (B, C, H, W) scaled here."""
        scaled: dict[tuple[str, Scaler], Tensor] = {}
        inputs = []
        for slot in self.slots:
            if isinstance(slot, Picture):
                key = (slot.view, slot.scaler)
                if key not in scaled:
                    scaled[key] = slot.scaler(images[slot.view])
                inputs.append(scaled[key].view(-1, *slot.shape))
            else:
                columns = taken[:, slot.start : slot.stop]
                inputs.append(columns.view(len(taken), *slot.shape) if slot.shape[1:] else columns)
        return inputs


def _place(block: Tensor, shape: tuple[int, ...], blocks: list[Tensor]) -> Slot:
    """Put a block at the end, unless it stands there already."""
    start = 0
    for other in blocks:
        if other.shape == block.shape and torch.equal(other, block):
            return Slot(start, start + other.shape[1], shape)
        start += other.shape[1]
    blocks.append(block)
    return Slot(start, start + block.shape[1], shape)


def _same(one: Scaler, other: Scaler) -> bool:
    return torch.equal(one.mean, other.mean) and torch.equal(one.std, other.std)


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
