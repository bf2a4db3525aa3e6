"""The job: from a run directory with a plan in it to a result table and verified components.

It reads `plan.json` and the data that names, and nothing the user may have edited since. Where an
earlier attempt has left a checkpoint it goes on from there, to the same bits.
"""

from __future__ import annotations

from fusionrun.plan.stored import read_plan
from fusionrun.store.layout import RunLayout
from fusionrun.store.manifest import read_manifest
from fusionrun.store.status import read_status
from fusionrun.train.alone import alone
from fusionrun.train.attempt import Attempt, Outcome
from fusionrun.train.ranks import SINGLE, Ranks
from fusionrun.train.recorder import Recorder
from fusionrun.train.saver import tidy
from fusionrun.train.stop import stop_on_signals


def run(
    layout: RunLayout, *, ranks: Ranks = SINGLE, term_asks: bool = False, fresh: bool = False
) -> Outcome:
    """Train the run that `layout` holds the plan of, from its newest whole checkpoint if any.

    Args:
        layout: the run's directory. One that has completed is left as it is.
        ranks: those that train together; all of them call this.
        term_asks: TERM is a request to save and stop, as a scheduler means it; else it is as INT.
        fresh: begin again, whatever is there.

    Returns:
        completed; or stopped: someone asked for it, a checkpoint is saved, and the reason is in
        `outcome.json`.

    Raises:
        KeyboardInterrupt: a person interrupted it; a checkpoint and the best weights are saved.
        BusyError: another process trains it.
        FusionrunError: it failed; `status.json` and `events.jsonl` say so, saved weights stay.
    """
    with alone(layout, ranks):
        if not fresh and ranks.from_first(read_status(layout).state == "completed"):
            return _completed_before(layout, ranks)
        attempt = Attempt(layout, ranks, Recorder(layout, writes=ranks.is_first))
        return _attempted(attempt, layout, term_asks, fresh)


def _completed_before(layout: RunLayout, ranks: Ranks) -> Outcome:
    """Nothing to do; but for what a process left to do that was killed in its last moment."""
    if ranks.is_first:
        settings = read_plan(layout.plan).settings.training.checkpoints
        tidy(layout.checkpoints, settings, read_manifest(layout.components("best")).step)
        print(f"{layout.root}: has completed before; nothing was done", flush=True)
    return "completed"


def _attempted(attempt: Attempt, layout: RunLayout, term_asks: bool, fresh: bool) -> Outcome:
    with stop_on_signals(layout.stop_request, term_asks=term_asks) as stop:
        try:
            with attempt.recorded():
                return attempt.run(stop, fresh)
        finally:
            attempt.close()
