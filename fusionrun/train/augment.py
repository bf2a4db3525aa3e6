"""What happens to a training batch before the step: on the device, all samples at once.

Every sample's share of it depends on the run's seed, the step, and the sample's place in the
whole batch, and on nothing else. So a run that goes on needs no saved state, and several ranks,
each with its rows, do what one rank does with all of them; to mix, a rank takes one row more,
the one before its first.

The order: crop, flip, operations of a policy, noise, erasing, mixing, views dropped. What is drawn
once for all of a sample's images: flip, offset of the crop and operations, so that images of one
scene still fit each other.

Shapes: B rows of this rank, N rows of the whole batch, E experts, V views, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fusionrun.errors import UserError
from fusionrun.models.experts import Expert
from fusionrun.models.scaler import Scaler
from fusionrun.plan.plan import Plan
from fusionrun.schema.training import Augmentation
from fusionrun.train.draws import Draws
from fusionrun.train.mixing import Mixture, drawn_mixture, soft
from fusionrun.train.pixels import cropped, erased, flipped
from fusionrun.train.policies import changed, policy_of
from fusionrun.train.tables import Batch, Picture, Slot, Table

__all__ = ["Augmenter", "BatchPart", "Reading", "augmenter_of", "batches_of"]

ATTEMPTS = 10
"""Draws of a rectangle to erase, until one fits. Source: torchvision's RandomErasing."""


class BatchPart(NamedTuple):
    """This rank's rows of one batch, in the epoch's order.

    Attributes:
        step: which batch of the run, from 0.
        start: first row of the whole batch; `stop` the one behind its last.
        first: first row of this rank; `end` the one behind its last.
    """

    step: int
    start: int
    stop: int
    first: int
    end: int


@dataclass(frozen=True)
class Reading:
    """What one expert reads.

    Attributes:
        view: its name.
        slot: where a table has it: experts that share view and slot share the augmented input.
        image: (channels, height, width); None: a vector.
        black: (channels, 1, 1), the scaled value of 0; None where there is no image.
        scaler: what scaled an image of bytes; None where there is none.
    """

    view: str
    slot: Slot | Picture
    image: tuple[int, ...] | None = None
    black: Tensor | None = None
    scaler: Scaler | None = None


class Augmenter:
    """Augments the training batches of one run.

    Args:
        settings: what is on, and how much.
        seed: the run's.
        num_classes: C.
        readings: of each expert, in order.
    """

    def __init__(
        self, settings: Augmentation, seed: int, num_classes: int, readings: Sequence[Reading]
    ) -> None:
        self._settings, self._seed, self._num_classes = settings, seed, num_classes
        self._readings = tuple(readings)
        self._views = tuple(dict.fromkeys(reading.view for reading in readings))
        sizes = (reading.image[1:] for reading in readings if reading.image)
        height, width = next(sizes, (0, 0))
        self._size = (height, width) if height else None
        self._mixes = settings.mixup is not None or settings.cutmix is not None

    def batches(self, table: Table, order: Tensor, parts: Sequence[BatchPart]) -> Iterator[Batch]:
        """The augmented batches of an epoch, one after the other.

        Args:
            table: the training split.
            order: (rows,), the epoch's.
            parts: this rank's rows of each batch.
        """
        places = [self._places(part, order.device) for part in parts]
        wanted = (order[p.start : p.stop][own] for p, own in zip(parts, places, strict=True))
        for part, own, batch in zip(parts, places, table.batches(wanted), strict=True):
            yield self._augmented(batch, part, own)

    def _places(self, part: BatchPart, device: torch.device) -> Tensor:
        """Places in the whole batch of the rows that are taken: with mixing the one before, too."""
        if part.first == part.end:
            return torch.empty(0, dtype=torch.int64, device=device)
        first = part.first - part.start - self._mixes
        places = torch.arange(first, part.end - part.start, device=device)
        return places % (part.stop - part.start)

    def _augmented(self, batch: Batch, part: BatchPart, places: Tensor) -> Batch:
        if part.first == part.end:
            return batch
        draws = Draws(self._seed, part.step, places.device)
        rows = part.stop - part.start
        first = part.first - part.start - self._mixes
        changes = _Changes(self._settings, draws, rows, places, first)
        changed = changes.inputs(self._readings, batch.inputs)
        batch = replace(batch, inputs=changed)
        if self._mixes:
            mixture = drawn_mixture(self._settings, draws.numbers("mixing"), self._size)
            batch, places = self._mixed(batch, mixture), places[1:]
        elif self._settings.label_smoothing:
            batch = replace(batch, targets=self._soft(batch))
        return self._some_dropped(batch, draws, rows, places)

    def _mixed(self, batch: Batch, mixture: Mixture | None) -> Batch:
        """Each row with the one before it; the first goes, as it was there for the second."""
        labels, targets = batch.labels, self._soft(batch)
        if mixture is None:
            own = [x[1:] for x in batch.inputs]
            return replace(batch, inputs=own, labels=labels[1:], targets=targets[1:])
        return replace(
            batch,
            inputs=self._inputs_mixed(batch.inputs, mixture),
            labels=mixture.labels(labels[1:], labels[:-1]),
            targets=mixture.targets(targets[1:], targets[:-1]),
        )

    def _inputs_mixed(self, inputs: Sequence[Tensor], mixture: Mixture) -> list[Tensor]:
        mixed = []
        for reading, x in zip(self._readings, inputs, strict=True):
            pixels = x.reshape(-1, *reading.image) if reading.image else x
            mixed.append(mixture.inputs(pixels[1:], pixels[:-1]).reshape(-1, *x.shape[1:]))
        return mixed

    def _soft(self, batch: Batch) -> Tensor:
        dtype = batch.inputs[0].dtype
        return soft(batch.labels, self._num_classes, self._settings.label_smoothing, dtype)

    def _some_dropped(self, batch: Batch, draws: Draws, rows: int, places: Tensor) -> Batch:
        """Views missing in some samples, in none of them all."""
        if not (chance := self._settings.modality_dropout):
            return batch
        views = len(self._views)
        present = draws.uniform("modality_dropout", rows, views) >= chance
        kept = draws.below("modality_dropout, the view that stays", views, rows)
        only = torch.arange(views, device=places.device) == kept.unsqueeze(1)
        present |= only & ~present.any(1, keepdim=True)
        columns = [present[:, self._views.index(reading.view)] for reading in self._readings]
        by_expert = torch.stack(columns, 1)
        own = by_expert[places]
        # The mean over those samples of the whole batch that have the view.
        weight = rows / by_expert.sum(0).clamp(min=1).to(batch.inputs[0].dtype)
        return replace(batch, present=own, weights=(own * weight).T)


@dataclass(frozen=True)
class _Changes:
    """What a step does to each input by itself.

    Attributes:
        settings: what is on.
        draws: the step's.
        rows: N.
        places: (B,), of the inputs' rows in the whole batch.
        first: the first of them, known without asking the device; -1: the last row of all.
    """

    settings: Augmentation
    draws: Draws
    rows: int
    places: Tensor
    first: int

    def inputs(self, readings: Sequence[Reading], inputs: Sequence[Tensor]) -> list[Tensor]:
        """Every expert's, (B, *input_shape) each, changed; what is shared is changed once."""
        done: dict[tuple[str, Slot | Picture], Tensor] = {}
        for reading, x in zip(readings, inputs, strict=True):
            key = (reading.view, reading.slot)
            if key not in done:
                done[key] = self._changed(x, reading)
        return [done[reading.view, reading.slot] for reading in readings]

    def _changed(self, x: Tensor, reading: Reading) -> Tensor:
        shape = x.shape
        if reading.image:
            x = self._moved(x.reshape(-1, *reading.image), reading)
        if self.settings.noise:
            noise = self.draws.normal(f"noise of {reading.view}", self.rows, *x.shape[1:])
            x = x + self.settings.noise * noise[self.places].to(x.dtype)
        if reading.image:
            x = self._erased(x, reading)
        return x.reshape(shape)

    def _moved(self, images: Tensor, reading: Reading) -> Tensor:
        if (padding := self.settings.crop) and reading.black is not None:
            offsets = self.draws.below("crop", 2 * padding + 1, 2, self.rows)
            images = cropped(images, offsets[:, self.places], padding, reading.black)
        if self.settings.flip:
            images = flipped(images, (self.draws.uniform("flip", self.rows) < 0.5)[self.places])
        return self._operated(images, reading)

    def _operated(self, images: Tensor, reading: Reading) -> Tensor:
        """What RandAugment or TrivialAugment makes of them, as bytes in between."""
        policy = policy_of(self.settings, images.shape[2:])
        if policy is None or reading.scaler is None:
            return images
        own = np.arange(self.first, self.first + len(images)) % self.rows
        pixels = reading.scaler.raw(images).round_().clamp_(0, 255)
        for drawn in policy.drawn(self.draws.numbers("operations"), self.rows):
            pixels = changed(pixels, drawn.of(own))
        scaled: Tensor = reading.scaler(pixels)
        return scaled

    def _erased(self, images: Tensor, reading: Reading) -> Tensor:
        if (erasing := self.settings.random_erasing) is None:
            return images
        chance = self.draws.uniform(f"whether to erase in {reading.view}", self.rows)
        where = self.draws.uniform(f"what to erase in {reading.view}", 4, self.rows, ATTEMPTS)
        which = (chance < erasing.probability)[self.places]
        return erased(images, which, where[:, self.places])


def batches_of(
    table: Table, order: Tensor, parts: Sequence[BatchPart], augmenter: Augmenter | None
) -> Iterator[Batch]:
    """This rank's rows of each batch, augmented where there is an augmenter."""
    if augmenter is None:
        return table.batches(order[part.first : part.end] for part in parts)
    return augmenter.batches(table, order, parts)


def augmenter_of(plan: Plan, table: Table, experts: Mapping[str, Expert]) -> Augmenter | None:
    """The augmenter of a run's training split; None where nothing is on.

    Raises:
        UserError: a policy for images that are not bytes.
    """
    settings = plan.settings.augmentation
    if not settings.is_on:
        return None
    readings = []
    for slot, (name, expert) in zip(table.slots, experts.items(), strict=True):
        view = plan.settings.experts[name].view
        shape = plan.data.views[view]
        if len(shape) == 3:
            nothing = torch.zeros(shape[0], 1, 1, device=table.labels.device)
            scaler = slot.scaler if isinstance(slot, Picture) else None
            if scaler is None and (settings.randaugment or settings.trivialaugment):
                raise UserError(_NOT_BYTES.format(view=view))
            readings.append(Reading(view, slot, shape, expert.scaler(nothing), scaler))
        else:
            readings.append(Reading(view, slot))
    return Augmenter(settings, plan.seed, len(plan.data.classes), readings)


_NOT_BYTES = (
    "augmentation: got randaugment or trivialaugment with view {view!r}, whose images are no "
    "bytes; expected whole numbers from 0 to 255 as uint8, which the operations are made for: "
    "store the view as uint8, or leave the operations out"
)
