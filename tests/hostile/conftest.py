"""A file that nothing may ever create, and the ways in which hostile input would create it."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import list_runs


class _Sings:
    """Unpickling one runs a command."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self._command,)


class Canary:
    """A path that stays empty as long as no hostile code runs.

    Attributes:
        path: would be created.
        command: a shell command that would create it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.command = f"touch {path}"

    @property
    def object(self) -> object:
        """Something that runs the command when it is unpickled."""
        return _Sings(self.command)

    @property
    def pickled(self) -> bytes:
        return pickle.dumps(self.object)

    def sang(self) -> bool:
        return self.path.exists()


@pytest.fixture
def canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    """After each test that has it: whatever was tried, nothing of it was run."""
    canary = Canary(tmp_path_factory.mktemp("canary") / "sang")
    yield canary
    assert not canary.sang()


RECIPE = """\
version: 1
name: hostile
data: {source: npz, path: package:handwritten_digits, label: label}
experts:
  a: {model: mlp, view: fourier, hidden: [4], features: 4}
  b: {model: mlp, view: zernike, hidden: [4], features: 4}
fusion: {type: concatenation}
training: {epochs: 1, device: cpu}
"""


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    """A run as the program leaves it. Nobody may change it: see `trained`."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "recipe.yaml").write_text(RECIPE)
    argv = [sys.executable, "-m", "fusionrun", "train", "recipe.yaml", "--runs", "runs"]
    subprocess.run(argv, cwd=folder, check=True, capture_output=True)
    (layout,) = list_runs(folder / "runs")
    return layout


@pytest.fixture
def trained(trained_once: RunLayout, tmp_path: Path) -> RunLayout:
    """A run of this test's own, in `tmp_path/runs`."""
    root = tmp_path / "runs" / trained_once.id
    shutil.copytree(trained_once.root, root)
    return RunLayout(root)


def refused(done: Result, *codes: int) -> str:
    """What a command says that refuses something: words, and never a traceback."""
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code in (codes or (1, 2)), done.output
    assert "Traceback" not in done.stderr
    return done.stderr
