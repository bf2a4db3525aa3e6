"""What trains a run, once it is made; and its place among others that train together with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from fusionrun.data.header import DataSummary
from fusionrun.data.load import Rows, load_data
from fusionrun.plan.plan import Plan
from fusionrun.schema.data import Data
from fusionrun.train.buffers import Allocate
from fusionrun.train.checkpoint import Loaded
from fusionrun.train.step import Step, TakeLogits, TakeStep
from fusionrun.train.tables import Table

__all__ = ["Beside", "Made"]


class Beside(NamedTuple):
    """The place of a run among those that train together with it.

    Attributes:
        allocate: its part of their memory.
        runs: how many they are.
        load: as `load_data`; rows that two of them read may be one.
    """

    allocate: Allocate
    runs: int = 1
    load: Callable[[Data, DataSummary], dict[str, Rows]] = load_data


class Made(NamedTuple):
    """What trains a run.

    Attributes:
        plan: of the run.
        step: of its network, as the earlier attempt began.
        take_step: what takes its batches, where it is not led beside others; `take_logits` gives
            a split's logits likewise.
        tables: its splits.
        loaded: what it goes on from, not restored yet.
    """

    plan: Plan
    step: Step
    take_step: TakeStep
    take_logits: TakeLogits
    tables: Mapping[str, Table]
    loaded: Loaded | None

    @property
    def epochs_done(self) -> int:
        """Before this attempt."""
        return self.loaded.epoch if self.loaded else 0
