"""What happens between two steps: heartbeat, checkpoint, stop; the last two agreed by all ranks.

One process looks at its clock at every step and at everything else four times a second. Several
must look at the same step, so they agree beforehand at which: the first rank, which knows how
long a step takes, says how many steps on.
"""

from __future__ import annotations

import time

from fusionrun.train.epochs import Epochs
from fusionrun.train.ranks import Ranks
from fusionrun.train.recorder import HEARTBEAT_EVERY_S, Recorder
from fusionrun.train.saver import Saver
from fusionrun.train.step import Step
from fusionrun.train.stop import LOOK_EVERY_S, StopRequest, agreed_reason

__all__ = ["Boundary", "Interrupted"]


class Interrupted(Exception):
    """The run was asked to stop, and all its ranks have, at the same step boundary.

    Attributes:
        reason: as in `StopRequest.reason`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Boundary:
    """Called before every step.

    Args:
        step: whose accumulation window several ranks let close before they look.
        ranks: those that train together.
        stop: asked on every rank.
        recorder: gets the heartbeat.
        saver: takes checkpoints.
    """

    def __init__(
        self, step: Step, ranks: Ranks, stop: StopRequest, recorder: Recorder, saver: Saver
    ) -> None:
        self._step, self._ranks, self._stop = step, ranks, stop
        self._recorder, self._saver = recorder, saver
        # When one process looks next, at which step several do, and at which a checkpoint is due.
        self._look_at, self._look_at_step, self._due_step = 0.0, 0, 0.0

    def __call__(self, epochs: Epochs) -> None:
        """Do what is due.

        Raises:
            Interrupted: the run shall stop here.
            TrainingError: a gradient was not finite, or no checkpoint can be written.
        """
        # (whatever is asked here is asked at every step)
        due = epochs.where.steps >= self._due_step
        if self._ranks.size == 1:
            if due or self._stop.signalled or time.monotonic() >= self._look_at:
                self._look(epochs)
        # Within a window each rank holds a part of the gradient that no checkpoint could hold.
        elif (due or epochs.steps >= self._look_at_step) and not (
            self._step.updater.pending_batches
        ):
            self._look(epochs)
            self._look_at_step = epochs.steps + self._ranks.from_first(self._stride())

    def _look(self, epochs: Epochs) -> None:
        stop, save = self._stop.requested, self._saver.is_due(epochs.steps)
        self._recorder.pace.take(epochs.steps)
        epochs.check_finite()
        if self._ranks.any(stop or save):
            if self._ranks.any(stop):
                raise Interrupted(agreed_reason(self._ranks, self._stop))
            self._saver.save(epochs)
            self._recorder.pace.begin(epochs.steps)
        self._recorder.status(
            "running", epochs.epoch, epochs.steps, at_most_every_s=HEARTBEAT_EVERY_S
        )
        self._due_step = self._saver.due_step
        self._look_at = time.monotonic() + LOOK_EVERY_S

    def _stride(self) -> int:
        """Steps until the next look, on the first rank's word."""
        step_s = self._recorder.pace.step_s
        return 1 if step_s is None else max(1, int(LOOK_EVERY_S / step_s))
