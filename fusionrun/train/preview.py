"""The first batch as training will see it, as a picture for people.

Shapes: B batch, E experts, C channels, H height, W width.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from math import ceil, sqrt
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionrun.data.load import load_data
from fusionrun.errors import UserError
from fusionrun.models.experts import Expert
from fusionrun.models.network import FusionNetwork
from fusionrun.plan.plan import Plan
from fusionrun.train.assemble import make_network
from fusionrun.train.augment import BatchPart, augmenter_of, batches_of
from fusionrun.train.tables import Batch, Table, epoch_order

__all__ = ["ImageGrid", "image_grids", "png"]

MOST_IMAGES = 64
LEAST_SIDE = 56
"""Pixels: smaller images are shown enlarged, each pixel a square."""
GAP = 2
Bytes = NDArray[np.uint8]


class ImageGrid(NamedTuple):
    """The images of one view.

    Attributes:
        view: its name.
        images: (B, H, W, 3), as the first expert that reads it gets them, unscaled.
    """

    view: str
    images: Bytes


def image_grids(plan: Plan) -> list[ImageGrid]:
    """The images of the first training batch, augmented, at most `MOST_IMAGES` of each view.

    Raises:
        UserError: no expert reads images.
        DataError: the data cannot be read.
    """
    views = {name: expert.view for name, expert in plan.settings.experts.items()}
    first: dict[str, str] = {}
    for name, view in views.items():
        if len(plan.data.views[view]) == 3:
            first.setdefault(view, name)
    if not first:
        raise UserError(
            "there is nothing to show: no expert reads a view of images; "
            f"views: {', '.join(dict.fromkeys(views.values()))}"
        )
    rows = load_data(plan.settings.data, plan.data)["train"]
    network = make_network(plan, rows)
    table = Table(rows, network.experts_by_name, views, torch.device("cpu"))
    batch = _first_batch(plan, table, network)
    return [
        ImageGrid(view, _pixels(batch, network, name, plan.data.views[view], view in table.images))
        for view, name in first.items()
    ]


def _first_batch(plan: Plan, table: Table, network: FusionNetwork) -> Batch:
    order = epoch_order(len(table), plan.seed, 0, table.labels.device)
    stop = min(plan.settings.training.batch_size, len(table))
    part = BatchPart(0, 0, stop, 0, stop)
    augmenter = augmenter_of(plan, table, network.experts_by_name)
    return next(batches_of(table, order, [part], augmenter))


def _pixels(
    batch: Batch, network: FusionNetwork, name: str, shape: Sequence[int], are_bytes: bool
) -> Bytes:
    """(B, H, W, 3): what one expert reads, a missing view as the mean that stands for it."""
    place = network.names.index(name)
    scaled = batch.inputs[place].reshape(-1, *shape)
    if batch.present is not None:
        scaled = scaled.masked_fill(~batch.present[:, place].view(-1, 1, 1, 1), 0)
    images = _unscaled(network.experts_by_name[name], scaled[:MOST_IMAGES])
    if not are_bytes:
        low, high = images.aminmax()
        images = (images - low) / (high - low).clamp(min=1e-12) * 255
    images = images if shape[0] == 3 else images[:, :1].expand(-1, 3, -1, -1)
    return images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def _unscaled(expert: Expert, scaled: Tensor) -> Tensor:
    return expert.scaler.raw(scaled)


def png(grids: Sequence[ImageGrid]) -> bytes:
    """All views' images in a picture, one view below the other.

    Raises:
        UserError: Pillow is not there.
    """
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        fix = "pip install 'fusionrun[images]'"
        raise UserError(f"a picture needs Pillow, which is not installed\n  {fix}") from error
    content = io.BytesIO()
    Image.fromarray(_stacked([_tiled(grid.images) for grid in grids])).save(content, "PNG")
    return content.getvalue()


def _tiled(images: Bytes) -> Bytes:
    """(B, H, W, 3) as one (height, width, 3), row by row, white in between."""
    number, height, width, _ = images.shape
    factor = ceil(LEAST_SIDE / min(height, width))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    columns = ceil(sqrt(number))
    tall, wide = height * factor + GAP, width * factor + GAP
    tiles = np.full((ceil(number / columns) * tall, columns * wide, 3), 255, np.uint8)
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        top, left = row * tall, column * wide
        tiles[top : top + tall - GAP, left : left + wide - GAP] = image
    return tiles


def _stacked(grids: Sequence[Bytes]) -> Bytes:
    width = max(grid.shape[1] for grid in grids)
    return np.concatenate(list(_widened(grids, width)))


def _widened(grids: Sequence[Bytes], width: int) -> Iterator[Bytes]:
    for grid in grids:
        missing = width - grid.shape[1]
        yield np.pad(grid, ((0, 0), (0, missing), (0, 0)), constant_values=255)
