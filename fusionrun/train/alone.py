"""One process, or one group of ranks, trains a run at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from fusionrun.errors import BusyError, TrainingError
from fusionrun.store.disk_errors import in_words, way_out
from fusionrun.store.layout import RunLayout
from fusionrun.store.lock import Held, locked
from fusionrun.store.runs import typed
from fusionrun.submit.trainer import myself
from fusionrun.train.ranks import Ranks

__all__ = ["alone"]


@contextmanager
def alone(layout: RunLayout, ranks: Ranks) -> Iterator[None]:
    """Nobody else trains this run while the block runs. The first rank holds the lock for all.

    A file system without locks goes without: the run's journal has to do.

    Raises:
        BusyError: on all ranks: somebody does, and who.
        TrainingError: the run's directory cannot be written.
    """
    with ExitStack() as stack:
        refusal = ""
        if ranks.is_first:
            try:
                stack.enter_context(locked(layout.training_lock, myself()))
            except Held as error:
                refusal = _in_words(layout, error.holder)
            except OSError as error:
                what = f"{layout.root}: cannot be written: {in_words(error)}"
                raise TrainingError(what, way_out(error)) from error
        refusal = ranks.from_first(refusal)
        if refusal:
            raise BusyError(refusal)
        yield


def _in_words(layout: RunLayout, holder: Mapping[str, Any]) -> str:
    pid, host = holder.get("pid", "?"), holder.get("host", "?")
    job = f", job {holder['job_id']}" if holder.get("job_id") else ""
    return (
        f"{layout.root}: another process trains this run: process {pid} on {host}{job}, "
        f"since {holder.get('since', '?')}\n"
        f"  `{typed(layout, 'status')}` shows how it stands, "
        f"`{typed(layout, 'cancel')}` ends it"
    )
