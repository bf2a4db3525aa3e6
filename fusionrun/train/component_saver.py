"""The components of a run on disk: the best so far while it trains, best and last at its end."""

from __future__ import annotations

import time
from typing import Any, Final

from fusionrun.plan.plan import Plan
from fusionrun.store.components import save_components
from fusionrun.store.layout import RunLayout, Which
from fusionrun.train.ranks import Ranks
from fusionrun.train.recorder import Recorder
from fusionrun.train.saver import PAUSE_S
from fusionrun.train.where import Best

__all__ = ["NEVER_TOUCHED", "TOUCHED_ONCE", "ComponentSaver"]

SAVE_EVERY_S: Final = 30.0
"""How often at most one of a process's runs writes its best weights while it trains."""

NEVER_TOUCHED: Final = "not touched"
TOUCHED_ONCE: Final = (
    "touched once, after training, with the best weights; nothing was chosen on it"
)


class ComponentSaver:
    """Writes sets of components; on all ranks but the first it writes nothing.

    Args:
        layout: the run.
        plan: the run's.
        ranks: those that train together.
        recorder: takes events.
        runs: how many runs the process trains side by side.
    """

    def __init__(
        self, layout: RunLayout, plan: Plan, ranks: Ranks, recorder: Recorder, runs: int
    ) -> None:
        self._layout, self._plan, self._ranks, self._recorder = layout, plan, ranks, recorder
        self._last_save, self._every_s = time.monotonic(), SAVE_EVERY_S * runs

    def save_best_sometimes(self, best: Best) -> None:
        """Written while training goes on, but not so often that training would wait for it.

        What cannot be written now is in every checkpoint, and is written at the end.
        """
        if time.monotonic() - self._last_save < self._every_s:
            return
        self._last_save = time.monotonic()
        try:
            self._write("best", best, NEVER_TOUCHED)
        except OSError as error:
            self._recorder.event("save_failed", which="best", error=str(error))

    def save(self, which: Which, weights: Best, test_split: str) -> None:
        """Write a set of components; a failure is tried again once.

        Args:
            which: the set.
            weights: its tensors, and what made them so; without a value they were not chosen.
            test_split: whether it has been touched, in words.

        Raises:
            OSError: it failed again. The set that was there before still is.
        """
        try:
            self._write(which, weights, test_split)
        except OSError as error:
            self._recorder.event("save_failed", which=which, error=str(error))
            time.sleep(PAUSE_S)
            self._write(which, weights, test_split)

    def _write(self, which: Which, weights: Best, test_split: str) -> None:
        if not self._ranks.is_first:
            return
        record = {
            "run_id": self._layout.id,
            "plan_hash": self._plan.hash,
            "which": which,
            "epoch": weights.epoch,
            "step": weights.step,
            "chosen_on": self._chosen_on(weights),
            "test_split": test_split,
            "classes": tuple(str(label) for label in self._plan.data.classes),
        }
        save_components(self._layout.components(which), weights.state, record=record)
        self._recorder.event("saved", which=which, epoch=weights.epoch)

    def _chosen_on(self, weights: Best) -> dict[str, Any] | None:
        if weights.value is None:
            return None
        selection = self._plan.settings.training.selection
        return {
            "split": "val",
            "path": selection.path,
            "metric": selection.metric,
            "value": weights.value,
        }
