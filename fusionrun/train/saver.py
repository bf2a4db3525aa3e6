"""When checkpoints are taken, by whom they are written, and how many are kept.

Training waits for the copy only: a thread writes it, one at a time. A checkpoint that cannot be
written leaves those before it as they are, and is tried again; after two in a row the run ends
while it still has one to go on from.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from fusionrun.errors import TrainingError
from fusionrun.schema.training import Checkpoints
from fusionrun.store.atomic import require_space
from fusionrun.store.checkpoints import (
    list_checkpoints,
    remove_checkpoints,
    save_checkpoint,
    set_aside,
)
from fusionrun.store.disk_errors import in_words, way_out
from fusionrun.store.layout import RunLayout
from fusionrun.train.checkpoint import Loaded, Origin, Snapshot, Snapshots
from fusionrun.train.epochs import Epochs
from fusionrun.train.ranks import Ranks
from fusionrun.train.recorder import Recorder
from fusionrun.train.step import Step

__all__ = ["Saver", "kept_for_good", "tidy"]

FAILURES: Final = 2
"""So many in a row end the run."""

PAUSE_S: Final = 1.0
"""Before a run that must end tries once more."""

HEADROOM: Final = 1.05
"""Headers and directories take room as well."""


class Saver:
    """Takes checkpoints of one attempt.

    Args:
        layout: the run's.
        settings: how often, and how many are kept.
        origin: what the run is made from.
        step: holds network and updater.
        ranks: those that train together.
        recorder: is told of each checkpoint.
        loaded: what the attempt went on from.
    """

    def __init__(
        self,
        layout: RunLayout,
        settings: Checkpoints,
        origin: Origin,
        step: Step,
        ranks: Ranks,
        recorder: Recorder,
        loaded: Loaded | None,
    ) -> None:
        self._folder, self._settings = layout.checkpoints, settings
        self._ranks, self._recorder = ranks, recorder
        self._snapshots = Snapshots(step, ranks, origin)
        came = loaded.step if loaded else 0
        # Newer than what the attempt goes on from: damaged, and evidence of what damaged them.
        self._spared = {c.name for c in list_checkpoints(self._folder) if c.step > came}
        self._newest = loaded.checkpoint if loaded else None
        self._last_s, self._last_step = time.monotonic(), came
        self._failures = 0
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None

    @property
    def due_step(self) -> float:
        """At which step the next one is due by the count of steps, the same on all ranks."""
        every = self._settings.every_steps
        return math.inf if every is None else (self._last_step // every + 1) * every

    def is_due(self, steps: int) -> bool:
        """Whether this rank, the first, wants a checkpoint now.

        Raises:
            TrainingError: the ones before could not be written.
        """
        by_count = steps >= self.due_step
        busy = self._writing is not None and not self._writing.done()
        if not self._ranks.is_first or (busy and not by_count):
            return False
        went_well = self.wait()
        by_clock = time.monotonic() - self._last_s >= self._settings.every_s
        return by_count or by_clock or not went_well

    def save(self, epochs: Epochs) -> None:
        """Copy the run, on all ranks together, and begin to write the copy; `wait` ends that.

        Raises:
            TrainingError: the ones before could not be written.
        """
        self.wait()
        self._begin(self._copied(epochs))

    def save_now(self, epochs: Epochs) -> None:
        """Copy the run, on all ranks together, and write the copy before anything else.

        Raises:
            TrainingError: it could not be written, also when tried again.
        """
        self.wait()
        snapshot = self._copied(epochs)
        self._begin(snapshot)
        while not self.wait():
            time.sleep(PAUSE_S)
            self._begin(snapshot)

    def _copied(self, epochs: Epochs) -> Snapshot | None:
        """None on other ranks, and where this very moment is saved already."""
        self._last_s, self._last_step = time.monotonic(), epochs.steps
        snapshot = self._snapshots.take(epochs)
        is_saved = self._newest is not None and self._newest.step == epochs.steps
        return None if is_saved else snapshot

    def _begin(self, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            self._writing = self._thread.submit(self._write, snapshot, self._last_s)

    def wait(self) -> bool:
        """Wait for what is being written; whether that went well.

        Raises:
            TrainingError: it was the second in a row that could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return True
        try:
            writing.result()
        except OSError as error:
            self._failed(error)
            return False
        self._failures = 0
        return True

    def _failed(self, error: OSError) -> None:
        self._failures += 1
        why = f"{in_words(error)}; {self._newest_words}"
        self._recorder.event("checkpoint_failed", error=str(error), failures=self._failures)
        if self._failures >= FAILURES:
            what = f"no checkpoint could be written, {FAILURES} times in a row: {why}"
            raise TrainingError(what, way_out(error)) from error
        words = f"a checkpoint could not be written: {why}; it is tried once more"
        print(f"warning: {words}", file=sys.stderr, flush=True)

    @property
    def _newest_words(self) -> str:
        is_there = self._newest is not None and self._newest.path.is_dir()
        return (
            f"{self._newest.name} stays"
            if self._newest and is_there
            else "there is none to go on from"
        )

    def close(self) -> None:
        """End the thread, after what it has begun."""
        self._thread.shutdown()

    def _write(self, snapshot: Snapshot, began_s: float) -> None:
        """In the thread: write, then take away what is older than need be, and tell."""
        self._recorder.sync_metrics()
        require_space(self._folder, int(snapshot.size * HEADROOM))
        self._make_way(snapshot.step)
        self._newest = save_checkpoint(self._folder, snapshot.step, snapshot.files())
        found = self._whole()
        last = found[: self._settings.keep_last]
        self._remove_but({*last, *kept_for_good(found, self._settings, snapshot.best_step)})
        seconds = time.monotonic() - began_s
        self._recorder.save_s = seconds
        self._recorder.event("checkpoint", step=snapshot.step, seconds=seconds)

    def _make_way(self, step: int) -> None:
        """A damaged checkpoint of this very step keeps its content and loses its name."""
        for checkpoint in list_checkpoints(self._folder):
            if checkpoint.step == step and checkpoint.name in self._spared:
                kept_as = set_aside(checkpoint).name
                self._spared.remove(checkpoint.name)
                self._recorder.event(
                    "checkpoint_set_aside", checkpoint=checkpoint.name, kept_as=kept_as
                )

    def _whole(self) -> list[int]:
        """Steps of the checkpoints that are not known to be damaged, the newest first."""
        return [c.step for c in list_checkpoints(self._folder) if c.name not in self._spared]

    def _remove_but(self, steps: Collection[int]) -> None:
        kept = [
            checkpoint
            for checkpoint in list_checkpoints(self._folder)
            if checkpoint.step in steps or checkpoint.name in self._spared
        ]
        remove_checkpoints(self._folder, keep=kept)


def tidy(folder: Path, settings: Checkpoints, best_step: int) -> None:
    """The run has completed: keep only what its recipe says to keep beyond that.

    Args:
        folder: of its checkpoints.
        settings: the recipe's.
        best_step: at the end of the best epoch.
    """
    found = list_checkpoints(folder)
    kept = kept_for_good([checkpoint.step for checkpoint in found], settings, best_step)
    remove_checkpoints(folder, keep=[c for c in found if c.step in kept])


def kept_for_good(steps: Iterable[int], settings: Checkpoints, best_step: int) -> set[int]:
    """Which checkpoints stay whatever comes: the first of every stretch, the first after the best.

    Args:
        steps: of those there are.
        settings: which are wanted.
        best_step: at the end of the best epoch so far; 0: there is none.
    """
    found = sorted(steps)
    kept: set[int] = set()
    if every := settings.keep_every_steps:
        for step in found:
            if step >= every and not any(other // every == step // every for other in kept):
                kept.add(step)
    if settings.keep_best and best_step:
        kept.update([step for step in found if step >= best_step][:1])
    return kept
