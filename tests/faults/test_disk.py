"""Disks that are full, fail, cannot be written, or are gone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fusionrun.store.layout import RunLayout
from fusionrun.train.recorder import Recorder
from tests.faults import verifier
from tests.faults.conftest import fill
from tests.faults.runs import job, prepared, stop_at_once
from tests.faults.victim import attempt

Mount = Callable[[str], Path]
Program = Callable[[str], str]


def traced(strace: str, run: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The job under strace, which lets system calls fail."""
    tracer = [strace, "-f", "-qq", "-o", os.devnull, *options]
    command = [*tracer, sys.executable, "-m", "fusionrun.job", str(run)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_disk_too_full_for_a_checkpoint_ends_the_run_and_room_lets_it_go_on(
    small_disk: Mount, undisturbed: dict[str, Any]
) -> None:
    disk = small_disk("1m")
    run = prepared(disk)
    filler = fill(disk, leave=60_000)
    done = job(run)
    assert done.returncode == 1
    assert "a checkpoint could not be written: " in done.stderr
    assert "no checkpoint could be written, 2 times in a row" in done.stderr
    assert "Traceback" not in done.stderr
    filler.unlink()
    (ended,) = attempt(run)
    assert ended.code == 0
    assert verifier.fingerprint(run) == undisturbed


def test_a_full_disk_at_a_log_line_is_said_once_and_costs_no_line(
    small_disk: Mount, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = RunLayout(small_disk("64k"))
    recorder = Recorder(layout)
    recorder.event("first")
    filler = fill(layout.root, leave=0)
    for number in range(200):
        recorder.event("held up", number=number, padding="x" * 100)
        recorder.status("running", 0, number)
    assert capsys.readouterr().err.count("No space left on device") == 1
    filler.unlink()
    recorder.event("last")
    lines = [json.loads(line) for line in layout.events.read_text().splitlines()]
    assert [line.get("number") for line in lines] == [None, *range(200), None]


def test_records_that_cannot_be_written_are_said_to_be_for_the_real_reason(tmp_path: Path) -> None:
    recorder = Recorder(RunLayout(tmp_path / "gone"))
    recorder.epoch({"epoch": 0})
    with pytest.raises(FileNotFoundError, match=r"No such file or directory: .*metrics\.jsonl'"):
        recorder.sync_metrics()


def test_a_flush_that_fails_once_is_tried_again(
    run: Path, program: Program, undisturbed: dict[str, Any]
) -> None:
    done = traced(program("strace"), run, "-e", "inject=fsync:error=EIO:when=2")
    failed = verifier.events(run, "checkpoint_failed")
    if done.returncode:  # it was the main thread's, which writes what cannot wait
        assert "Input/output error" in done.stderr
        assert attempt(run)[0].code == 0
    else:
        assert [event["failures"] for event in failed] == [1]
    assert verifier.fingerprint(run) == undisturbed
    assert verifier.litter(run) == []


def test_a_disk_whose_flushes_fail_for_good_ends_the_run(
    run: Path, program: Program, undisturbed: dict[str, Any]
) -> None:
    done = traced(program("strace"), run, "-e", "inject=fsync:error=EIO:when=1+")
    assert done.returncode == 1
    assert "Input/output error" in done.stderr
    assert "Traceback" not in done.stderr
    assert attempt(run)[0].code == 0
    assert verifier.fingerprint(run) == undisturbed


def test_a_checkpoint_that_is_read_short_is_passed_over(
    run: Path, program: Program, undisturbed: dict[str, Any]
) -> None:
    stop_at_once(run)
    assert attempt(run)[0].code == 0
    (checkpoint,) = (run / "checkpoints").iterdir()
    weights = str(checkpoint / "weights.safetensors")
    done = traced(program("strace"), run, "-P", weights, "-e", "inject=read:retval=7:when=1")
    assert done.returncode == 0, done.stderr
    (skipped,) = verifier.events(run, "checkpoint_skipped")
    assert skipped["why"].startswith("weights.safetensors: ")
    assert verifier.fingerprint(run) == undisturbed


def test_a_directory_that_cannot_be_written_is_said_without_a_traceback(small_disk: Mount) -> None:
    disk = small_disk("1m")
    run = prepared(disk)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    done = job(run)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_removed_meanwhile_ends_the_run_and_does_not_come_back(tmp_path: Path) -> None:
    settings = ("training.epochs=100000", "training.checkpoints.every_s=0.1")
    run = prepared(tmp_path, *settings, "training.checkpoints.every_steps=null")

    def remove(pids: list[int]) -> None:
        until = time.monotonic() + 60
        while not verifier.events(run, "checkpoint") and time.monotonic() < until:
            time.sleep(0.05)
        while run.exists():  # (the run writes into it at the same time)
            shutil.rmtree(run, ignore_errors=True)

    (ended,) = attempt(run, meanwhile=remove, timeout_s=60)
    assert ended.code == 1
    assert not run.exists()
