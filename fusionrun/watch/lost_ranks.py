"""Which ranks the others have missed, and what their launcher said of them. Pure functions.

Who is killed leaves no error, and who hangs leaves one only when it is woken to be ended: both are
told by what the others say.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from fusionrun.watch.facts import Facts
from fusionrun.watch.rank_errors import RankError

__all__ = ["LOST", "Lost", "lost_ranks"]

LOST: Final = "RankError"
"""The kind of error with which a rank tells of others; see `train.ranks`."""

_TIMED_OUT: Final = re.compile(r"[Tt]imed out|[Tt]imeout")  # (no part of RANK_TIMEOUT_S)

# srun: error: n2: task 1: Killed                 srun: error: n2: tasks 2-3,5: Out Of Memory
_SRUN: Final = re.compile(r"srun: error: (?P<host>\S+): tasks? (?P<ranks>[\d,-]+): (?P<how>.+)")
# The block that torchrun prints of each process that failed.
_TORCHRUN_RANK: Final = re.compile(r"\s*rank\s+: (?P<rank>\d+) \(local_rank: \d+\)")
_TORCHRUN_CODE: Final = re.compile(r"\s*exitcode\s+: (?P<code>-?\d+) ")

# What ends an attempt, or begins one, in the log of all of them.
_ANOTHER_ATTEMPT: Final = re.compile(r"fusionrun: |attempt \d+ goes on at ")


@dataclass(frozen=True)
class Lost:
    """Ranks that were lost.

    Attributes:
        ranks: which.
        hangs: the others waited for them until the timeout; else they ended.
        how: in the launcher's words, with the host where it says so; empty without any.
    """

    ranks: tuple[int, ...]
    hangs: bool
    how: str

    def __str__(self) -> str:
        names = ", ".join(map(str, self.ranks))
        return f"rank{'s' * (len(self.ranks) > 1)} {names}"


def lost_ranks(facts: Facts, errors: Sequence[RankError]) -> Lost | None:
    """The ranks that were lost; None where some rank has an error of its own, or none is missed.

    Args:
        facts: of the run; its log counts.
        errors: of the last attempt, the earliest first.
    """
    if not errors or any(error.kind != LOST for error in errors):
        return None
    silent = set(range(max(error.ranks for error in errors))) - {error.rank for error in errors}
    missed = _missed(errors)
    ranks = tuple(sorted(missed & silent or missed or silent))
    if not ranks:
        return None
    hangs = bool(_TIMED_OUT.search(errors[0].error))
    # Who hangs is ended in the end as well, by whoever ends the job.
    how = "" if hangs else next(_launchers_words(facts, ranks), "")
    return Lost(ranks, hangs, how)


def _missed(errors: Sequence[RankError]) -> set[int]:
    """Those of whom all others say that they did not answer."""
    found = set()
    for rank in range(max(error.ranks for error in errors)):
        words = [e.absent for e in errors if e.rank != rank and e.absent is not None]
        if words and all(rank in absent for absent in words):
            found.add(rank)
    # Two may miss each other, one of them woken too late: the first to say so was awake.
    return found - {errors[0].rank} or found


def _launchers_words(facts: Facts, ranks: Sequence[int]) -> Iterator[str]:
    lines = _of_last_attempt(facts.log)
    by_torchrun = facts.slurm.get("launcher") == "torchrun"
    for line, below in pairwise([*lines, ""]):
        if found := _TORCHRUN_RANK.match(line):
            code = _TORCHRUN_CODE.match(below)
            if code and int(found["rank"]) in ranks:
                yield f"torchrun: {_in_words(int(code['code']))}"
        # (srun's tasks are torchrun's agents then, and no ranks)
        elif not by_torchrun and (found := _SRUN.match(line)) and _named(found["ranks"]) & {*ranks}:
            yield f"srun: {found['how'].strip()} on {found['host']}"


def _of_last_attempt(log: Sequence[str]) -> list[str]:
    lines = list(log)
    while lines and lines[-1].startswith("fusionrun: "):
        lines.pop()  # (its own end)
    starts = [n for n, line in enumerate(lines) if _ANOTHER_ATTEMPT.match(line)]
    return lines[starts[-1] :] if starts else lines


def _in_words(code: int) -> str:
    with suppress(ValueError):
        if code < 0:
            return signal.Signals(-code).name
    return f"exit code {code}"


def _named(ranks: str) -> set[int]:
    """The numbers in Slurm's `2-3,5`."""
    found: set[int] = set()
    for part in ranks.split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            found |= set(range(int(first), int(last or first) + 1))
    return found
