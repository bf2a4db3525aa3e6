"""The first error of each rank, in a file of its own: what a post-mortem goes by."""

from __future__ import annotations

import socket
import traceback
from contextlib import suppress
from datetime import UTC, datetime

from fusionrun.errors import FusionrunError, TrainingError
from fusionrun.store.atomic import make_folder, write_json
from fusionrun.store.layout import RunLayout
from fusionrun.train.rank_place import RankPlace
from fusionrun.train.ranks import RankError, Ranks

__all__ = ["forget_errors", "record_error"]


def record_error(
    layout: RunLayout, ranks: Ranks | RankPlace, step: int | None, error: BaseException
) -> None:
    """Writes this rank's error beside those of the others; the earliest of them is the culprit.

    Keeps the first: what fails afterwards, while the process ends, is a consequence. Never
    raises: it is called while an error is being handled, which must not be hidden.

    Args:
        layout: the run's.
        ranks: this process; where joining failed, `rank_place(os.environ)`.
        step: steps taken; None before the first.
        error: with its traceback.
    """
    path = layout.rank_error(ranks.rank)
    record = {
        "rank": ranks.rank,
        "ranks": ranks.size,
        "absent": error.absent if isinstance(error, RankError) else None,
        "host": socket.gethostname(),
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "step": step,
        "kind": type(error).__name__,
        "error": error.what if isinstance(error, TrainingError) else str(error),
        "known": isinstance(error, FusionrunError),
        "fix": error.fix if isinstance(error, TrainingError) else "",
        "repeats": isinstance(error, TrainingError) and error.repeats,
        "traceback": "".join(traceback.format_exception(error)),
    }
    with suppress(OSError):
        make_folder(path.parent)  # (a run that somebody has removed stays removed)
        if not path.exists():
            write_json(path, record)


def forget_errors(layout: RunLayout, ranks: Ranks | RankPlace) -> None:
    """Removes what an earlier attempt recorded: an attempt's first act, before it joins.

    Each rank removes its own, so that none takes away what another has just written; rank 0 also
    those of ranks that there are no more.

    Raises:
        OSError: what the file system says.
    """
    layout.rank_error(ranks.rank).unlink(missing_ok=True)
    if ranks.rank == 0:
        present = {layout.rank_error(rank) for rank in range(ranks.size)}
        pattern = layout.rank_error(0).name.replace("0", "*")
        for path in set(layout.logs.glob(pattern)) - present:
            path.unlink(missing_ok=True)
