"""Random faults for minutes on one job, which has to end bit-equal all the same.

Stops and goes on (SIGSTOP, SIGCONT), kills, kills in mid-write, requests to stop, a second process
on the same run: whatever comes, in any order, drawn from a seed.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.faults import verifier
from tests.faults.campaign import Count
from tests.faults.runs import prepared
from tests.faults.victim import UNDISTURBED, Fate, attempt

EPOCHS = 4000
"""About two minutes of training on one core."""
INTERVAL_S = 1.0
MAX_DISK_BYTES = 64 * 2**20


def soak(folder: Path, seconds: float, seed: int = 0, epochs: int = EPOCHS) -> Count:
    """Hurt a run for so long, then let it go on to its end.

    Args:
        folder: where the runs go.
        seconds: of faults.
        seed: of their choice.
        epochs: of the run.
    """
    settings = (
        f"training.epochs={epochs}",
        "training.checkpoints.every_steps=null",
        f"training.checkpoints.every_s={INTERVAL_S}",
    )
    calm, hurt = prepared(folder / "calm", *settings), prepared(folder / "hurt", *settings)
    count = Count(f"{seconds:.0f} s of random faults on one run", cases=1)
    attempt(calm, timeout_s=3600)
    chance, until = random.Random(seed), time.monotonic() + seconds
    while time.monotonic() < until and _state(hurt) != "completed":
        fault = chance.choice((_kill, _tear, _pause, _stop, _second))
        left = until - time.monotonic()
        count.deaths += fault(hurt, min(left, chance.uniform(0.5, 8.0)), chance)
        if (taken := _bytes(hurt)) > MAX_DISK_BYTES:
            count.failures.append(f"the run takes {taken:,} bytes")
    (last,) = attempt(hurt, timeout_s=3600)
    if last.code != 0 or verifier.fingerprint(hurt) != verifier.fingerprint(calm):
        count.failures.append(f"it ends with other bits: {last} ({hurt})")
    if found := verifier.litter(hurt):
        count.failures.append(f"litter: {found}")
    if orphans := _processes_in(hurt):
        count.failures.append(f"processes left: {orphans}")
    return count


def _after(seconds: float, act: Callable[[list[int]], None]) -> Callable[[list[int]], None]:
    def meanwhile(pids: list[int]) -> None:
        def later() -> None:
            time.sleep(max(0.0, seconds))
            with suppress(ProcessLookupError):  # it had ended
                act(pids)

        threading.Thread(target=later, daemon=True).start()

    return meanwhile


def _kill(run: Path, seconds: float, chance: random.Random) -> int:
    ended = attempt(run, meanwhile=_after(seconds, lambda pids: os.kill(pids[0], signal.SIGKILL)))
    return sum(e.code == -signal.SIGKILL for e in ended)


def _tear(run: Path, seconds: float, chance: random.Random) -> int:
    fate = Fate(chance.randint(1, 400), chance.random() < 0.5)
    ended = attempt(run, (fate,), meanwhile=_after(20.0, lambda p: os.kill(p[0], signal.SIGKILL)))
    return sum(e.code == -signal.SIGKILL for e in ended)


def _pause(run: Path, seconds: float, chance: random.Random) -> int:
    def pause(pids: list[int]) -> None:
        os.kill(pids[0], signal.SIGSTOP)
        time.sleep(1.0)
        os.kill(pids[0], signal.SIGCONT)
        time.sleep(0.5)
        os.kill(pids[0], signal.SIGKILL)

    return sum(e.code == -signal.SIGKILL for e in attempt(run, meanwhile=_after(seconds, pause)))


def _stop(run: Path, seconds: float, chance: random.Random) -> int:
    attempt(run, meanwhile=_after(seconds, lambda pids: os.kill(pids[0], signal.SIGTERM)))
    return 0


def _second(run: Path, seconds: float, chance: random.Random) -> int:
    def join_in(pids: list[int]) -> None:
        attempt(run, (UNDISTURBED,))
        os.kill(pids[0], signal.SIGKILL)

    return sum(e.code == -signal.SIGKILL for e in attempt(run, meanwhile=_after(seconds, join_in)))


def _state(run: Path) -> str:
    text = (run / "status.json").read_text() if (run / "status.json").exists() else ""
    return "completed" if '"state": "completed"' in text else "other"


def _bytes(run: Path) -> int:
    return sum(path.stat().st_size for path in run.rglob("*") if path.is_file())


def _processes_in(run: Path) -> list[str]:
    """Processes that hold a file of the run open."""
    found = []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        try:
            links = [os.readlink(link) for link in folder.iterdir()]
        except OSError:
            continue
        found += [folder.parent.name for link in links if link.startswith(str(run))]
    return found
