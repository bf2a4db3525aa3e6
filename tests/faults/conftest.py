"""What the faults need of a machine, and the undisturbed run that all are held against."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import verifier
from tests.faults.runs import prepared
from tests.faults.victim import attempt

NEEDS = {"strace": "strace", "faketime": "faketime"}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = prepared(tmp_path_factory.mktemp("undisturbed"))
    (ended,) = attempt(run)
    assert ended.code == 0
    return verifier.fingerprint(run)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return prepared(tmp_path)


@pytest.fixture
def program(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The path of a program, or a skip that says how to get it."""

    def found(name: str) -> str:
        if path := shutil.which(name):
            return path
        pytest.skip(f"needs {name}: apt-get install {NEEDS[name]}")

    return found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system of its own in memory, of a size such as `300k`."""
    mounted: list[Path] = []

    def mount(size: str) -> Path:
        place = tmp_path / f"disk-{len(mounted)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount a tmpfs (needs root): {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Takes all but `leave` bytes of a disk; returns what to remove to have them back."""
    found = os.statvfs(disk)
    filler = disk / "filler"
    with filler.open("wb") as file:
        file.write(b"x" * max(0, found.f_bavail * found.f_frsize - leave))
    return filler
