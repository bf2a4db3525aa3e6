"""Symbolic links that somebody has put into a run's directory: nothing is written through one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from fusionrun.store import atomic
from fusionrun.store.checkpoints import save_checkpoint
from fusionrun.store.components import save_components
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import mark_status, read_status
from fusionrun.submit.cancel import cancel
from fusionrun.submit.handing import alone
from fusionrun.submit.journal import Submission, add_event, now, write_submission
from tests.hostile.conftest import refused
from tests.program import fusionrun

RECORD = {
    "run_id": "x-0123abcd-s0", "plan_hash": "0123abcd", "which": "best", "epoch": 0, "step": 1,
    "chosen_on": None, "test_split": "untouched", "classes": ["0", "1"],
}  # fmt: skip
MINE = b'{"mine": 1}\n' * 3


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file outside of the run that a link leads to."""
    path = tmp_path / "victim"
    path.write_bytes(MINE)
    return path


def plant(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)


# ------------------------------------------------------------------ the ways of writing


def test_a_file_that_is_replaced_replaces_the_link(tmp_path: Path, victim: Path) -> None:
    plant(tmp_path / "link", victim)
    atomic.write_text(tmp_path / "link", "new")
    assert not (tmp_path / "link").is_symlink()
    assert victim.read_bytes() == MINE


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing"])
def test_a_line_is_not_appended_through_a_link(tmp_path: Path, victim: Path, there: bool) -> None:
    target = victim if there else tmp_path / "nothing"
    plant(tmp_path / "link", target)
    with pytest.raises(OSError, match=r"a symbolic link, which nothing is written through.*link"):
        atomic.append_line(tmp_path / "link", {})
    assert victim.read_bytes() == MINE
    assert not (tmp_path / "nothing").exists()


def test_a_folder_of_a_run_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="a symbolic link"):
        atomic.make_folder(tmp_path / "link")
    atomic.make_folder(tmp_path / "new")
    atomic.make_folder(tmp_path / "new")


@pytest.mark.parametrize("planted", ["folder", "name"])
@pytest.mark.parametrize("what", ["components", "checkpoint"])
def test_weights_are_not_saved_through_a_link(tmp_path: Path, what: str, planted: str) -> None:
    elsewhere, run = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir()
    run.mkdir()
    target = run / "saved" / ("best" if what == "components" else "step-000000001")
    if planted == "folder":
        target.parent.symlink_to(elsewhere)
    else:
        target.parent.mkdir()
        target.symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic link") if planted == "folder" else nullcontext():
        if what == "components":
            save_components(target, {"fusion": {}}, record=RECORD)
        else:
            save_checkpoint(target.parent, 1, [("state", b"x")])
    assert list(elsewhere.iterdir()) == []
    assert planted == "folder" or (target.is_dir() and not target.is_symlink())


# ------------------------------------------------------------------ what a run writes


def job(layout: RunLayout) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "fusionrun.job", str(layout.root)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def begun_again(layout: RunLayout) -> None:
    """The run as it was before it was trained."""
    for path in (layout.checkpoints, layout.all_components, layout.logs):
        shutil.rmtree(path, ignore_errors=True)
    for name in ("status", "events", "metrics", "results", "outcome", "environment"):
        getattr(layout, name).unlink(missing_ok=True)


def test_training_replaces_every_link_in_its_place(trained: RunLayout, victim: Path) -> None:
    begun_again(trained)
    planted = [trained.status, trained.results, trained.outcome, trained.environment]
    for path in planted:
        plant(path, victim)
    done = job(trained)
    assert done.returncode == 0, done.stderr
    assert victim.read_bytes() == MINE
    assert [path for path in planted if path.is_symlink()] == []
    assert read_status(trained).state == "completed"


@pytest.mark.parametrize("name", ["events", "metrics"])
def test_no_line_of_a_run_lands_elsewhere(trained: RunLayout, victim: Path, name: str) -> None:
    begun_again(trained)
    plant(getattr(trained, name), victim)
    job(trained)
    assert victim.read_bytes() == MINE


def test_a_ranks_error_does_not_land_elsewhere(trained: RunLayout, tmp_path: Path) -> None:
    from fusionrun.train.rank_errors import record_error
    from fusionrun.train.rank_place import RankPlace

    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(trained.logs, ignore_errors=True)
    trained.logs.symlink_to(tmp_path / "elsewhere")
    record_error(trained, RankPlace(), None, ValueError("boom"))
    assert list((tmp_path / "elsewhere").iterdir()) == []


# ------------------------------------------------------------------ what a submitter writes


def submitted(layout: RunLayout) -> Submission:
    submission = Submission(
        executor="local",
        state="preparing",
        time=now(),
        snapshot={"id": "0" * 16},
        python=sys.executable,
        pythonpath=(os.getcwd(),),
    )
    write_submission(layout, submission)
    return submission


WRITERS: dict[str, Callable[[RunLayout], object]] = {
    "status": lambda layout: mark_status(layout, "stopped"),
    "submission": submitted,
    "stop_request": lambda layout: cancel(layout, at_once=False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_submitters_file_replaces_the_link(trained: RunLayout, victim: Path, name: str) -> None:
    if name == "stop_request":  # only a living run is asked to stop: this process's
        content = read_status(trained)
        alive = replace(content, state="running", pid=os.getpid(), host=os.uname().nodename)
        atomic.write_json(trained.status, alive.__dict__)
    path = getattr(trained, name)
    plant(path, victim)
    WRITERS[name](trained)
    assert victim.read_bytes() == MINE
    assert path.is_file()
    assert not path.is_symlink()


def test_an_event_through_a_link_is_refused(trained: RunLayout, victim: Path) -> None:
    plant(trained.events, victim)
    with pytest.raises(OSError, match="a symbolic link"):
        add_event(trained, "cancelled")
    assert victim.read_bytes() == MINE


def test_a_lock_creates_no_file_elsewhere(trained: RunLayout, tmp_path: Path) -> None:
    plant(trained.handing_lock, tmp_path / "created")
    with pytest.raises(OSError, match="a symbolic link"), alone(trained):
        pass
    assert not (tmp_path / "created").exists()


@pytest.mark.parametrize("what", ["log", "logs"])
def test_a_supervisor_does_not_log_elsewhere(
    trained: RunLayout, victim: Path, tmp_path: Path, what: str
) -> None:
    submitted(trained)
    shutil.rmtree(trained.logs, ignore_errors=True)
    (tmp_path / "elsewhere").mkdir()
    if what == "log":
        plant(trained.log, victim)
    else:
        trained.logs.symlink_to(tmp_path / "elsewhere")
    argv = [sys.executable, "-m", "fusionrun.submit.local", str(trained.root)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("link, which nothing is written through; remove that link\n")
    assert victim.read_bytes() == MINE
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_resume_says_so_and_starts_nothing(trained: RunLayout, victim: Path) -> None:
    (trained.root / "results.json").unlink()
    trained.outcome.unlink()
    mark_status(trained, "failed")
    shutil.rmtree(trained.logs, ignore_errors=True)
    plant(trained.log, victim)
    arguments = ("resume", trained.id, "--executor", "local", "--runs", trained.root.parent)
    said = refused(fusionrun(*arguments), 1, 2, 4)
    assert "log: a symbolic link, which nothing is written through; remove that link" in said
    assert victim.read_bytes() == MINE
