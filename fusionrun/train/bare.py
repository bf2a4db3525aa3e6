"""A plan's trainer without a run directory: for who measures it, and keeps nothing.

It is made of the parts that a run is made of, and takes the very same steps; nothing of it is
written, chosen or tested.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fusionrun.data.load import load_data
from fusionrun.models.network import Outputs
from fusionrun.plan.plan import Plan
from fusionrun.store.layout import RunLayout
from fusionrun.train.assemble import (
    choose_device,
    loss_settings,
    make_network,
    make_tables,
    make_updater,
    prepare_process,
)
from fusionrun.train.augment import Augmenter, BatchPart, augmenter_of, batches_of
from fusionrun.train.engines import engine_of, take_step
from fusionrun.train.epoch_log import EpochLog
from fusionrun.train.epochs import Epochs
from fusionrun.train.evaluate import split_logits
from fusionrun.train.progress import progress
from fusionrun.train.ranks import SINGLE
from fusionrun.train.recorder import Recorder
from fusionrun.train.step import Ask, Step, TakeStep
from fusionrun.train.tables import Table, epoch_order, full_batch, spans
from fusionrun.train.where import Best

__all__ = ["BareTrainer", "bare_trainer"]


@dataclass(frozen=True)
class BareTrainer:
    """What trains a plan.

    Attributes:
        plan: the plan.
        engine: how it takes steps.
        step: takes one batch, call by call.
        take: takes one batch by the engine.
        train: the training split; `val` the validation split, if there is one.
        augment: changes training batches; None: nothing does.
        device: where everything is.
    """

    plan: Plan
    engine: str
    step: Step
    take: TakeStep
    train: Table
    val: Table | None
    augment: Augmenter | None
    device: torch.device

    @property
    def num_batches(self) -> int:
        """Of an epoch."""
        return len(spans(len(self.train), self.plan.settings.training.batch_size))

    @property
    def batch_rows(self) -> int:
        """Of a full batch."""
        return full_batch(len(self.train), self.plan.settings.training.batch_size)

    def epochs(self, between_steps: Callable[[Epochs], None]) -> Epochs:
        """The epochs from the first on, as a run goes through them.

        Args:
            between_steps: called before every step; may raise to end it.
        """
        with progress(self.plan.settings.training.epochs, shows=False) as display:
            return Epochs(
                plan=self.plan,
                step=self.step,
                take_step=self.take,
                take_logits=self._logits,
                train=self.train,
                val=self.val,
                ranks=SINGLE,
                recorder=Recorder(RunLayout(Path(os.devnull)), writes=False),
                display=display,
                between_steps=between_steps,
                save=_kept_nowhere,
                augment=self.augment,
            )

    def _logits(self, table: Table) -> Outputs:
        return split_logits(self.step.network, table, self.step.precision)

    def one_epoch(self, number: int, between_steps: Callable[[], None]) -> EpochLog:
        """The steps of an epoch and nothing beside: no validation, no choice of weights.

        Args:
            number: of the epoch, from 0; rates are those of the first.
            between_steps: called before every step; may raise to end it.
        """
        order = epoch_order(len(self.train), self.plan.seed, number, self.device)
        stretches = spans(len(self.train), self.plan.settings.training.batch_size)
        begun = number * len(stretches)
        parts = [BatchPart(begun + n, *s, *s) for n, s in enumerate(stretches)]
        log = EpochLog()
        for part, batch in zip(
            parts, batches_of(self.train, order, parts, self.augment), strict=True
        ):
            between_steps()
            log.add(self.take(Ask(batch, part.stop == len(order))), batch.labels)
        return log

    def set_first_rates(self) -> None:
        """The rates of the first epoch."""
        self.step.updater.set_rates({n: c.rates[0] for n, c in self.plan.components.items()})

    def first_rows(self) -> Tensor:
        """Indices of one full batch."""
        return torch.arange(self.batch_rows, device=self.device)


def bare_trainer(plan: Plan) -> BareTrainer:
    """Load the data and make what trains them.

    Raises:
        UserError: the device is not there, or the engine cannot be had here.
        DataError: the data cannot be read.
    """
    device = choose_device(plan.settings.training.device)
    prepare_process(plan, device)
    rows = load_data(plan.settings.data, plan.data)
    network = make_network(plan, rows["train"]).to(device)
    updater = make_updater(plan, network, device)
    step = Step(network, updater, loss_settings(plan), plan.settings.training.precision, device)
    tables = make_tables(plan, network, rows, device)
    augment = augmenter_of(plan, tables["train"], network.experts_by_name)
    engine = engine_of(plan, device, SINGLE)
    rows_a_batch = full_batch(len(tables["train"]), plan.settings.training.batch_size)
    take = take_step(engine, step, rows_a_batch)
    return BareTrainer(
        plan, engine, step, take, tables["train"], tables.get("val"), augment, device
    )


def _kept_nowhere(best: Best) -> None:
    """Where a run would write its best weights."""
