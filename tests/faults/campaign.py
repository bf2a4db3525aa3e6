"""Many faults, one after the other, each followed by a resume that has to end bit-equal."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import verifier
from tests.faults.runs import EVERY, prepared
from tests.faults.victim import UNDISTURBED, Ended, Fate, attempt

RETRIES = 3


@dataclass
class Count:
    """What came out of a kind of fault.

    Attributes:
        name: the kind.
        cases: runs that were hurt.
        deaths: processes that died of it.
        failures: what went wrong, a line each.
        repeated: steps that each resume took a second time.
    """

    name: str
    cases: int = 0
    deaths: int = 0
    failures: list[str] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)


class Campaign:
    """Faults of every kind against runs in one folder.

    Args:
        folder: where the runs go; each is removed once it has ended as it should.
        settings: of the recipe, as for `--set`.
        ranks: how many processes train a run.
    """

    def __init__(self, folder: Path, *settings: str, ranks: int = 1) -> None:
        self._folder, self._settings, self._ranks = folder, settings, ranks
        self._number = 0
        run = self._run()
        ended = attempt(run, (UNDISTURBED,) * ranks)
        assert all(e.code == 0 for e in ended), f"the undisturbed run failed: {ended}"
        self.expected = verifier.fingerprint(run)
        # How many each rank came to.
        self.boundaries = [e.boundaries for e in ended]

    def _run(self) -> Path:
        self._number += 1
        return prepared(self._folder / str(self._number), *self._settings)

    def at_boundaries(self, every: int = 1, *, torn: bool = False, rank: int = 0) -> Count:
        """Killed before each n-th file operation of a rank, or half-way through it."""
        kind = "half-way through" if torn else "before"
        count = Count(f"SIGKILL {kind} a file operation, rank {rank} of {self._ranks}")
        for boundary in range(1 + every // 2, self.boundaries[rank] + 1, every):
            fates = [UNDISTURBED] * self._ranks
            fates[rank] = Fate(boundary, torn)
            self._case(count, [tuple(fates)], f"boundary {boundary}")
        return count

    def in_a_row(self, cases: int, deaths: int = 5, seed: int = 0) -> Count:
        """Killed several times, before it is let go on to the end."""
        count = Count(f"SIGKILL {deaths} times in a row")
        chance = random.Random(seed)
        for case in range(cases):
            boundaries = [chance.randint(1, self.boundaries[0]) for _ in range(deaths)]
            fates = [(Fate(b, chance.random() < 0.5),) for b in boundaries]
            self._case(count, fates, f"case {case}: boundaries {boundaries}")
        return count

    def at_random_instants(self, cases: int, within_s: float, seed: int = 0) -> Count:
        """A rank killed from outside, at a moment drawn evenly from the time that a run takes."""
        count = Count(f"SIGKILL from outside at a random instant, one of {self._ranks}")
        chance = random.Random(seed)
        for case in range(cases):
            delay, rank = chance.uniform(0, within_s), chance.randrange(self._ranks)
            run = self._run()
            fates = (UNDISTURBED,) * self._ranks
            ended = attempt(run, fates, meanwhile=lambda pids, d=delay, r=rank: _kill(pids[r], d))
            self._judge(count, run, [ended], f"case {case}: rank {rank} after {delay:.3f} s")
        return count

    def _case(self, count: Count, fates: list[tuple[Fate, ...]], what: str) -> None:
        run = self._run()
        self._judge(count, run, [attempt(run, each) for each in fates], what)

    def _judge(self, count: Count, run: Path, attempts: list[list[Ended]], what: str) -> None:
        """Let the run go on to its end, and hold what it leaves against the undisturbed one."""
        count.cases += 1
        count.deaths += sum(e.code == -signal.SIGKILL for ended in attempts for e in ended)
        failures = list(self._faults_of(run, attempts[-1], count))
        count.failures += [f"{what}: {failure} ({run})" for failure in failures]

    def _faults_of(self, run: Path, ended: list[Ended], count: Count) -> Iterator[str]:
        for which in ("best", "last"):
            there = (run / "components" / which).exists()
            if there and not verifier.proved_by_manifest(run, which):
                yield f"components/{which} is a mix"
        saved = [event["step"] for event in verifier.events(run, "checkpoint")]
        begun = len(verifier.events(run, "started"))
        for _ in range(RETRIES):
            again = attempt(run, (UNDISTURBED,) * self._ranks)
            if all(e.code == 0 for e in again):
                break
        else:
            yield f"it does not go on: {again}"
            return
        if verifier.fingerprint(run) != self.expected:
            yield "it ends with other bits"
        if found := verifier.litter(run):
            yield f"litter: {found}"
        if begun < len(verifier.events(run, "started")):  # (it may have completed before)
            yield from _repeated(run, ended, saved, count)


def _repeated(run: Path, ended: list[Ended], saved: list[int], count: Count) -> Iterator[str]:
    """No saved step may be lost, and no more taken twice than what came since."""
    started = verifier.events(run, "started")[-1]
    resumed, died_at = started["resumed_from"] or 0, max(e.step for e in ended)
    count.repeated.append(max(0, died_at - resumed))
    if resumed < max(saved, default=0):
        yield f"went on from step {resumed}, although step {max(saved)} was saved"
    # One interval, and the one in which the last checkpoint was being written.
    if died_at - resumed > 2 * EVERY:
        yield f"died at step {died_at}, and went on from {resumed}"


def _kill(pid: int, delay_s: float) -> None:
    def kill() -> None:
        time.sleep(delay_s)
        with suppress(ProcessLookupError):  # it had ended
            os.kill(pid, signal.SIGKILL)

    threading.Thread(target=kill).start()


def listed(counts: list[Count]) -> list[dict[str, Any]]:
    """As rows of a table."""
    return [
        {
            "fault": count.name,
            "runs": count.cases,
            "killed": count.deaths,
            "bit-equal": count.cases - len({f.split(":")[0] for f in count.failures}),
            "steps repeated, at most": max(count.repeated, default=0),
        }
        for count in counts
    ]
