"""A staged recipe on a real Slurm: an array of experts, and the fused run behind it."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from fusionrun.slurm.script import header
from fusionrun.store.layout import RunLayout
from fusionrun.store.status import read_status
from fusionrun.submit.journal import Submission, read_events, read_submission
from tests.slurm_cluster import Cluster
from tests.submit.life import call, environment, events, until

Point = dict[str, Any]

RECIPE = """\
version: 1
name: it's $staged
preset: tuned
data: {{source: npz, path: package:handwritten_digits, label: label, expert_shares: iid}}
experts:
  fourier: {{model: mlp, view: fourier, hidden: [4], features: 4}}
  zernike: {{model: mlp, view: zernike, hidden: [4], features: 4}}
  karhunen: {{model: mlp, view: karhunen_loeve, hidden: [4], features: 4}}
  profile: {{model: mlp, view: profile_correlations, hidden: [4], features: 4}}
fusion: {{type: concatenation}}
training: {{device: cpu, engine: eager}}
stages:
  - {{stage: pretrain, epochs: {epochs}}}
  - {{stage: warmup, epochs: 1}}
  - {{stage: joint, epochs: 2}}
slurm: {{nodes: 1{slurm}}}
"""
LATER = ", extra: {begin: now+1hour}"


class Site:
    """A folder with a staged recipe, and the commands called there on the cluster."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.env = environment(**cluster.env)

    def recipe(self, epochs: int, slurm: str = "") -> None:
        (self.folder / "r.yaml").write_text(RECIPE.format(epochs=epochs, slurm=slurm))

    def call(self, *arguments: object, code: int = 0) -> str:
        done = call(*arguments, cwd=self.folder, env=self.env)
        assert done.returncode == code, done.stderr
        return done.stdout

    def submit(self) -> tuple[list[Point], Point]:
        """The points of pretraining, and the fused one, as `--json` tells them."""
        told = json.loads(self.call("submit", "r.yaml", "--json"))
        (fused,) = told["points"]
        return told["pretraining"], fused


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    return Site(cluster, tmp_path)


def run_of(point: Point) -> RunLayout:
    return RunLayout(Path(point["directory"]))


def journal(layout: RunLayout) -> Submission:
    submission = read_submission(layout)
    assert submission is not None
    return submission


def state(layout: RunLayout) -> str:
    return read_status(layout).state


@pytest.mark.slow
def test_the_fused_run_waits_for_every_expert_and_leaves_with_one(site: Site) -> None:
    site.recipe(3, LATER)
    alone, fused = site.submit()
    (array,) = {point["job_id"].partition("_")[0] for point in alone}
    assert [point["job_id"] for point in alone] == [f"{array}_{n}" for n in range(4)]
    ids = [point["run"] for point in alone]
    assert journal(run_of(fused)).after == {"runs": ids, "kind": "ok"}
    dependency = site.cluster.job(fused["job_id"])["Dependency"]
    assert [part.partition("(")[0] for part in dependency.split(",")] == [
        f"afterok:{array}_{n}" for n in range(4)
    ]
    shown = site.call("status", fused["run"])
    assert f"it waits for {', '.join(ids[:3])} and 1 more to end" in shown

    assert "fused       1 run, 0 to submit" in site.call("submit", "r.yaml", code=2)
    site.call("cancel", ids[1])
    until("it left the queue with the expert", lambda: not queued(site, fused["job_id"]))
    shown = site.call("status", fused["run"])
    assert f"It begins when {', '.join(ids[:3])} and 1 more have completed." in shown
    again, fused_again = site.submit()
    assert [point["state"] for point in again] == ["living", "goes on", "living", "living"]
    assert fused_again["directory"] == fused["directory"]
    assert fused_again["state"] == "goes on"
    site.call("cancel", fused["run"])
    shown = site.call("status", fused["run"])
    assert f"job {fused_again['job_id']}\n" in shown
    assert fused["job_id"] not in shown


def queued(site: Site, handle: str) -> bool:
    return handle in site.cluster.squeue("-h", "-r", "-o", "%i").split()


def test_a_dry_run_shows_both_scripts_and_writes_nothing(site: Site) -> None:
    site.recipe(3)
    shown = site.call("submit", "r.yaml", "--dry-run")
    scripts = ["#!/bin/bash" + text for text in shown.split("#!/bin/bash")[1:]]
    assert [header(script)["array"] for script in scripts] == ["0-3", "0-0"]
    assert header(scripts[0])["job-name"] == "it-s-staged-pretrain"
    headings = re.findall(r"^script {6}of the array (\S+): (.*)$", shown, re.MULTILINE)
    assert [tasks for _, tasks in headings] == ["4 tasks", "1 task"]
    assert "pretrain" in headings[0][0]
    assert not (site.folder / "runs").exists()


@pytest.mark.slow
def test_an_expert_that_was_killed_is_resumed_alone_and_the_rest_is_kept(site: Site) -> None:
    """Four jobs, then fusion: one expert dies, the fused run ends, and only these two go on."""
    site.recipe(40)
    alone, fused = site.submit()
    runs = [run_of(point) for point in alone]
    victim = runs[2]
    until("it has begun", lambda: "started" in events(victim))
    os.kill(read_status(victim).pid, signal.SIGKILL)
    until("the fused run is ended", lambda: journal(run_of(fused)).state == "cancelled")
    assert f"{victim.id} did not complete" in journal(run_of(fused)).words
    assert "started" not in events(run_of(fused))
    others = [run for run in runs if run is not victim]
    until("the others go on to their ends", lambda: {state(r) for r in others} == {"completed"})

    site.call("resume", victim.id)
    _, fused = site.submit()  # (while the expert goes on)
    assert fused["state"] == "goes on"
    assert journal(run_of(fused)).awaited == (victim.id,)
    until("the fused run has completed", lambda: state(run_of(fused)) == "completed", 90)
    assert [events(run).count("started") for run in runs] == [1, 1, 2, 1]
    taken = json.loads(run_of(fused).start.read_text())
    assert {own["run"] for own in taken.values()} == {run.id for run in runs}
    waited = [event["event"] for event in read_events(run_of(fused))]
    assert waited.count("submitted") == 2
