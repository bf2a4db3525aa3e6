"""A sweep without Slurm: its points one after the other, each a run that is cancelled and resumed.

The life of one sweep is lived once, and each test looks at a part of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fusionrun.errors import TrainingError
from fusionrun.launch import prepare
from fusionrun.plan.sweep import plan_points
from fusionrun.slurm.client import Slurm
from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import list_runs
from fusionrun.store.status import read_status, write_status
from fusionrun.submit.array_draft import Terms, draft_array
from fusionrun.submit.journal import read_events, read_submission
from fusionrun.submit.standing import standing
from fusionrun.train.rank_errors import record_error
from fusionrun.train.ranks import SINGLE
from tests.submit.life import MANY, call, events, until, write_recipe

pytestmark = pytest.mark.slow

# The first goes on until somebody ends it.
FOUR = f"sweep: {{zip: {{seed: [0, 1, 2, 3], training.epochs: [{MANY}, 2, 2, 2]}}}}"


class Life(NamedTuple):
    """What was seen of a sweep: its points, and what each command said, by its name here."""

    points: list[RunLayout]
    told: dict[str, Any]
    seen: dict[str, str]


def submitted(folder: Path, *options: str) -> dict[str, Any]:
    done = call("submit", "r.yaml", "--executor", "local", "--json", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def life(folder: Path) -> Life:
    write_recipe(folder / "r.yaml", "four", epochs=2, more=FOUR)
    dry = call("submit", "r.yaml", "--executor", "local", "--dry-run", cwd=folder)
    seen = {"dry run": dry.stdout, "written": str(list_runs(folder / "runs"))}
    told = submitted(folder)
    points = [RunLayout(Path(point["directory"])) for point in told["points"]]
    until("the first trains", lambda: read_status(points[0]).step > 0)

    def say(name: str, *arguments: object) -> None:
        done = call(*arguments, cwd=folder)
        seen[name] = f"{done.stdout}{done.stderr}ends with {done.returncode}"

    say("waiting", "status", points[1].id)
    say("again", "submit", "r.yaml", "--executor", "local")
    say("cancel", "cancel", points[1].id)
    say("cancelled", "status", points[1].id)
    say("cancel now", "cancel", points[2].id, "--now")
    say("resume", "resume", points[2].id)
    until("it has completed beside the sweep", lambda: standing(points[2]).is_complete)
    say("still waiting", "status", points[3].id)
    say("end the first", "cancel", points[0].id, "--now")
    until("the last has completed", lambda: standing(points[3]).is_complete)
    return Life(points, told, seen)


def test_a_dry_run_shows_the_points_and_writes_nothing(life: Life) -> None:
    assert "a sweep of 4 points, 4 to submit" in life.seen["dry run"]
    assert "at once     1\n" in life.seen["dry run"]
    assert life.seen["written"] == "[]"


def test_all_points_are_in_the_hands_of_one_process(life: Life) -> None:
    (process,) = life.told["arrays"]
    assert [point["job_id"] for point in life.told["points"]] == [process] * 4


def test_a_point_that_waits_says_for_what(life: Life) -> None:
    (process,) = life.told["arrays"]
    assert f"queued: waits for its turn in the sweep of process {process}" in life.seen["waiting"]
    assert "queued: waits for its turn" in life.seen["still waiting"]


def test_what_goes_on_is_not_submitted_twice(life: Life) -> None:
    assert "a sweep of 4 points, 0 to submit" in life.seen["again"]
    words = f"4 of its runs go on right now ({life.points[0].id}: process "
    assert f"nothing was submitted: {words}" in life.seen["again"]
    assert "ends with 2" in life.seen["again"]
    assert "snapshot" not in life.seen["again"]


def test_a_point_that_waits_is_taken_from_the_sweep(life: Life) -> None:
    assert "taken from the sweep" in life.seen["cancel"]
    assert "taken from the sweep" in life.seen["cancel now"]  # (and the sweep lives on)
    assert "stopped: " in life.seen["cancelled"]
    assert "started" not in events(life.points[1])


def test_a_point_that_was_taken_out_goes_on_by_itself(life: Life) -> None:
    assert "was stopped; goes on with the code of snapshot" in life.seen["resume"]
    submission = read_submission(life.points[2])
    assert submission is not None
    assert submission.last_job is not None
    assert submission.last_job.sweep == ""
    assert events(life.points[2]).count("started") == 1


def test_ending_one_point_lets_the_next_begin(life: Life) -> None:
    assert "killed" in life.seen["end the first"]
    ended = next(e for e in read_events(life.points[0]) if e["event"] == "cancelled")
    began = next(e for e in read_events(life.points[3]) if e["event"] == "started")
    assert ended["time"] <= began["time"]


def test_submitted_again_only_what_is_missing_is_trained(life: Life, folder: Path) -> None:
    again = submitted(folder)
    assert [point["state"] for point in again["points"]] == [
        "goes on",
        "goes on",
        "completed",
        "completed",
    ]
    until("the first trains again", lambda: events(life.points[0]).count("started") == 2)
    call("cancel", life.points[0].id, cwd=folder)
    until("the second has completed", lambda: standing(life.points[1]).is_complete)
    assert read_status(life.points[0]).state == "stopped"


def test_a_point_that_would_come_to_the_same_end_is_left_out(tmp_path: Path) -> None:
    write_recipe(tmp_path / "r.yaml", "two", epochs=1, more="sweep: {grid: {seed: [0, 1]}}")
    source, points = plan_points(tmp_path / "r.yaml", [], tmp_path / "runs")
    layout = prepare(points[0].plan, source.text, tmp_path / "runs", new=True).layout
    write_status(layout, "failed", epoch=0, step=3, attempts=1)
    error = TrainingError("step 3: not finite: loss total", "a lower rate", repeats=True)
    record_error(layout, SINGLE, 3, error)
    draft = draft_array(source, points, tmp_path / "runs", Slurm(), Terms(executor="local"))
    assert [slot.fate for slot in draft.slots] == ["ended", "new"]
    words = "failed, and would come to the same end: step 3: not finite: loss total"
    assert draft.slots[0].words == words
    assert [slot.fate for slot in draft.submitted] == ["new"]


def test_a_sweep_after_a_run_that_did_not_complete_is_refused(life: Life, folder: Path) -> None:
    options = ("--executor", "local", "--new", "--after", life.points[0].id)
    done = call("submit", "r.yaml", *options, cwd=folder)
    assert done.returncode == 2
    assert "--after waits for a run that completes" in done.stderr
