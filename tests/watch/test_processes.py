"""Runs of real processes on this machine: stopped, killed, and speaking while we listen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fusionrun.store.layout import RunLayout
from tests.watch.made import PROGRAM, Made, fusionrun

# Writes a status as the trainer does, ten times a second.
TRAINER = """\
import itertools, sys, time
from pathlib import Path
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import write_status

layout = RunLayout(Path(sys.argv[1]))
for step in itertools.count():
    write_status(layout, "running", epoch=0, step=step, attempts=1, epochs=60, steps=6000,
                 step_s=0.01)
    time.sleep(0.1)
"""


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    made = Made(tmp_path / "runs" / "one")
    with subprocess.Popen([sys.executable, "-c", TRAINER, made.layout.root]) as process:
        until(made.layout.status.exists)
        try:
            yield process
        finally:
            process.kill()


def until(done: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def state(tmp_path: Path) -> str:
    env = {**os.environ, "FUSIONRUN_HUNG_S": "2"}
    done = fusionrun("status", "one", "--json", "--runs", tmp_path / "runs", env=env)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["run"]["state"])


def test_a_stopped_process_hangs_and_goes_on(
    tmp_path: Path, trainer: subprocess.Popen[bytes]
) -> None:
    assert state(tmp_path) == "running"
    trainer.send_signal(signal.SIGSTOP)
    until(lambda: state(tmp_path) == "hung?")
    trainer.send_signal(signal.SIGCONT)
    until(lambda: state(tmp_path) == "running")


def test_a_killed_process_is_lost(tmp_path: Path, trainer: subprocess.Popen[bytes]) -> None:
    trainer.kill()
    trainer.wait()
    assert state(tmp_path) == "lost"


def test_following_a_local_run_ends_when_the_run_does(
    tmp_path: Path, trainer: subprocess.Popen[bytes]
) -> None:
    layout = RunLayout(tmp_path / "runs" / "one")
    layout.logs.mkdir()
    layout.log.write_text("old\nbefore\n")
    argv = [sys.executable, "-c", PROGRAM, "logs", "one", "-f", "-n", "1", "--runs"]
    with subprocess.Popen(
        [*argv, layout.root.parent], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "before\n"
        with layout.log.open("a") as log:
            log.write("after\n")
        assert listener.stdout.readline() == "after\n"
        layout.log.write_text("cut\n")
        assert listener.stdout.readline() == "cut\n"
        trainer.kill()
        trainer.wait()
        content = json.loads(layout.status.read_text())
        layout.status.write_text(json.dumps({**content, "state": "failed"}))
        out, err = listener.communicate(timeout=20)
    assert (listener.returncode, out) == (0, "")
    assert [line.partition(" ")[2].partition("(")[0].strip(" ]") for line in err.splitlines()] == [
        "running",
        "failed",
    ]
