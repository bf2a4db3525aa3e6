"""The first error of each rank, as the ranks have left them in a run's logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fusionrun.store.layout import RunLayout
from fusionrun.watch.files import instant, json_object, number, text, whole

__all__ = ["RankError", "rank_errors"]

MOST_RANKS: Final = 100_000
"""More than that is damage, and would only take time to count."""


@dataclass(frozen=True)
class RankError:
    """The first error of one rank.

    Attributes:
        rank: which.
        host: where.
        time: seconds since 1970.
        step: steps taken; None before the first.
        kind: the exception's class.
        error: its message.
        traceback: as Python prints it.
        ranks: how many there were.
        absent: which did not answer when this one had failed; None where it did not know.
        known: fusionrun raised it on purpose: the message says all that a traceback would.
        fix: what to do about it, as an order; may be empty.
        repeats: the run as it is would only come to the same end again.
    """

    rank: int
    host: str
    time: float
    step: int | None
    kind: str
    error: str
    traceback: str
    ranks: int = 0
    absent: tuple[int, ...] | None = None
    known: bool = False
    fix: str = ""
    repeats: bool = False

    @property
    def headline(self) -> str:
        """Kind and first line of the message: `OutOfMemoryError: CUDA out of memory.`"""
        first = self.error.strip().partition("\n")[0]
        return f"{self.kind}: {first}" if first else self.kind


def rank_errors(layout: RunLayout) -> tuple[RankError, ...]:
    """All of them, the earliest first."""
    pattern = layout.rank_error(0).name.replace("0", "*")
    try:
        files = list(layout.logs.glob(pattern))
    except OSError:
        return ()
    found = [_rank_error(json_object(file)) for file in files]
    return tuple(sorted((e for e in found if e), key=lambda e: (e.time, e.rank)))


def _rank_error(content: Mapping[str, Any]) -> RankError | None:
    if not content:
        return None
    step, absent = number(content, "step"), content.get("absent")
    return RankError(
        rank=whole(content, "rank"),
        host=text(content, "host"),
        time=instant(content, "time") or float("inf"),
        step=None if step is None else int(step),
        kind=text(content, "kind") or "an error",
        error=text(content, "error"),
        traceback=text(content, "traceback"),
        ranks=min(whole(content, "ranks"), MOST_RANKS),
        absent=tuple(n for n in absent if isinstance(n, int)) if isinstance(absent, list) else None,
        known=content.get("known") is True,
        fix=text(content, "fix"),
        repeats=content.get("repeats") is True,
    )
