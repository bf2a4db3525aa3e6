"""The factor that keeps float16 gradients from vanishing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["LossScale"]


class LossScale:
    """The factor that keeps float16 gradients from vanishing; the rule of torch.amp.GradScaler.

    Halved when a gradient overflowed (that step is left out), doubled after `growth_interval`
    windows without. All on the device: nothing is read back.
    """

    def __init__(
        self, device: torch.device | str, initial: float = 2.0**16, growth_interval: int = 2000
    ) -> None:
        self.value = torch.full((), initial, device=device)
        self._good = torch.zeros((), device=device)
        self._growth_interval = growth_interval

    def update(self, overflowed: Tensor) -> None:
        """Takes in one window; `overflowed` is () and 1 where a gradient was not finite, else 0."""
        self._good.add_(1).mul_(1 - overflowed)
        grows = (self._good >= self._growth_interval).to(self._good.dtype)
        self.value.mul_((1 + grows) * (1 - 0.5 * overflowed))
        self._good.mul_(1 - grows)

    def state_dict(self) -> dict[str, Tensor]:
        """Two tensors of ()."""
        return {"value": self.value, "good": self._good}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copies them back in place."""
        self.value.copy_(state["value"])
        self._good.copy_(state["good"])
