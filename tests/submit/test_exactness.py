"""What would not go on exactly is refused before anything is started, as far as it can be seen."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from fusionrun.data.content import content_hash
from fusionrun.errors import InexactError
from fusionrun.plan.stored import read_plan
from fusionrun.store.checkpoints import PLACE, save_checkpoint
from fusionrun.store.layout import RunLayout
from fusionrun.submit.exactness import refuse_inexact
from tests.program import fusionrun
from tests.small_runs import SMALL, prepared

HERE = {
    "python": ".".join(map(str, sys.version_info[:2])),
    "torch": version("torch"),
    "numpy": version("numpy"),
}


@pytest.fixture
def run(tmp_path: Path) -> RunLayout:
    return prepared(tmp_path, recipe=SMALL)


def saved(run: RunLayout, step: int, **around: str) -> Path:
    """A checkpoint, as far as it is looked at."""
    data = content_hash(read_plan(run.plan).data.files)
    place: dict[str, Any] = {"data": data, "circumstances": {**HERE, **around}}
    return save_checkpoint(run.checkpoints, step, [(PLACE, json.dumps(place).encode())]).path


def asked(run: RunLayout, python: str = sys.executable) -> None:
    refuse_inexact(run, read_plan(run.plan), python)


def test_a_run_that_is_as_it_was_goes_on(run: RunLayout) -> None:
    asked(run)  # (from the beginning)
    saved(run, 4)
    asked(run)


def test_how_torch_was_built_is_left_to_the_trainer(run: RunLayout) -> None:
    saved(run, 4, torch=HERE["torch"].partition("+")[0] + "+elsewhere")
    asked(run)


def test_other_versions_are_refused_all_at_once(run: RunLayout) -> None:
    saved(run, 4, python="3.9", torch="1.0.0")
    with pytest.raises(InexactError, match=r"python: was 3\.9, is ") as caught:
        asked(run)
    assert len(caught.value.differences) == 2


def test_of_another_interpreter_only_the_data_are_known(run: RunLayout) -> None:
    saved(run, 4, torch="1.0.0")
    asked(run, "/elsewhere/python")


def test_the_newest_whole_checkpoint_counts(run: RunLayout) -> None:
    saved(run, 4)
    newer = saved(run, 8, torch="1.0.0") / PLACE
    newer.write_bytes(newer.read_bytes().replace(b"1.0.0", b"1.0.1"))
    asked(run)


def test_other_data_are_refused(tmp_path: Path) -> None:
    from fusionrun.data.paths import resolve_path

    shipped = resolve_path("package:handwritten_digits", tmp_path)
    (tmp_path / "d.npz").write_bytes(shipped.read_bytes())
    run = prepared(tmp_path, "data.path=d.npz", recipe=SMALL)
    saved(run, 4)
    asked(run)
    (tmp_path / "d.npz").write_bytes(shipped.read_bytes() + b"x")
    with pytest.raises(InexactError, match=rf"file's content has changed\n.*resume {run.id} "):
        asked(run, "/elsewhere/python")


def test_resume_starts_nothing_and_says_how_to_go_on_all_the_same(run: RunLayout) -> None:
    saved(run, 4, torch="1.0.0")
    before = sorted(run.root.rglob("*"))
    arguments = ("resume", run.id, "--runs", str(run.root.parent), "--executor", "local")
    done = fusionrun(*arguments)
    assert done.exit_code == 2
    assert "torch: was 1.0.0, is " in done.output
    assert "--allow-inexact" in done.output
    assert {path.name for path in set(run.root.rglob("*")) - set(before)} <= {".handing"}
