"""Two processes on one run, clocks that are moved, processes that are stopped for a while."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults import verifier
from tests.faults.runs import job, prepared, stop_at_once
from tests.faults.victim import attempt

Program = Callable[[str], str]


def test_a_second_process_ends_at_once_and_names_the_first(tmp_path: Path) -> None:
    run = prepared(tmp_path, "training.epochs=100000")
    seen: list[subprocess.CompletedProcess[str]] = []
    before: list[bytes] = []

    def join_in(pids: list[int]) -> None:
        while not verifier.events(run, "started"):
            time.sleep(0.05)
        before.append((run / "events.jsonl").read_bytes())
        seen.append(job(run))
        os.kill(pids[0], signal.SIGKILL)

    attempt(run, meanwhile=join_in)
    (second,) = seen
    assert second.returncode == 75
    holder = verifier.events(run, "started")[0]["pid"]
    assert f"another process trains this run: process {holder} on " in second.stderr
    assert len(verifier.events(run, "started")) == 1
    # The dead holder stands in nobody's way.
    stop_at_once(run)
    assert job(run).returncode == 0


@pytest.mark.slow
def test_a_clock_that_moves_by_years_changes_nothing(
    run: Path, program: Program, undisturbed: dict[str, Any]
) -> None:
    program("faketime")
    (library,) = {*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")}
    stop_at_once(run)
    assert job(run, LD_PRELOAD=str(library), FAKETIME="+365d").returncode == 0
    assert verifier.events(run, "started")[0]["time"] > time.strftime("%Y-%m-%dT", time.gmtime())
    back = job(run, LD_PRELOAD=str(library), FAKETIME="-365d")
    assert back.returncode == 0, back.stderr
    assert verifier.fingerprint(run) == undisturbed


def test_a_process_that_was_stopped_goes_on_as_if_nothing_had_been(
    run: Path, undisturbed: dict[str, Any]
) -> None:
    def pause(pids: list[int]) -> None:
        time.sleep(0.3)
        os.kill(pids[0], signal.SIGSTOP)
        time.sleep(1.0)
        os.kill(pids[0], signal.SIGCONT)

    (ended,) = attempt(run, meanwhile=pause)
    assert ended.code == 0
    assert verifier.fingerprint(run) == undisturbed
