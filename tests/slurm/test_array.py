"""A sweep on a real Slurm: one array, a throttle, and only what failed again."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fusionrun.plan.sweep import plan_points
from fusionrun.slurm.client import Slurm
from fusionrun.slurm.script import header
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import read_status
from fusionrun.submit.array import arrays
from fusionrun.submit.array_draft import Terms, draft_array
from fusionrun.submit.journal import read_events, read_submission
from tests.slurm_cluster import Cluster
from tests.submit.life import call, environment, events, until, write_recipe

# The last of the six asks for a device that is not there.
SIX = """\
sweep: {zip: {seed: [0, 1, 2, 3, 4, 5], training.device: [cpu, cpu, cpu, cpu, cpu, cuda]}}
slurm: {nodes: 1, array_throttle: 2}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_recipe(tmp_path / "r.yaml", "it's $six", epochs=3, more=SIX)
    return tmp_path


def fusionrun(cluster: Cluster, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call(*arguments, cwd=folder, env=environment(**cluster.env))


def submitted(cluster: Cluster, folder: Path, *options: str) -> dict[str, Any]:
    done = fusionrun(cluster, folder, "submit", "r.yaml", "--json", *options)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def state(point: dict[str, Any]) -> str:
    return read_status(RunLayout(Path(point["directory"]))).state


@pytest.mark.slow
def test_six_points_run_two_at_a_time_and_only_the_failed_one_is_queued_again(
    cluster: Cluster, folder: Path
) -> None:
    first = submitted(cluster, folder)
    (array,) = first["arrays"]
    assert [point["job_id"] for point in first["points"]] == [f"{array}_{n}" for n in range(6)]
    at_once = []

    def is_over() -> bool:
        states = cluster.squeue("-h", "-r", "-o", "%T").split()
        at_once.append(states.count("RUNNING"))
        return not states

    until("the array is over", is_over, timeout_s=120)
    assert max(at_once) == 2
    assert [state(point) for point in first["points"]] == ["completed"] * 5 + ["failed"]

    again = submitted(cluster, folder)
    assert [point["state"] for point in again["points"]] == ["completed"] * 5 + ["goes on"]
    assert again["points"][5]["directory"] == first["points"][5]["directory"]
    assert [point["job_id"] for point in again["points"]] == [None] * 5 + [
        f"{again['arrays'][0]}_0"
    ]


def test_while_it_waits_a_sweep_is_not_queued_twice(cluster: Cluster, folder: Path) -> None:
    later = "--set=slurm.extra={begin: now+1hour}"
    assert fusionrun(cluster, folder, "submit", "r.yaml", later).returncode == 0
    done = fusionrun(cluster, folder, "submit", "r.yaml", later)
    assert "a sweep of 6 points, 0 to submit" in done.stdout
    assert "waits in the queue" in done.stdout
    assert done.returncode == 2
    (array,) = {line.partition("_")[0] for line in cluster.squeue("-h", "-r", "-o", "%i").split()}
    runs = sorted((folder / "runs").glob("*-s0"))
    assert fusionrun(cluster, folder, "cancel", runs[0].name).returncode == 0
    assert f"{array}_0" not in cluster.squeue("-h", "-r", "-o", "%i").split()


def test_a_dry_run_shows_the_script_and_writes_nothing(cluster: Cluster, folder: Path) -> None:
    done = fusionrun(cluster, folder, "submit", "r.yaml", "--dry-run")
    assert done.returncode == 0, done.stderr
    script = done.stdout[done.stdout.index("#!/bin/bash") :]
    assert header(script)["array"] == "0-5%2"
    assert not (folder / "runs").exists()
    assert cluster.squeue("-h") == ""


def test_a_sweep_beyond_what_an_array_may_hold_is_split(cluster: Cluster, folder: Path) -> None:
    source, points = plan_points(folder / "r.yaml", [], folder / "runs")
    draft = draft_array(source, points, folder / "runs", Slurm(cluster.environment()), Terms())
    assert draft.max_array_size == 1001
    made = list(arrays(replace(draft, max_array_size=4)))
    assert [header(array.script)["array"] for array in made] == ["0-3%2", "0-1%2"]
    assert len({array.layout.id for array in made}) == 2


def test_a_refused_array_marks_every_run_rejected(cluster: Cluster, folder: Path) -> None:
    done = fusionrun(cluster, folder, "submit", "r.yaml", "--set", "slurm.partition=nowhere")
    assert done.returncode == 4
    assert "invalid partition" in done.stderr.lower()
    runs = [RunLayout(path) for path in (folder / "runs").glob("*-s?")]
    assert len(runs) == 6
    states = {submission.state for run in runs if (submission := read_submission(run))}
    assert states == {"rejected"}


def test_a_sweep_waits_for_a_run_and_ends_with_it(cluster: Cluster, folder: Path) -> None:
    write_recipe(folder / "first.yaml", "first", more="slurm: {extra: {begin: now+1hour}}")
    told = fusionrun(cluster, folder, "submit", "first.yaml", "--json").stdout
    first = json.loads(told)
    done = fusionrun(cluster, folder, "submit", "r.yaml", "--json", "--after", first["run"])
    (array,) = json.loads(done.stdout)["arrays"]
    assert cluster.job(array)["Dependency"].startswith(f"afterok:{first['job_id']}")
    # As where the first goes on as another job: each task is told of that one.
    Slurm(cluster.environment()).depend(f"{array}_5", f"afterany:{first['job_id']}")
    assert cluster.job(f"{array}_5")["Dependency"].startswith(f"afterany:{first['job_id']}")
    runs = [RunLayout(path) for path in (folder / "runs").glob("it-s*")]
    waits = {json.dumps(s.after) for run in runs if (s := read_submission(run))}
    assert waits == {json.dumps({"run": first["run"], "kind": "ok"})}
    cluster.run("scancel", first["job_id"])
    until("those that wait for its success are gone", lambda: gone(cluster, f"{array}_0"))


def test_a_run_waits_for_every_point_of_a_sweep_by_its_name(cluster: Cluster, folder: Path) -> None:
    told = submitted(cluster, folder, "--set=slurm.extra={begin: now+1hour}")
    write_recipe(folder / "next.yaml", "it's next", more="slurm: {nodes: 1}")
    done = fusionrun(cluster, folder, "submit", "next.yaml", "--json", "--after", "it's $six")
    assert done.returncode == 0, done.stderr
    behind = json.loads(done.stdout)
    ids = sorted(point["run"] for point in told["points"])
    assert behind["waits_for"] == {"runs": ids, "kind": "ok"}
    jobs = sorted(point["job_id"] for point in told["points"])
    awaited = cluster.job(behind["job_id"])["Dependency"].split(",")
    assert sorted(part.partition("(")[0] for part in awaited) == [f"afterok:{job}" for job in jobs]
    fusionrun(cluster, folder, "cancel", ids[3])
    until("it left the queue with one of them", lambda: gone(cluster, behind["job_id"]))


@pytest.mark.slow
def test_an_arrays_last_task_goes_back_into_the_queue_alone(cluster: Cluster, folder: Path) -> None:
    write_recipe(folder / "r.yaml", "two", more="sweep: {seeds: [0, 1]}\nslurm: {nodes: 1}")
    told = submitted(cluster, folder)
    (array,) = told["arrays"]
    others, its = (RunLayout(Path(point["directory"])) for point in told["points"])
    until("both train", lambda: all(read_status(run).step for run in (others, its)))
    assert last(its, "started")["job_id"] == array  # its own number is that of the whole
    Slurm(cluster.environment()).signal(f"{array}_1", "USR1")
    until("it trains again", lambda: events(its).count("started") == 2)
    assert "requeue_refused" not in events(its)
    assert last(its, "requeued")["job_id"] == f"{array}_1"
    assert events(others).count("started") == 1
    assert cluster.job(f"{array}_0")["Restarts"] == "0"
    assert {*cluster.squeue("-h", "-r", "-o", "%i").split()} == {f"{array}_0", f"{array}_1"}


def last(layout: RunLayout, what: str) -> dict[str, Any]:
    return [event for event in read_events(layout) if event["event"] == what][-1]


def gone(cluster: Cluster, task: str) -> bool:
    return task not in cluster.squeue("-h", "-r", "-o", "%i").split()


def test_a_new_array_leaves_room_for_what_goes_on(cluster: Cluster, folder: Path) -> None:
    later = "--set=slurm.extra={begin: now+1hour}"
    submitted(cluster, folder, later)
    run = sorted((folder / "runs").glob("it-s*-s0"))[0]
    fusionrun(cluster, folder, "cancel", run.name)
    done = fusionrun(cluster, folder, "submit", "r.yaml", later, "--dry-run")
    assert "at once     1, beside the 5 submitted before" in done.stdout
    assert "#SBATCH --array=0-0%1" in done.stdout
