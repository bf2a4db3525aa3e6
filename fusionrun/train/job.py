"""The job: from a run directory with a plan in it to a result table and verified components.

It reads `plan.json` and the data that names, and nothing the user may have edited since.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch

from fusionrun.data.load import Rows, content_hash, load_data
from fusionrun.errors import TrainingError
from fusionrun.models.network import FusionNetwork
from fusionrun.plan.plan import Plan
from fusionrun.plan.stored import read_plan
from fusionrun.store.atomic import write_json
from fusionrun.store.components import save_components
from fusionrun.store.layout import RunLayout, Which
from fusionrun.store.status import State as RunState
from fusionrun.train.assemble import (
    choose_device,
    loss_settings,
    make_network,
    make_updater,
    pin_numerics,
)
from fusionrun.train.environment import environment
from fusionrun.train.epochs import Best, Epochs, Interrupted, State, copied_state, evaluated
from fusionrun.train.metrics import Metrics
from fusionrun.train.progress import progress
from fusionrun.train.recorder import Recorder
from fusionrun.train.step import Step
from fusionrun.train.stop import StopRequest, stop_on_signals
from fusionrun.train.tables import Table

# How often at most the best weights are written while training goes on.
SAVE_EVERY_S = 30.0

NEVER_TOUCHED = "not touched"
TOUCHED_ONCE = "touched once, after training, with the best weights; nothing was chosen on it"


def run(layout: RunLayout) -> None:
    """Train the run that `layout` holds the plan of.

    Raises:
        KeyboardInterrupt: the run was asked to stop; the weights it had are saved.
        FusionrunError: it failed; `status.json` and `events.jsonl` say so, saved weights stay.
    """
    job = Job(layout, read_plan(layout.plan), Recorder(layout))
    with stop_on_signals() as stop:
        try:
            job.run(stop)
        except (Interrupted, KeyboardInterrupt) as error:
            job.interrupted()
            raise KeyboardInterrupt from error
        except Exception as error:
            job.failed(error)
            if isinstance(error, OSError):
                raise TrainingError(f"{layout.root}: the run cannot go on: {error}") from error
            raise


class Job:
    """One attempt at a run."""

    def __init__(self, layout: RunLayout, plan: Plan, recorder: Recorder) -> None:
        self._layout, self._plan, self._recorder = layout, plan, recorder
        self._epochs: Epochs | None = None
        self._last_save = time.monotonic()
        recorder.status("running", 0, 0)
        recorder.event("started", plan=plan.hash)

    def run(self, stop: StopRequest) -> None:
        """Train, choose the best weights, touch the test split once, save.

        Raises:
            Interrupted: `stop` was requested before the last epoch's end.
        """
        plan, settings = self._plan, self._plan.settings
        device = choose_device(settings.training.device)
        pin_numerics(plan, device)
        rows = load_data(settings.data, plan.data)
        write_json(self._layout.environment, self._environment(device))
        network = make_network(plan, rows["train"]).to(device)
        updater = make_updater(plan, network.components(), device)
        step = Step(network, updater, loss_settings(plan), settings.training.precision, device)
        tables = self._tables(network, rows, device)
        with progress(settings.training.epochs) as display:
            self._epochs = Epochs(
                plan=plan,
                step=step,
                train=tables["train"],
                val=tables.get("val"),
                recorder=self._recorder,
                display=display,
                stop=stop,
                save=self._save_best_sometimes,
            )
            self._epochs.run()
        self._finish(step, tables)

    def _environment(self, device: torch.device) -> dict[str, Any]:
        hashes = content_hash(self._plan.data.files)
        return {**environment(device), "data_sha256": hashes}

    def _tables(
        self, network: FusionNetwork, rows: Mapping[str, Rows], device: torch.device
    ) -> dict[str, Table]:
        views = {name: expert.view for name, expert in self._plan.settings.experts.items()}
        return {
            part: Table(part_rows, network.experts_by_name, views, device)
            for part, part_rows in rows.items()
            if len(part_rows.labels)
        }

    def _finish(self, step: Step, tables: Mapping[str, Table]) -> None:
        epochs = self._done
        last = copied_state(step)
        for name, module in step.network.components().items():
            module.load_state_dict(epochs.best.state[name])
        splits = [part for part in ("test", "val", "train") if part in tables]
        results = {part: evaluated(self._plan, step, tables[part]) for part in splits}
        self._recorder.results(self._columns(results))
        touched = TOUCHED_ONCE if "test" in tables else NEVER_TOUCHED
        self._save("best", epochs.best.state, epochs.best, touched)
        self._save("last", last, None, touched)
        self._recorder.event("completed", epoch=epochs.epoch, best_epoch=epochs.best.epoch)
        self._recorder.status("completed", epochs.epoch, epochs.steps)

    def _columns(self, results: Mapping[str, Mapping[str, Metrics]]) -> dict[str, Any]:
        """The metrics that the recipe asks for, in its order."""
        wanted = self._plan.settings.evaluation.metrics
        return {
            part: {path: {m: metrics[m] for m in wanted} for path, metrics in paths.items()}
            for part, paths in results.items()
        }

    @property
    def _done(self) -> Epochs:
        if self._epochs is None:
            raise RuntimeError("the epochs have not begun")
        return self._epochs

    def _save_best_sometimes(self, best: Best) -> None:
        """Written while training goes on, but not so often that training would wait for it."""
        if time.monotonic() - self._last_save >= SAVE_EVERY_S:
            self._save("best", best.state, best, NEVER_TOUCHED)
            self._last_save = time.monotonic()

    def _save(self, which: Which, state: State, best: Best | None, test_split: str) -> None:
        epochs, selection = self._done, self._plan.settings.training.selection
        chosen = None
        if best is not None and best.value is not None:
            chosen = {
                "split": "val",
                "path": selection.path,
                "metric": selection.metric,
                "value": best.value,
            }
        record = {
            "run_id": self._layout.id,
            "plan_hash": self._plan.hash,
            "which": which,
            "epoch": epochs.epoch - 1 if best is None else best.epoch,
            "step": epochs.steps if best is None else best.step,
            "chosen_on": chosen,
            "test_split": test_split,
            "classes": tuple(str(label) for label in self._plan.data.classes),
        }
        save_components(self._layout.components(which), state, record=record)
        self._recorder.event("saved", which=which, epoch=record["epoch"])

    def interrupted(self) -> None:
        """Keep the best weights so far, and say how far it came."""
        self._recorder.event("interrupted")
        self._end("interrupted")

    def failed(self, error: Exception) -> None:
        """Keep the best weights so far, and say what went wrong."""
        # A full disk, of all errors, must not be hidden by failing to record it.
        with suppress(OSError):
            self._recorder.event("failed", kind=type(error).__name__, error=str(error))
            self._end("failed")

    def _end(self, state: RunState) -> None:
        epochs = self._epochs
        if epochs is not None and epochs.best.state:
            self._save("best", epochs.best.state, epochs.best, NEVER_TOUCHED)
        done, steps = (epochs.epoch, epochs.steps) if epochs else (0, 0)
        self._recorder.status(state, done, steps)
