"""Random numbers that a run can draw again: functions of its seed and of where it stands.

Nothing here touches torch's global generators, and nothing is remembered from one step to the
next: so a run that goes on draws what it would have drawn, and every rank what one would draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

__all__ = ["Draws", "mixed"]


def mixed(*words: int) -> int:
    """One 63-bit number of several, so that (0, 1) and (1, 0) have nothing in common."""
    state = np.random.SeedSequence(words).generate_state(2, np.uint32)
    return int(state[0]) << 31 | int(state[1]) >> 1


@dataclass(frozen=True)
class Draws:
    """What one step draws, for its whole batch.

    Each purpose has a stream of its own, which begins anew whenever it is asked for: turning one
    augmentation on changes no number of another.

    Attributes:
        seed: the run's.
        step: counted from 0 over all epochs.
        device: where tensors are drawn. The numbers depend on its type.
    """

    seed: int
    step: int
    device: torch.device

    def numbers(self, purpose: str) -> np.random.Generator:
        """For what the whole batch has in common: decided here, so that no device is waited for."""
        return np.random.default_rng(self._seed(purpose))

    def stream(self, purpose: str) -> torch.Generator:
        """For what each sample has for itself, on the device."""
        return torch.Generator(self.device).manual_seed(self._seed(purpose))

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """Float32 numbers from 0 up to 1."""
        return torch.rand(shape, generator=self.stream(purpose), device=self.device)

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Float32 numbers of mean 0 and deviation 1."""
        return torch.randn(shape, generator=self.stream(purpose), device=self.device)

    def below(self, purpose: str, high: int, *shape: int) -> Tensor:
        """Whole numbers from 0 up to, not including, `high`."""
        stream = self.stream(purpose)
        return torch.randint(high, shape, generator=stream, device=self.device)

    def _seed(self, purpose: str) -> int:
        # (never 0, which numpy would not tell from no third word: that is an epoch's order)
        return mixed(self.seed, self.step, crc32(purpose.encode()) | 1 << 32)
