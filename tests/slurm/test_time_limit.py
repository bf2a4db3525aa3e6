"""A run that Slurm itself stops at its time limit, and that ends as if nothing had been."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import fusionrun
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import read_status
from fusionrun.submit.journal import read_events
from tests.slurm.test_submit import Site, job_of
from tests.slurm_cluster import Cluster
from tests.submit.life import call, environment, write_recipe

EPOCHS = 180
STEPS = 10 * EPOCHS
# Two minutes and more, without keeping a processor busy; what is computed stays the same.
SLOWLY = """
_look = Boundary.__call__


def _slowly(self, epochs):
    time.sleep(0.08)
    _look(self, epochs)


Boundary.__call__ = _slowly
"""


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    return Site(cluster, tmp_path)


def slowed_down(folder: Path) -> Path:
    """A copy of the code whose steps take their time."""
    package, own = folder / "code" / "fusionrun", Path(fusionrun.__file__).parent
    shutil.copytree(own, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(own.parent / "templates", package.parent / "templates")
    with (package / "train" / "job.py").open("a") as file:
        file.write(SLOWLY)
    return package.parent


def undisturbed(folder: Path, recipe: Path) -> RunLayout:
    done = call("train", recipe, "--json", cwd=folder, env=environment(FUSIONRUN_RUNS="other"))
    assert done.returncode == 0, done.stderr
    (root,) = (folder / "other").iterdir()
    return RunLayout(root)


def of_kind(events: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == what]


def weights(layout: RunLayout) -> dict[str, bytes]:
    root = layout.all_components
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.safetensors")}


@pytest.mark.long
@pytest.mark.slow
def test_slurms_own_time_limit_leaves_no_trace_in_what_is_trained(site: Site) -> None:
    slurm = "slurm: {nodes: 1, time: '00:02:00', grace: 60}"
    recipe = write_recipe(site.folder / "r.yaml", "limited", EPOCHS, slurm)
    code = slowed_down(site.folder)
    done = site.call("submit", recipe, "--json", PYTHONPATH=str(code))
    assert done.returncode == 0, done.stderr
    layout = RunLayout(Path(json.loads(done.stdout)["directory"]))
    assert site.cluster.wait(job_of(layout), "COMPLETED", timeout_s=900) == "COMPLETED"
    assert read_status(layout).state == "completed"

    events = read_events(layout)
    started, requeued = of_kind(events, "started"), of_kind(events, "requeued")
    assert requeued
    assert all("its time was up at step" in event["why"] for event in requeued)
    assert [event["resumed_from"] for event in started] == [None, *(e["step"] for e in requeued)]
    assert all(before < after for before, after in pairwise(event["step"] for event in requeued))
    assert site.cluster.job(job_of(layout))["Restarts"] == str(len(requeued))

    lines = [json.loads(line) for line in layout.metrics.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(EPOCHS))
    assert read_status(layout).step == STEPS
    log = layout.log.read_text()
    marks = [f"attempt {n} goes on at step {e['step']}" for n, e in enumerate(requeued, 2)]
    places = [log.index(mark) for mark in ("epoch   1/180", *marks, f"completed: {layout.root}")]
    assert places == sorted(places)

    assert weights(layout) == weights(undisturbed(site.folder, recipe))
