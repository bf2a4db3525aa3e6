"""Where a run stands between two steps: how far it is, its best weights so far, how long it has
waited for better ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fusionrun.schema.training import EarlyStopping

__all__ = ["Best", "Patience", "State", "Where"]

State = Mapping[str, Mapping[str, Tensor]]
"""Tensors by component and name."""


@dataclass
class Best:
    """The best weights so far, and what made them so.

    Attributes:
        epoch: counted from 0; -1 before the first.
        step: steps taken by its end.
        score: of the selected metric, negated where lower is better; then the negated nll.
        value: of the selected metric, as it is; None where there is no validation split.
        state: a copy of all components; empty on all ranks but the first.
    """

    epoch: int = -1
    step: int = 0
    score: tuple[float, float] = (-math.inf, -math.inf)
    value: float | None = None
    state: State = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """All but the weights, as JSON holds it: None for the score of no epoch."""
        score = list(self.score) if self.epoch >= 0 else None
        return {"epoch": self.epoch, "step": self.step, "score": score, "value": self.value}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any], state: State) -> Best:
        """Take back what `plain` gave."""
        if plain["epoch"] < 0:
            return cls()
        first, second = plain["score"]
        return cls(plain["epoch"], plain["step"], (first, second), plain["value"], state)


@dataclass
class Patience:
    """Epochs without improvement."""

    settings: EarlyStopping | None
    reference: float = -math.inf
    waited: int = 0

    def spent(self, score: float) -> bool:
        """Take in one epoch's score; whether it is time to stop."""
        if self.settings is None:
            return False
        if score > self.reference + self.settings.min_delta:
            self.reference, self.waited = score, 0
        else:
            self.waited += 1
        return self.waited >= self.settings.patience

    def plain(self) -> dict[str, Any]:
        """Reference and wait as JSON holds them: None where nothing was seen yet."""
        seen = math.isfinite(self.reference)
        return {"reference": self.reference if seen else None, "waited": self.waited}

    def take_back(self, plain: Mapping[str, Any]) -> None:
        """Go on from what `plain` gave."""
        self.reference = -math.inf if plain["reference"] is None else plain["reference"]
        self.waited = plain["waited"]


@dataclass
class Where:
    """Where a run stands between two steps, but for its tensors.

    Attributes:
        epoch: epochs done.
        batch: batches done of the one after.
        steps: batches done in all.
        seconds: that the batches of this epoch have taken.
    """

    epoch: int = 0
    batch: int = 0
    steps: int = 0
    seconds: float = 0.0
