"""What the tests of submitting share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fusionrun.store.runs import list_runs
from fusionrun.submit.journal import read_submission
from tests.submit.life import call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory whose runs end with the tests."""
    path = tmp_path_factory.mktemp("a folder; $(touch x) 'q'")
    yield path
    for layout in list_runs(path / "runs"):
        submission = read_submission(layout)
        if submission and submission.executor == "local":
            call("cancel", layout.id, "--now", cwd=path)
