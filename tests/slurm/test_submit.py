"""A run's life on a real Slurm: queued, refused, stopped, gone on, cancelled, waited for."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

import fusionrun
from fusionrun.launch import prepare
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.slurm.client import Slurm
from fusionrun.slurm.script import header
from fusionrun.store.layout import RunLayout
from fusionrun.store.runs import list_runs
from fusionrun.store.status import read_status, write_status
from fusionrun.submit.journal import Submission, is_lost, read_events, read_submission
from fusionrun.submit.preview import CODE
from fusionrun.submit.queueing import jobs_of
from tests.slurm_cluster import Cluster
from tests.submit.life import call, environment, events, until, write_recipe

Done = CompletedProcess[str]
LATER = ", extra: {begin: now+1hour}"


class Site:
    """A folder with recipes, and the commands called there on the cluster."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.env = environment(**cluster.env)
        self.slurm = Slurm(cluster.environment())

    def call(self, *arguments: object, **env: str) -> Done:
        return call(*arguments, cwd=self.folder, env={**self.env, **env})

    def recipe(self, name: str, slurm: str = "", **more: Any) -> Path:
        path = self.folder / "r.yaml"
        return write_recipe(path, name, more=f"slurm: {{nodes: 1{slurm}}}", **more)

    def submit(self, name: str, slurm: str = "", *options: str, **more: Any) -> RunLayout:
        done = self.call("submit", self.recipe(name, slurm, **more), "--json", *options)
        assert done.returncode == 0, done.stderr
        return RunLayout(Path(json.loads(done.stdout)["directory"]))

    def jobs(self, layout: RunLayout) -> list[str]:
        """Ids of the run's living jobs."""
        return [job.id for job in jobs_of(self.slurm, layout)]

    def all_jobs(self, layout: RunLayout) -> set[str]:
        """Ids of all the run's jobs that Slurm remembers."""
        return {job.id for job in self.slurm.find(layout.id, ended=True)}


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    folder = tmp_path / "a folder; $(touch x) 'q' %j #1"
    folder.mkdir()
    return Site(cluster, folder)


def journal(layout: RunLayout) -> Submission:
    submission = read_submission(layout)
    assert submission is not None
    return submission


def job_of(layout: RunLayout) -> str:
    job_id = journal(layout).job_id
    assert job_id is not None
    return job_id


def trains(layout: RunLayout, attempts: int = 1) -> Callable[[], bool]:
    def does() -> bool:
        started = [event for event in read_events(layout) if event["event"] == "started"]
        if len(started) != attempts:
            return False
        status = read_status(layout)
        return status.state == "running" and status.step > (started[-1]["resumed_from"] or 0)

    return does


def last(layout: RunLayout, what: str) -> dict[str, Any]:
    return [event for event in read_events(layout) if event["event"] == what][-1]


# Handing over


def test_plan_shows_the_script_that_submit_will_queue(site: Site) -> None:
    recipe = site.recipe("it's a $plan", ", time: '01:00:00'")
    told = json.loads(site.call("submit", recipe, "--dry-run", "--json").stdout)
    planned = json.loads(site.call("plan", recipe, "--json").stdout)
    assert planned["script"].replace(CODE, told["snapshot"]["id"]) == told["script"]


def test_a_run_is_queued_and_completes_and_the_screen_says_all_there_is(site: Site) -> None:
    recipe = site.recipe("Ein Lauf; $(touch x) `y` #1 %n", epochs=1)
    done = site.call("submit", recipe)
    assert done.returncode == 0, done.stderr
    (layout,) = list_runs(site.folder / "runs")
    job_id = job_of(layout)
    for line in (
        "executor    slurm: the recipe or the site has a slurm section",
        "world size  1 process",
        f"snapshot    {journal(layout).snapshot['id']}: ",
        f"script      {layout.job_script.absolute()}",
        "verdict     accepted: ",
        "starts      expected 20",
        f"job         {job_id}",
        f"log         {layout.log.absolute()}",
    ):
        assert f"\n{line}" in done.stdout
    assert site.cluster.wait(job_id, "COMPLETED") == "COMPLETED"
    assert read_status(layout).state == "completed"
    assert last(layout, "started")["job_id"] == job_id
    assert not [path for path in site.folder.rglob("[xy]") if path.is_file()]


def test_an_impossible_request_is_refused_in_slurms_words_and_marked(site: Site) -> None:
    done = site.call("submit", site.recipe("big", ", cpus_per_task: 999"))
    assert done.returncode == 4
    assert "Slurm refuses it\n  " in done.stderr
    (layout,) = list_runs(site.folder / "runs")
    assert journal(layout).state == "rejected"
    assert "configuration is not available" in journal(layout).words
    assert events(layout) == ["rejected"]
    assert site.all_jobs(layout) == set()
    told = site.call("status", layout.id).stdout
    assert "rejected: Slurm refuses it: " in told
    assert "configuration is not available" in told


def test_what_slurm_would_misread_is_refused_with_its_place(site: Site) -> None:
    done = site.call("submit", site.recipe("odd", ', time: "1:30"'))
    assert done.returncode == 2
    assert "r.yaml:9:" in done.stderr
    assert "90 seconds" in done.stderr
    assert not (site.folder / "runs").exists()


BEYOND = {
    "time": (', partition: short, time: "00:10:00"', "slurm.time", "5 min, the limit of partition"),
    "nodes": (", partition: short, nodes: 3", "slurm.nodes", "at most 2, of the 2 in partition"),
}


@pytest.mark.parametrize("what", BEYOND)
def test_what_its_partition_can_never_start_is_refused_with_its_place(
    site: Site, what: str
) -> None:
    slurm, key, expected = BEYOND[what]
    recipe = write_recipe(site.folder / "r.yaml", "far", more=f"slurm: {{{slurm[2:]}}}")
    done = site.call("submit", recipe)
    assert done.returncode == 2
    assert re.search(rf"r\.yaml:9:\d+  {key}\n", done.stderr)
    assert f"{expected} short" in done.stderr
    assert not (site.folder / "runs").exists()


def test_a_dry_run_without_a_controller_shows_the_script_all_the_same(site: Site) -> None:
    site.cluster.stop_controller()
    done = site.call("submit", site.recipe("alone"), "--dry-run")
    assert done.returncode == 4
    assert "#SBATCH --nodes=1" in done.stdout
    assert "verdict     missing" in done.stdout
    assert "out of reach" in done.stderr
    assert not (site.folder / "runs").exists()


def test_a_resume_that_slurm_refuses_leaves_the_run_as_it_ended(site: Site) -> None:
    recipe = write_recipe(
        site.folder / "r.yaml", "again", more="slurm: {extra: {licenses: none_such}}"
    )
    layout = interrupted(recipe, site.folder / "runs")
    done = site.call("resume", layout.id)
    assert done.returncode == 4
    assert not layout.submission.exists()
    told = site.call("status", layout.id).stdout
    assert "state       stopped: interrupted at the keyboard" in told
    assert "refused     when it was last to go on: Slurm refuses it: " in told
    site.cluster.stop_controller()
    alone = site.call("resume", layout.id)
    assert alone.returncode == 4
    assert f"`fusionrun resume {layout.id} --executor local` goes on" in alone.stderr
    assert not layout.submission.exists()
    assert not is_lost(layout)


def test_a_run_of_the_foreground_goes_on_in_a_job_with_the_code_as_it_is(site: Site) -> None:
    recipe = write_recipe(site.folder / "r.yaml", "taken", epochs=1, more="slurm: {nodes: 1}")
    layout = interrupted(recipe, site.folder / "runs")
    done = site.call("resume", layout.id, PYTHONPATH="/no/such/folder")
    assert done.returncode == 0, done.stderr
    words = "trained in the foreground, with no snapshot: it goes on with the code as it is now"
    assert words in done.stdout
    assert site.cluster.wait(job_of(layout), "COMPLETED") == "COMPLETED"
    assert read_status(layout).state == "completed"


def interrupted(recipe: Path, runs: Path) -> RunLayout:
    """A run as Ctrl-C in the foreground leaves it before the first checkpoint."""
    source = read_recipe(recipe)
    layout = prepare(make_plan(source, runs), source.text, runs, new=False).layout
    write_status(layout, "interrupted", epoch=0, step=0, attempts=1)
    return layout


def test_without_a_controller_nothing_is_written(site: Site) -> None:
    site.cluster.stop_controller()
    done = site.call("submit", site.recipe("nobody"))
    assert done.returncode == 4
    assert "out of reach" in done.stderr
    assert not (site.folder / "runs").exists()


def test_a_dry_run_shows_script_and_verdict_and_leaves_nothing(site: Site) -> None:
    recipe = site.recipe("dry", ', time: "00:10:00"')
    first, second = (site.call("submit", recipe, "--dry-run", "--json") for _ in range(2))
    told = json.loads(first.stdout)
    assert told["verdict"]["accepted"]
    assert header(told["script"])["time"] == "00:10:00"
    assert json.loads(second.stdout)["script"] == told["script"]
    assert list(site.folder.iterdir()) == [recipe]
    shown = site.call("submit", recipe, "--dry-run").stdout
    assert told["script"].rstrip() in shown
    assert "\nverdict     accepted" in shown


def test_a_refused_dry_run_ends_as_the_submit_would(site: Site) -> None:
    done = site.call("submit", site.recipe("big", ", cpus_per_task: 999"), "--dry-run")
    assert done.returncode == 4
    assert "Slurm would refuse it" in done.stderr
    assert "#SBATCH --cpus-per-task=999" in done.stdout


def test_a_template_of_ones_own_and_the_sites_settings_are_taken(site: Site) -> None:
    (site.folder / "mine.j2").write_text(
        "#!/bin/bash\n{% for option in options %}\n#SBATCH {{ option }}\n{% endfor %}\n"
        "python -m fusionrun.job .\npython -m fusionrun.submit.after . --code $?\n: mine\n"
    )
    (site.folder / "site.yaml").write_text("time: '00:07:00'\n")
    recipe = write_recipe(site.folder / "r.yaml", "own")
    options = ("--template", "mine.j2", "--site", "site.yaml", "--dry-run", "--json")
    told = json.loads(site.call("submit", recipe, *options).stdout)
    assert told["script"].endswith(": mine\n")
    assert header(told["script"])["time"] == "00:07:00"


def test_a_run_that_waits_in_the_queue_is_not_submitted_twice(site: Site) -> None:
    layout = site.submit("once", LATER)
    again = site.call("submit", site.folder / "r.yaml")
    assert again.returncode == 2
    assert f"job {job_of(layout)} waits in the queue" in again.stderr
    trained = site.call("train", site.folder / "r.yaml")
    assert trained.returncode == 2
    assert f"job {job_of(layout)} waits in the queue" in trained.stderr
    assert site.call("submit", site.folder / "r.yaml", "--new").returncode == 0


def slow_sbatch(site: Site, folder: Path) -> str:
    """A PATH whose sbatch queues a job and then does not come back."""
    folder.mkdir()
    real = shutil.which("sbatch", path=site.env["PATH"])
    fake = folder / "sbatch"
    fake.write_text(
        f'#!/bin/bash\ncase "$*" in *--test-only*) exec {real} "$@";; esac\n'
        f'{real} "$@" >/dev/null\nsleep 60\n'
    )
    fake.chmod(0o755)
    return f"{folder}:{site.env['PATH']}"


def test_a_sbatch_that_does_not_answer_leaves_exactly_one_job(site: Site, tmp_path: Path) -> None:
    path = slow_sbatch(site, tmp_path / "bin")
    recipe = site.recipe("slow", LATER)
    done = site.call("submit", recipe, "--json", PATH=path, FUSIONRUN_SLURM_TIMEOUT_S="2")
    assert done.returncode == 0, done.stderr
    layout = RunLayout(Path(json.loads(done.stdout)["directory"]))
    assert site.all_jobs(layout) == {job_of(layout)}
    assert json.loads(done.stdout)["job_id"] == job_of(layout)


def test_a_job_of_the_same_run_id_elsewhere_is_not_taken_for_ours(
    site: Site, tmp_path: Path
) -> None:
    here = site.submit("twin", LATER)
    there = site.submit("twin", LATER, "--runs", str(tmp_path / "other"))
    assert here.id == there.id
    assert site.jobs(here) == [job_of(here)]
    assert site.jobs(there) == [job_of(there)]


# Going on


@pytest.mark.slow
def test_at_its_time_limit_a_run_goes_on_in_the_same_job_with_the_code_of_the_submit(
    site: Site,
) -> None:
    package = site.folder / "code" / "fusionrun"
    own = Path(fusionrun.__file__).parent
    shutil.copytree(own, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(own.parent / "templates", package.parent / "templates")
    trainer = package / "train" / "job.py"
    text = trainer.read_text()
    trainer.write_text(text + '\nprint("this is code one", flush=True)\n')
    recipe = site.recipe("limit")
    done = site.call("submit", recipe, "--json", PYTHONPATH=str(package.parent))
    trainer.write_text(text + '\nprint("this is code two", flush=True)\n')
    layout = RunLayout(Path(json.loads(done.stdout)["directory"]))
    job_id = job_of(layout)
    until("it trains", trains(layout))
    site.slurm.signal(job_id, "USR1")  # as Slurm does shortly before the limit
    until("it trains again", trains(layout, 2))
    assert last(layout, "started")["resumed_from"] == last(layout, "requeued")["step"]
    assert last(layout, "started")["job_id"] == job_id
    assert layout.log.read_text().count("this is code one") == 2
    assert "this is code two" not in layout.log.read_text()
    # Gracefully, and for good.
    assert site.call("cancel", layout.id).returncode == 0
    assert site.cluster.wait(job_id, "COMPLETED") == "COMPLETED"
    assert read_status(layout).state == "stopped"
    assert last(layout, "not_requeued")["why"].startswith("it was cancelled")


@pytest.mark.slow
def test_a_chain_takes_along_who_waits_for_it_and_ends_at_the_cap(site: Site) -> None:
    first = site.submit("chained", ", requeue: false, max_requeues: 1")
    old = job_of(first)
    waiting = site.submit("waiting", "", "--after", first.id)
    until("it trains", trains(first))
    site.slurm.signal(old, "USR1")
    until("it trains in a new job", trains(first, 2))
    new = job_of(first)
    assert [job.id for job in journal(first).jobs] == [old, new]
    assert site.cluster.job(old)["JobState"] == "COMPLETED"
    assert site.cluster.job(job_of(waiting))["Dependency"].startswith(f"afterok:{new}")
    site.slurm.signal(new, "USR1")
    site.cluster.wait(new, "COMPLETED")
    assert "which is max_requeues" in last(first, "not_requeued")["why"]
    assert read_status(first).state == "stopped"
    assert site.all_jobs(first) == {old, new}
    # Slurm saw a job that did well; the run did not complete.
    site.cluster.wait(job_of(waiting), "CANCELLED")
    assert journal(waiting).state == "cancelled"
    assert "did not complete" in journal(waiting).words


@pytest.mark.slow
def test_scancel_saves_and_never_resurrects_and_resume_goes_on(site: Site) -> None:
    layout = site.submit("scancelled")
    job_id = job_of(layout)
    until("it trains", trains(layout))
    site.cluster.run("scancel", job_id)
    site.cluster.wait(job_id, "CANCELLED")
    assert read_status(layout).state == "stopped"
    assert site.all_jobs(layout) == {job_id}
    assert "requeued" not in events(layout)
    done = site.call("resume", layout.id)
    assert done.returncode == 0, done.stderr
    assert "was stopped" in done.stdout
    until("it trains again", trains(layout, 2))
    assert last(layout, "started")["job_id"] == job_of(layout) != job_id
    now = site.call("cancel", layout.id, "--now")
    assert f"job {job_of(layout)} ended at once" in now.stdout
    site.cluster.wait(job_of(layout), "CANCELLED")


# Cancelling and waiting


def test_a_job_that_waits_is_found_without_the_journal_that_names_it(site: Site) -> None:
    layout = site.submit("pending", LATER)
    job = job_of(layout)
    layout.submission.unlink()
    assert f"queued: job {job}: " in site.call("status", layout.id).stdout
    for command in (("resume", layout.id), ("submit", site.folder / "r.yaml")):
        again = site.call(*command)
        assert again.returncode == 2
        assert f"job {job} waits in the queue" in again.stderr
    assert f"job {job} taken from the queue" in site.call("cancel", layout.id).stdout
    assert site.all_jobs(layout) == {job}


def test_a_run_that_waits_is_taken_from_the_queue_and_may_be_resumed(site: Site) -> None:
    layout = site.submit("pending", LATER)
    first = job_of(layout)
    done = site.call("cancel", layout.id)
    assert f"job {first} taken from the queue" in done.stdout
    assert site.jobs(layout) == []
    assert journal(layout).state == "cancelled"
    assert "nothing to cancel: stopped" in site.call("cancel", layout.id).stdout
    assert site.call("resume", layout.id).returncode == 0
    assert site.jobs(layout) == [job_of(layout)] != [first]


def test_a_run_after_another_never_waits_for_one_that_failed(site: Site) -> None:
    first = site.submit("first", LATER)
    ok = site.submit("ok", "", "--after", first.id)
    either = site.submit("either", LATER, "--after-any", first.id)
    assert site.cluster.job(job_of(ok))["Dependency"].startswith(f"afterok:{job_of(first)}")
    assert site.cluster.job(job_of(either))["Dependency"].startswith(f"afterany:{job_of(first)}")
    site.cluster.run("scancel", job_of(first))
    site.cluster.wait(job_of(ok), "CANCELLED")
    refused = site.call("submit", site.recipe("late"), "--after", first.id)
    assert refused.returncode == 2
    assert "this one has ended: stopped: somebody cancelled its job" in refused.stderr
    accepted = site.call("submit", site.recipe("late", LATER), "--after-any", first.id, "--json")
    assert json.loads(accepted.stdout)["waits_for"] is None


def test_a_run_that_waited_waits_again_when_it_is_resumed(site: Site) -> None:
    first = site.submit("first", LATER)
    waiting = site.submit("waiting", "", "--after", first.id)
    site.call("cancel", waiting.id)
    resumed = site.call("resume", waiting.id)
    assert f"waits       starts when {first.id} has completed" in resumed.stdout
    dependency = site.cluster.job(job_of(waiting))["Dependency"]
    assert dependency.startswith(f"afterok:{job_of(first)}")
    site.cluster.run("scancel", job_of(first))
    site.cluster.wait(job_of(waiting), "CANCELLED")
    refused = site.call("resume", waiting.id)
    assert refused.returncode == 2
    assert f"`fusionrun resume {first.id}` lets it go on" in refused.stderr


def test_a_snapshot_that_is_gone_is_refused_before_slurm_is_asked(site: Site) -> None:
    layout = site.submit("gone", LATER)
    site.call("cancel", layout.id)
    before = site.all_jobs(layout)
    shutil.rmtree(layout.root.parent / ".snapshots")
    done = site.call("resume", layout.id)
    assert done.returncode == 2
    assert "gone from the snapshot of the code" in done.stderr
    assert site.all_jobs(layout) == before


def test_a_job_whose_snapshot_goes_missing_fails_with_its_own_code(site: Site) -> None:
    layout = site.submit("hollow", ", extra: {hold: true}")
    shutil.rmtree(layout.root.parent / ".snapshots")
    site.cluster.run("scontrol", "release", job_of(layout))
    until("it is not taken up", lambda: site.cluster.job(job_of(layout))["JobState"] != "PENDING")
    site.cluster.wait(job_of(layout), "FAILED", timeout_s=5)
    assert site.cluster.job(job_of(layout))["ExitCode"] == "73:0"


def test_a_directory_of_runs_that_cannot_be_written_is_refused(site: Site) -> None:
    # Not even root can make a directory there.
    done = site.call("submit", site.recipe("nowhere"), "--runs", "/proc")
    assert done.returncode == 2
    assert "no run can be made there" in done.stderr
