"""fusionrun's own engines: its step function alone, and its whole runner."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.meter import Meter
from fusionrun.launch import prepare
from fusionrun.plan.plan import Plan
from fusionrun.train import attempt, bare, epochs, job
from fusionrun.train.bare import BareTrainer
from fusionrun.train.boundary import Boundary
from fusionrun.train.epochs import Epochs
from fusionrun.train.ranks import SINGLE
from fusionrun.train.tables import Batch


def steps(trainer: BareTrainer, meter: Meter) -> None:
    """The step function over its own batches, its numbers logged as in a run."""
    own = replace(trainer, take=meter.of_the_step(trainer.take))
    trainer.set_first_rates()
    trainer.step.network.train()
    with _fetching_counted(bare, meter):
        for number in count():
            own.one_epoch(number, meter).tally(SINGLE)


def runner(plan: Plan, meter: Meter) -> None:
    """A run as `fusionrun train` makes it, with all that happens between its steps."""

    class Metered(Boundary):
        def __call__(self, epochs: Epochs) -> None:
            super().__call__(epochs)
            meter()

    class Counted(Epochs):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given | {"take_step": meter.of_the_step(given["take_step"])})

    with tempfile.TemporaryDirectory() as runs, _fetching_counted(epochs, meter):
        layout = prepare(plan, "", Path(runs), new=False).layout
        replaced: Any = attempt
        replaced.Boundary, replaced.Epochs = Metered, Counted
        job.run(layout)


@contextmanager
def _fetching_counted(caller: Any, meter: Meter) -> Iterator[None]:
    """Where that module fetches its batches, their time is the step's."""
    own = caller.batches_of

    def batches_of(*given: Any) -> Iterator[Batch]:
        fetched = own(*given)
        return iter(meter.of_the_step(lambda: next(fetched, None)), None)

    caller.batches_of = batches_of
    try:
        yield
    finally:
        caller.batches_of = own
