"""fusionrun's own engines: its step function alone, and its whole runner."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from fusionrun.launch import prepare
from fusionrun.plan.plan import Plan
from fusionrun.train import attempt, job
from fusionrun.train.bare import BareTrainer
from fusionrun.train.boundary import Boundary
from fusionrun.train.epochs import Epochs
from fusionrun.train.ranks import SINGLE

Meter = Callable[[], None]


def steps(trainer: BareTrainer, meter: Meter) -> None:
    """The step function over its own batches, its numbers logged as in a run."""
    trainer.set_first_rates()
    trainer.step.network.train()
    for number in count():
        trainer.one_epoch(number, meter).tally(SINGLE)


def runner(plan: Plan, meter: Meter) -> None:
    """A run as `fusionrun train` makes it, with all that happens between its steps."""

    class Metered(Boundary):
        def __call__(self, epochs: Epochs) -> None:
            super().__call__(epochs)
            meter()

    with tempfile.TemporaryDirectory() as runs:
        layout = prepare(plan, "", Path(runs), new=False).layout
        replaced: Any = attempt
        replaced.Boundary = Metered
        job.run(layout)
