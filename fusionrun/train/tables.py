"""A split on the device: batches are rows taken by index, no loader in between.

Numbers are scaled once, beforehand; images stay bytes, a quarter of the size, and are scaled
when a batch is taken.

Shapes: N rows, B batch, K columns of all blocks together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from fusionrun.data.load import Rows
from fusionrun.models.experts import Expert
from fusionrun.models.scaler import Scaler
from fusionrun.train.draws import mixed
from fusionrun.train.images import Encoded, Held, images_of

# Numbers of one view that an evaluation takes at a time: 445 images of 3 × 224 × 224.
MOST_PIXELS = 1 << 26


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
    """What one step reads. All but inputs and labels comes of augmentation alone.

    Attributes:
        inputs: each expert's scaled input (B, *shape).
        labels: (B,); of a mixed sample the one with the larger share.
        targets: (B, C) probabilities, where labels are mixed or smoothed.
        present: (B, E), bool: which views a sample has; None: all of them.
        weights: (E, B), what a sample counts in the mean over those that have an expert's view.
    """

    inputs: list[Tensor]
    labels: Tensor
    targets: Tensor | None = None
    present: Tensor | None = None
    weights: Tensor | None = None

    @property
    def goal(self) -> Tensor:
        """What the loss compares with: targets, or labels where there are none."""
        return self.labels if self.targets is None else self.targets


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
        self.images: dict[str, Held | Encoded] = {}
        self.slots: list[Slot | Picture] = []
        for name, expert in experts.items():
            view = views[name]
            images = self.images.get(view) or images_of(rows.views[view], device)
            if images is not None:
                self.images[view] = images
                self.slots.append(self._picture(view, expert))
                continue
            raw = torch.from_numpy(np.ascontiguousarray(rows.views[view])).to(device)
            scaled = expert.scale(raw)
            self.slots.append(_place(scaled.flatten(1), tuple(scaled.shape[1:]), blocks))
        self.labels = torch.from_numpy(rows.labels).to(device)
        nothing = torch.empty(len(self.labels), 0, device=device)
        self.matrix = torch.cat(blocks, dim=1) if blocks else nothing

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> Batch:
        """The rows of a batch: `indices` (B,), int64, on the table's device. B may be 0."""
        images = {view: held.take(indices) for view, held in self.images.items()}
        return self._batch(indices, images)

    def batches(self, wanted: Iterable[Tensor]) -> Iterator[Batch]:
        """One batch after the other, as `batch` gives them: so that images can be read ahead."""
        indices = list(wanted)
        streams = [held.batches(indices) for held in self.images.values()]
        for own in indices:
            images = (next(stream) for stream in streams)
            yield self._batch(own, dict(zip(self.images, images, strict=True)))

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All rows as they stand, for evaluation; fewer at a time where images are large."""
        largest = max((prod(held.shape[1:]) for held in self.images.values()), default=1)
        rows = torch.arange(len(self), device=self.labels.device)
        return self.batches(torch.split(rows, min(batch_size, max(1, MOST_PIXELS // largest))))

    def _batch(self, indices: Tensor, images: Mapping[str, Tensor]) -> Batch:
        taken = self.matrix.index_select(0, indices)
        return Batch(self._inputs(taken, images), self.labels.index_select(0, indices))

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
                inputs.append(scaled[key].view(len(taken), *slot.shape))
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
    generator = torch.Generator().manual_seed(mixed(seed, epoch))
    return torch.randperm(rows, generator=generator).to(device)


def full_batch(rows: int, batch_size: int) -> int:
    """Samples of an epoch's first batch: none has more."""
    return min(rows, batch_size)


def spans(rows: int, batch_size: int) -> Sequence[tuple[int, int]]:
    """Start and stop of each batch of an epoch; the last may be shorter, and is used."""
    return [(start, min(start + batch_size, rows)) for start in range(0, rows, batch_size)]
