"""A staged recipe in the background, without Slurm: experts one after the other, then fusion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fusionrun.store.layout import RunLayout
from fusionrun.store.status import read_status
from fusionrun.submit.journal import read_submission
from fusionrun.submit.standing import standing
from tests.submit.life import MANY, call, events, until, write_recipe

pytestmark = pytest.mark.slow

STAGES = """\
stages:
  - {{stage: pretrain, epochs: {epochs}}}
  - {{stage: joint, epochs: 2}}
"""


class Life(NamedTuple):
    """What was seen of a staged recipe: its runs, and what each command said."""

    alone: list[RunLayout]
    fused: RunLayout
    seen: dict[str, str]


def recipe(folder: Path, epochs: int) -> None:
    path = write_recipe(folder / "r.yaml", "staged", more=STAGES.format(epochs=epochs))
    path.write_text(path.read_text().replace(f"epochs: {MANY}, ", ""))


def submitted(folder: Path, *options: str) -> dict[str, Any]:
    done = call("submit", "r.yaml", "--executor", "local", "--json", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def runs_of(points: list[dict[str, Any]]) -> list[RunLayout]:
    return [RunLayout(Path(point["directory"])) for point in points]


@pytest.fixture(scope="module")
def life(folder: Path) -> Life:
    """Submitted; an expert is ended, so the fused run gives up; submitted again, all completes."""
    recipe(folder, 40)
    told, seen = submitted(folder), dict[str, str]()
    alone, (fused,) = runs_of(told["pretraining"]), runs_of(told["points"])
    seen["cancel"] = call("cancel", alone[1].id, cwd=folder).stdout
    until("the fused run has given up", lambda: read_status(fused).state == "stopped")
    seen["gave up"] = call("status", fused.id, cwd=folder).stdout
    until("the first has completed", lambda: standing(alone[0]).is_complete)
    again = submitted(folder)
    seen["again"] = str([point["state"] for point in (*again["pretraining"], *again["points"])])
    seen["waits"] = call("status", fused.id, cwd=folder).stdout
    until("all of it has completed", lambda: standing(fused).is_complete)
    return Life(alone, fused, seen)


def test_a_fused_run_does_not_begin_without_an_expert(life: Life) -> None:
    assert f"{life.alone[1].id} did not complete" in life.seen["gave up"]
    assert events(life.fused).count("started") == 1


def test_submitted_again_only_what_is_missing_is_trained(life: Life) -> None:
    assert life.seen["again"] == str(["completed", "goes on", "goes on"])
    assert [events(run).count("started") for run in life.alone] == [1, 1]


def test_it_names_the_runs_that_it_waits_for(life: Life) -> None:
    assert f"waits for {life.alone[1].id} to end" in life.seen["waits"]
    submission = read_submission(life.fused)
    assert submission is not None
    assert submission.awaited == (life.alone[1].id,)
