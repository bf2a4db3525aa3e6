"""The images of one view: bytes on the device, bytes beside it, or still encoded in their files.

Which of the three changes no bit of a run, only how long a batch takes.

Shapes: N rows, B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionrun.data.decode import Pictures, num_processors
from fusionrun.data.load import View

# Of the device's free memory: what is left is for weights and activations.
MOST_SHARE = 0.5
# Batches that are decoded before they are asked for.
NUM_AHEAD = 2


class Held:
    """Bytes in memory: on the device where they fit, else on the CPU and copied batch by batch.

    Args:
        pixels: (N, C, H, W) uint8.
        device: where batches are wanted.
    """

    def __init__(self, pixels: NDArray[Any], device: torch.device) -> None:
        home = device if fits(pixels.nbytes, device) else torch.device("cpu")
        self.pixels = torch.from_numpy(np.ascontiguousarray(pixels)).to(home)
        self._device = device

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return tuple(self.pixels.shape)

    def take(self, indices: Tensor) -> Tensor:
        """(B, C, H, W) uint8 on the device, for `indices` (B,)."""
        return self.pixels.index_select(0, indices.to(self.pixels.device)).to(self._device)

    def batches(self, wanted: Iterable[Tensor]) -> Iterator[Tensor]:
        """One batch after the other."""
        return map(self.take, wanted)


class Encoded:
    """Images that are decoded when a batch takes them, some batches ahead.

    Args:
        pictures: N of them.
        device: where batches are wanted.
        num_threads: that decode; how many changes nothing but the time.
    """

    def __init__(
        self, pictures: Pictures, device: torch.device, num_threads: int | None = None
    ) -> None:
        self._pictures, self._device = pictures, device
        self._images = ThreadPoolExecutor(num_threads or num_processors())
        self._batches = ThreadPoolExecutor(NUM_AHEAD)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return self._pictures.shape

    def take(self, indices: Tensor) -> Tensor:
        """(B, C, H, W) uint8 on the device, for `indices` (B,)."""
        return self._decoded(indices.tolist()).to(self._device)

    def batches(self, wanted: Iterable[Tensor]) -> Iterator[Tensor]:
        """One batch after the other; the next ones are decoded while one is used."""
        waiting = deque[Future[Tensor]]()
        for indices in wanted:
            waiting.append(self._batches.submit(self._decoded, indices.tolist()))
            if len(waiting) > NUM_AHEAD:
                yield waiting.popleft().result().to(self._device)
        while waiting:
            yield waiting.popleft().result().to(self._device)

    def _decoded(self, rows: Sequence[int]) -> Tensor:
        return torch.from_numpy(self._pictures.decoded(rows, self._images))


def images_of(view: View, device: torch.device) -> Held | Encoded | None:
    """The images of a view, wherever they are; None where it holds other numbers than bytes."""
    if isinstance(view, Pictures):
        return Encoded(view, device)
    return Held(view, device) if view.dtype == np.uint8 else None


def fits(num_bytes: int, device: torch.device) -> bool:
    """Whether a device has room for so many bytes beside a model; the CPU has, or they were not
    there.
    """
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return num_bytes <= MOST_SHARE * free
