"""fusionrun's own engines: its step function alone, and its whole runner."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks.meter import Meter
from fusionrun.launch import prepare
from fusionrun.plan.plan import Plan
from fusionrun.train import attempt, augment, epochs, job
from fusionrun.train.bare import BareTrainer
from fusionrun.train.boundary import Boundary
from fusionrun.train.epochs import Epochs
from fusionrun.train.ranks import SINGLE
from fusionrun.train.tables import Batch


def steps(trainer: BareTrainer, meter: Callable[[], None]) -> None:
    """The step function over its own batches, its numbers logged as in a run."""
    trainer.set_first_rates()
    trainer.step.network.train()
    for number in count():
        trainer.one_epoch(number, meter).tally(SINGLE)


def runner(plan: Plan, meter: Meter) -> None:
    """A run as `fusionrun train` makes it, with all that happens between its steps.

    What fetches a batch and what takes it are the step function; all else the runner has added.
    """

    class Metered(Boundary):
        def __call__(self, epochs: Epochs) -> None:
            super().__call__(epochs)
            meter()

    class Counted(Epochs):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given | {"take_step": meter.of_the_step(given["take_step"])})

    def batches_of(*given: Any) -> Iterator[Batch]:
        fetched = augment.batches_of(*given)
        fetch = meter.of_the_step(lambda: next(fetched, None))
        return iter(fetch, None)

    with tempfile.TemporaryDirectory() as runs:
        layout = prepare(plan, "", Path(runs), new=False).layout
        replaced: Any = attempt
        replaced.Boundary, replaced.Epochs = Metered, Counted
        replaced = epochs
        replaced.batches_of = batches_of
        job.run(layout)
