"""What a frozen expert gives for the training rows, kept from one epoch to the next.

A frozen expert in evaluation mode gives the same features for a row whenever it is asked, so they
are found once and looked up from then on. They are found in batches of their own, hence equal to
those of a step's batch to rounding; the same on every attempt at a run.

Shapes: N rows, B batch, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from fusionrun.plan.plan import ComponentPlan, Plan
from fusionrun.train.ranks import Ranks
from fusionrun.train.step import Step, autocast
from fusionrun.train.tables import Table

__all__ = ["FrozenExperts"]

MOST_BYTES: Final = 1 << 30
"""Of all features that are kept together; more are found anew at each step. Source: assumed."""

_ROWS: Final = 2048
"""Rows at a time, as in evaluation."""


class FrozenExperts:
    """Freezes and thaws experts by the epoch, and keeps what the frozen ones give.

    Args:
        plan: says which expert is frozen in which epoch.
        step: whose network it is.
        train: the rows of every epoch.
        ranks: all of them call `begin` alike; each finds a part of the features.
    """

    def __init__(self, plan: Plan, step: Step, train: Table, ranks: Ranks) -> None:
        self._plan, self._step, self._train, self._ranks = plan, step, train, ranks
        self._known: dict[str, Tensor] = {}

    def begin(self, epoch: int) -> None:
        """Freezes what is frozen in an epoch, and finds features that later epochs need, too."""
        network = self._step.network
        frozen = [n for n in network.names if self._component(n).is_frozen(epoch)]
        network.freeze(frozen)
        self._known = {name: self._known[name] for name in frozen if name in self._known}
        for name in frozen:
            if name not in self._known and self._pays(name, epoch) and self._fits(name):
                self._known[name] = self._features(name)

    def known(self, order: Tensor, first: int, end: int) -> Mapping[str, Tensor]:
        """The features (B, F) of rows `first` to `end` of an order, for each expert that has them
        here.
        """
        if not self._known:
            return self._known
        rows = order[first:end]
        return {name: features[rows] for name, features in self._known.items()}

    def _component(self, name: str) -> ComponentPlan:
        return self._plan.components[f"experts.{name}"]

    def _pays(self, name: str, epoch: int) -> bool:
        """Whether another epoch asks for the same: the expert stays frozen, rows stay as they are.

        Smoothing changes labels alone; every other augmentation changes what an expert reads.
        """
        augmentation = self._plan.settings.augmentation
        changing = set(type(augmentation).model_fields) - {"label_smoothing", "preset"}
        if any(getattr(augmentation, part) for part in changing):
            return False
        return self._component(name).is_frozen(epoch + 1)

    def _fits(self, name: str) -> bool:
        kept = sum(f.numel() * f.element_size() for f in self._known.values())
        own = len(self._train) * self._component(name).input_dim * 4
        return kept + own <= MOST_BYTES

    @torch.no_grad()
    def _features(self, name: str) -> Tensor:
        """(N, F): each rank finds every so many rows, and the sum has them all."""
        network, size = self._step.network, self._ranks.size
        place, parts = network.names.index(name), []
        for number, batch in enumerate(self._train.in_order(_ROWS)):
            scaled = batch.inputs[place]
            own = number % size == self._ranks.rank
            with autocast(self._step.precision, self._step.device):
                part = network.encode(name, scaled if own else scaled[:1])
            parts.append(part if own else part.new_zeros(len(scaled), part.shape[1]))
        features = torch.cat(parts)
        self._ranks.sum_(features)
        return features
