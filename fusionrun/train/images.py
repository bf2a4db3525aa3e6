"""The images of one view: bytes on the device, bytes beside it, or still encoded in their files.

Which of the three changes no bit of a run, only how long a batch takes.

Shapes: N rows, B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusionrun.data.decode import Pictures, num_processors
from fusionrun.data.load import View
from fusionrun.train.prefetch import Prefetch

# Of the device's free memory: what is left is for weights and activations.
MOST_SHARE = 0.5


class Held:
    """Bytes in memory: on the device where they fit, else on the CPU and carried there by batches.

    Args:
        pixels: (N, C, H, W) uint8.
        device: where batches are wanted.
    """

    def __init__(self, pixels: NDArray[Any], device: torch.device) -> None:
        home = device if fits(pixels.nbytes, device) else torch.device("cpu")
        self.pixels = torch.from_numpy(np.ascontiguousarray(pixels)).to(home)
        self._prefetch = None if home.type == device.type else Prefetch(self._at_home, device)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return tuple(self.pixels.shape)

    def take(self, indices: Tensor) -> Tensor:
        """(B, C, H, W) uint8 on the device, for `indices` (B,)."""
        return (self._prefetch.take if self._prefetch else self._at_home)(indices)

    def batches(self, wanted: Iterable[Tensor]) -> Iterator[Tensor]:
        """One batch after the other."""
        return self._prefetch.batches(wanted) if self._prefetch else map(self._at_home, wanted)

    def _at_home(self, indices: Tensor) -> Tensor:
        return self.pixels.index_select(0, indices.to(self.pixels.device))


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
        self._pictures = pictures
        self._images = ThreadPoolExecutor(num_threads or num_processors())
        self._prefetch = Prefetch(self._decoded, device)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, C, H, W)."""
        return self._pictures.shape

    def take(self, indices: Tensor) -> Tensor:
        """(B, C, H, W) uint8 on the device, for `indices` (B,)."""
        return self._prefetch.take(indices)

    def batches(self, wanted: Iterable[Tensor]) -> Iterator[Tensor]:
        """One batch after the other; the next ones are decoded while one is used."""
        return self._prefetch.batches(wanted)

    def _decoded(self, indices: Tensor) -> Tensor:
        return torch.from_numpy(self._pictures.decoded(indices.tolist(), self._images))


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
