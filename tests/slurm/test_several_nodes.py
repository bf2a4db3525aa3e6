"""Several ranks on a real Slurm: asked to stop, killed, and meeting where ports are scarce."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch

from fusionrun.launch import prepare
from fusionrun.plan.resolve import make_plan
from fusionrun.recipe.read import read_recipe
from fusionrun.slurm.client import Slurm
from fusionrun.slurm.rendezvous import candidate_ports
from fusionrun.slurm.torchrun import own_address
from fusionrun.store.checkpoints import list_checkpoints
from fusionrun.store.components import load_component
from fusionrun.store.layout import RunLayout
from fusionrun.store.manifest import read_manifest
from fusionrun.store.status import read_status
from fusionrun.submit.journal import read_events, read_submission
from tests.slurm.needs import skip_without_slurm
from tests.slurm_cluster import Cluster, processes
from tests.submit.life import MANY, call, environment, until, write_recipe
from tests.train.rank_worker import collectives, together
from tests.train.scripted_job import started as started_here

LONG = pytest.mark.long
ROOT = Path(__file__).parents[2]
PAIRS = 10
EPOCHS = 40
"""Some seconds of two ranks: time enough to be stopped in, and to be done after that."""
DROPOUT = "fusion.dropout=0.2"  # so that both ranks' generators have to go on as well

ONE_NODE = "nodes: 1, gpus_per_node: 2"
TWO_NODES = "nodes: 2"
SRUN = ", launcher: srun"
TORCHRUN = ", launcher: torchrun"


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[Cluster]:
    """A wider one: two ranks fit on a node, and ten pairs of them on two."""
    skip_without_slurm()
    with Cluster(cpus=PAIRS + 2, gpus=2) as cluster:
        yield cluster


class Site:
    """A folder with a recipe, and the commands called there on the cluster."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.env = environment(**cluster.env)
        self.slurm = Slurm(cluster.environment())

    def call(self, *arguments: object) -> CompletedProcess[str]:
        done = call(*arguments, cwd=self.folder, env=self.env)
        assert done.returncode == 0, done.stderr
        return done

    def submit(
        self, slurm: str, *, epochs: int, checkpoint_s: float = 60.0, timeout_s: float = 30.0
    ) -> RunLayout:
        env = f"{{FUSIONRUN_RANK_TIMEOUT_S: '{timeout_s}'}}"
        more = f"slurm: {{{slurm}, max_requeues: 0, env: {env}}}"
        recipe = write_recipe(self.folder / "r.yaml", "several", epochs, more)
        every = f"training.checkpoints.every_s={checkpoint_s}"
        done = self.call("submit", recipe, "--json", "--set", DROPOUT, "--set", every)
        return RunLayout(Path(json.loads(done.stdout)["directory"]))

    def post_mortem(self, layout: RunLayout) -> dict[str, Any]:
        told = json.loads(self.call("status", layout.id, "--json").stdout)["run"]
        assert told["state"] == "failed"
        return dict(told["post_mortem"])

    def ends(self, layout: RunLayout, state: str) -> dict[str, str]:
        """The run's job, once it is in that state for good."""
        self.cluster.wait(job_of(layout), state)
        return self.cluster.job(job_of(layout))


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    return Site(cluster, tmp_path)


def job_of(layout: RunLayout) -> str:
    submission = read_submission(layout)
    assert submission is not None
    assert submission.job_id is not None
    return submission.job_id


def all_of(layout: RunLayout, what: str) -> list[dict[str, Any]]:
    return [event for event in read_events(layout) if event["event"] == what]


def content(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def has_trained(layout: RunLayout) -> Callable[[], bool]:
    """Whether an epoch is done, which is written down sooner than the heartbeat is."""
    return lambda: layout.metrics.exists() and layout.metrics.stat().st_size > 0


def has_checkpoint(layout: RunLayout) -> Callable[[], bool]:
    return lambda: any(saved.step for saved in list_checkpoints(layout.checkpoints))


def pids_of(layout: RunLayout) -> dict[int, int]:
    """Rank → process, of those that train the run now, whoever started them."""
    found = {}
    for pid in processes.all_pids():
        argv = _argv(pid)
        if argv[-3:] != ["-m", "fusionrun.job", str(layout.root)] or len(argv) > 5:
            continue  # a launcher has more words before these
        variables = processes.variables(pid)
        found[int(variables.get("RANK") or variables["SLURM_PROCID"])] = pid
    return found


def _argv(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return []


# Asked to stop

# A host of its own, as far as its name goes: which nobody can resolve, itself included.
NAMELESS = """\
#!/bin/sh
exec unshare --uts sh -c 'hostname "$SLURMD_NODENAME.nowhere" && exec "$@"' sh {python} "$@"
"""


def nameless_python(folder: Path) -> Path:
    """An interpreter to which its host is one without a name; for others than root a plain one."""
    path = folder / "python"
    python = shlex.quote(sys.executable)
    text = NAMELESS if os.geteuid() == 0 else '#!/bin/sh\nexec {python} "$@"\n'
    path.write_text(text.format(python=python))
    path.chmod(0o755)
    return path


def weights(layout: RunLayout) -> dict[str, dict[str, torch.Tensor]]:
    """Those that training ended with, by component."""
    folder = layout.components("last")
    return {name: load_component(folder, name) for name in read_manifest(folder).components}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of the same run on two ranks that nobody stops, without any Slurm."""
    folder = tmp_path_factory.mktemp("undisturbed")
    source = read_recipe(write_recipe(folder / "r.yaml", "several", EPOCHS), [DROPOUT])
    plan = make_plan(source, folder / "runs")
    layout = prepare(plan, source.text, folder / "runs", new=True).layout
    assert started_here(layout, size=2) == [0, 0]
    return weights(layout)


def by_usr1(site: Site, layout: RunLayout) -> str:
    """As Slurm does shortly before the limit."""
    site.cluster.run("scancel", "--signal=USR1", "--batch", job_of(layout))
    return "time_limit"


def by_command(site: Site, layout: RunLayout) -> str:
    assert "saves and stops" in site.call("cancel", layout.id).stdout
    return "cancel"


Ask = Callable[[Site, RunLayout], str]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slurm", "ask"),
    [
        pytest.param(ONE_NODE + SRUN, by_usr1, id="srun-one-node", marks=LONG),
        pytest.param(TWO_NODES + SRUN, by_command, id="srun-two-nodes-cancel"),
        pytest.param(ONE_NODE + TORCHRUN, by_usr1, id="torchrun-one-node", marks=LONG),
        pytest.param(TWO_NODES + TORCHRUN, by_usr1, id="torchrun-two-nodes"),
    ],
)
def test_two_ranks_stop_at_one_step_with_zero_and_go_on_to_the_same_weights(
    site: Site, undisturbed: dict[str, dict[str, torch.Tensor]], slurm: str, ask: Ask
) -> None:
    python = nameless_python(site.folder)
    layout = site.submit(f"{slurm}, python: {python}", epochs=EPOCHS)
    until("an epoch is done", has_trained(layout))
    reason = ask(site, layout)
    assert site.ends(layout, "COMPLETED")["ExitCode"] == "0:0"
    outcome = content(layout.outcome)
    assert (outcome["outcome"], outcome["reason"]) == ("stopped", reason)
    assert [saved["step"] for saved in all_of(layout, "checkpoint")] == [outcome["step"]]
    assert read_status(layout).state == "stopped"

    site.call("resume", layout.id)
    site.ends(layout, "COMPLETED")
    assert read_status(layout).state == "completed"
    begun = all_of(layout, "started")
    assert [(event["ranks"], event["resumed_from"]) for event in begun] == [
        (2, None),
        (2, outcome["step"]),
    ]
    torch.testing.assert_close(weights(layout), undisturbed, rtol=0, atol=0)


# Killed


def goes_on_from_its_last_checkpoint(site: Site, layout: RunLayout) -> None:
    newest = list_checkpoints(layout.checkpoints)[0].step
    site.call("resume", layout.id)
    until("it goes on", lambda: len(all_of(layout, "started")) == 2)
    assert all_of(layout, "started")[-1]["resumed_from"] == newest > 0
    until("it comes further", lambda: read_status(layout).step > newest)
    assert not layout.rank_error(0).exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "victim"),
    [
        pytest.param(SRUN, 0, id="srun-0"),
        pytest.param(TORCHRUN, 1, id="torchrun-1", marks=LONG),
    ],
)
def test_a_killed_rank_leaves_no_word_and_is_named_by_the_other(
    site: Site, launcher: str, victim: int
) -> None:
    layout = site.submit(TWO_NODES + launcher, epochs=MANY, checkpoint_s=0.3)
    until("a checkpoint is written", has_checkpoint(layout))
    pids = pids_of(layout)
    assert sorted(pids) == [0, 1]
    os.kill(pids[victim], signal.SIGKILL)
    site.ends(layout, "FAILED")
    assert read_status(layout).state == "failed"
    assert sorted(layout.logs.glob("rank-*")) == [layout.rank_error(1 - victim)]
    error = content(layout.rank_error(1 - victim))
    assert error["kind"] == "RankError"
    # (torchrun's agents keep what the ranks meet in; the one that did may be gone)
    assert error["absent"] in ([victim], *([None] if launcher == TORCHRUN else []))
    told = site.post_mortem(layout)
    assert (told["cause"], told["lost_ranks"], told["first_error"]) == ("killed", [victim], None)
    assert told["words"].startswith(f"rank {victim} ended after step ")
    assert ("srun: Killed on n" if launcher == SRUN else "torchrun: SIGKILL") in told["words"]
    goes_on_from_its_last_checkpoint(site, layout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "victim"),
    [
        pytest.param(SRUN, 1, id="srun-1"),
        pytest.param(SRUN, 0, id="srun-0", marks=LONG),
        pytest.param(TORCHRUN, 1, id="torchrun-1", marks=LONG),
    ],
)
def test_a_rank_that_hangs_is_named_once_the_other_has_waited_long_enough(
    site: Site, launcher: str, victim: int
) -> None:
    layout = site.submit(TWO_NODES + launcher, epochs=MANY, timeout_s=2)
    until("an epoch is done", has_trained(layout))
    os.kill(pids_of(layout)[victim], signal.SIGSTOP)
    assert site.ends(layout, "FAILED")["ExitCode"] != "0:0"
    told = site.post_mortem(layout)
    assert (told["cause"], told["lost_ranks"]) == ("hung", [victim])
    assert f"rank {1 - victim} waited in vain until the timeout" in told["words"]


def test_a_killed_trainer_leaves_a_failed_run_that_goes_on(site: Site) -> None:
    layout = site.submit("nodes: 1", epochs=MANY, checkpoint_s=0.3)
    until("a checkpoint is written", has_checkpoint(layout))
    os.kill(pids_of(layout)[0], signal.SIGKILL)
    site.ends(layout, "FAILED")
    assert read_status(layout).state == "failed"
    assert [event["code"] for event in all_of(layout, "died")] == [128 + signal.SIGKILL]
    assert "SIGKILL" in all_of(layout, "not_requeued")[-1]["why"]
    assert list(layout.logs.glob("rank-*")) == []
    goes_on_from_its_last_checkpoint(site, layout)


def unfinished(layout: RunLayout) -> list[str]:
    try:
        return [name for name in os.listdir(layout.checkpoints) if name.startswith(".")]
    except FileNotFoundError:
        return []


def kill_during_a_save(layout: RunLayout, pid: int) -> None:
    """Stopped first, and killed once it has stopped with a save half done."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if has_checkpoint(layout)() and unfinished(layout):
            os.kill(pid, signal.SIGSTOP)
            until("it has stopped", lambda: is_stopped(pid))
            if unfinished(layout):
                os.kill(pid, signal.SIGKILL)
                return
            os.kill(pid, signal.SIGCONT)
    raise AssertionError("never seen in a save")


def is_stopped(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return all(
        (thread / "stat").read_text().rpartition(") ")[2].startswith("T") for thread in threads
    )


def test_a_run_killed_during_a_save_goes_on_from_the_checkpoint_before(site: Site) -> None:
    layout = site.submit("nodes: 1", epochs=MANY, checkpoint_s=0.0)
    until("a checkpoint is written", has_checkpoint(layout))
    kill_during_a_save(layout, pids_of(layout)[0])
    site.ends(layout, "FAILED")
    assert read_status(layout).state == "failed"
    left = unfinished(layout)
    assert left
    goes_on_from_its_last_checkpoint(site, layout)
    until("what was half written is gone", lambda: not set(left) & set(unfinished(layout)))


# Meeting

# A job chooses its port and then stays, as the ranks that listen there would.
CHOOSE = """\
#!/bin/bash
export PYTHONPATH={package}
{python} -m fusionrun.slurm.rendezvous >"$SLURM_JOB_ID.new" || exit
mv "$SLURM_JOB_ID.new" "$SLURM_JOB_ID.meeting"
srun bash -c 'until [ -e over ]; do sleep 0.2; done'
"""


def join(folder: Path, meeting: str) -> list[int | None]:
    """Two ranks meet there; returns their exit codes."""
    folder.mkdir()
    codes, left = together(collectives, folder, **dict(re.findall(r"(MASTER_\w+)=(.+)", meeting)))
    assert [each["identity"][:2] for each in left] == [[0, 2], [1, 2]]
    return codes


@pytest.mark.slow
def test_ten_pairs_at_once_meet_each_at_a_port_of_its_own(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    package, python = shlex.quote(str(ROOT)), shlex.quote(sys.executable)
    script.write_text(CHOOSE.format(package=package, python=python))
    options = ["-N2", "-n2", "-c1", "--hold", "-D", str(tmp_path), "-o", str(tmp_path / "%j.out")]
    jobs = [cluster.sbatch(*options, str(script)) for _ in range(PAIRS)]
    cluster.run("scontrol", "release", ",".join(jobs))
    chosen = [tmp_path / f"{job}.meeting" for job in jobs]
    # All have chosen before any listens: the bind test alone would let them choose the same.
    until("all have chosen", lambda: all(path.exists() for path in chosen))
    meetings = [path.read_text() for path in chosen]
    assert len(set(meetings)) == PAIRS
    with ThreadPoolExecutor(PAIRS) as pairs:
        codes = pairs.map(join, (tmp_path / job for job in jobs), meetings)
        assert list(codes) == [[0, 0]] * PAIRS
    (tmp_path / "over").touch()
    assert [cluster.wait(job, "COMPLETED") for job in jobs] == ["COMPLETED"] * PAIRS


def test_two_nodes_meet_elsewhere_where_their_first_port_is_taken(site: Site) -> None:
    layout = site.submit(TWO_NODES + ", extra: {hold: true}", epochs=1)
    first = next(candidate_ports(int(job_of(layout))))
    with socket.create_server(("0.0.0.0", first)) as listener:
        site.cluster.run("scontrol", "release", job_of(layout))
        assert site.ends(layout, "COMPLETED")["ExitCode"] == "0:0"
        listener.setblocking(False)
        with pytest.raises(BlockingIOError, match="temporarily unavailable"):  # nobody called
            listener.accept()
    assert read_status(layout).state == "completed"
    assert all_of(layout, "started")[-1]["ranks"] == 2


def test_torchrun_is_told_the_address_that_leads_to_the_meeting() -> None:
    assert own_address({}) == "127.0.0.1"
    assert own_address({"MASTER_ADDR": "127.0.0.2"}) == "127.0.0.1"
    assert own_address({"MASTER_ADDR": "a name that cannot be"}) is None
