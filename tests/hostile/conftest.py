"""A file that nothing may ever create, and the ways in which hostile input would create it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest


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
