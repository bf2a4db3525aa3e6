"""The cluster that the other tests stand on is a real one, and nothing of it stays behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.slurm.needs import needs_slurm
from tests.slurm_cluster import Cluster, ClusterError
from tests.slurm_cluster.leftovers import sweep
from tests.slurm_cluster.processes import all_pids, carrying

ROOT = Path(__file__).parents[2]
BY_HAND = [sys.executable, "-m", "tests.slurm_cluster"]


@pytest.fixture(autouse=True)
def _away_from_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a job writes its log where it was submitted


def until(done: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def members(cluster: Cluster) -> list[int]:
    """Every process of a cluster: daemons, job steps, and what the jobs started."""
    return carrying("SLURM_CONF", cluster.env["SLURM_CONF"])


def sleepers() -> set[str]:
    """How long each `sleep` there is was asked to sleep, whatever its environment says."""
    found = set()
    for pid in all_pids():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
            if Path(words[0]).name == "sleep":
                found.add(words[1])
    return found


def start_by_hand() -> tuple[subprocess.Popen[str], str]:
    """Start a cluster in a process of its own; return that and its SLURM_CONF."""
    process = subprocess.Popen(BY_HAND, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline().strip()
    return process, first.removeprefix("export SLURM_CONF=")


def test_two_nodes_are_idle(cluster: Cluster) -> None:
    states = cluster.run("sinfo", "-h", "-N", "-p", "debug", "-o", "%N %T").splitlines()
    assert states == ["n1 idle", "n2 idle"]


def test_srun_starts_a_task_on_each_node(cluster: Cluster) -> None:
    names = cluster.run("srun", "-N2", "sh", "-c", "echo $SLURMD_NODENAME").split()
    assert sorted(names) == ["n1", "n2"]


def test_a_batch_job_starts_steps_on_both_nodes(cluster: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = cluster.sbatch("-N2", "-o", str(out), "--wrap", "srun sh -c 'echo $SLURM_PROCID'")
    assert cluster.wait(job, "COMPLETED") == "COMPLETED"
    assert sorted(out.read_text().split()) == ["0", "1"]


def test_two_jobs_fit_on_a_node(cluster: Cluster) -> None:
    jobs = [cluster.sbatch("-w", "n1", "-n1", "--wrap", "sleep 30") for _ in range(2)]
    assert [cluster.wait(job, "RUNNING") for job in jobs] == ["RUNNING", "RUNNING"]


def test_a_granted_gpu_is_visible(cluster: Cluster) -> None:
    assert cluster.run("srun", "--gres=gpu:1", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES") == "0\n"


def test_two_gpu_jobs_on_a_node_wait_for_each_other(cluster: Cluster) -> None:
    first, second = (
        cluster.sbatch("-w", "n1", "-n1", "--gres=gpu:1", "--wrap", "sleep 30") for _ in range(2)
    )
    cluster.wait(first, "RUNNING")
    assert until(lambda: cluster.job(second)["Reason"] == "Resources")
    cluster.run("scancel", first)
    assert cluster.wait(second, "RUNNING") == "RUNNING"


@pytest.mark.parametrize("name", ["n1", "n2"])
def test_node_names_do_not_resolve(name: str) -> None:
    with pytest.raises(socket.gaierror, match=r"not known|failure|No address"):
        socket.getaddrinfo(name, None)


def test_the_short_partition_holds_back_what_asks_for_more(cluster: Cluster) -> None:
    job = cluster.sbatch("-p", "short", "--time=10", "--wrap", "true")
    assert until(lambda: cluster.job(job)["Reason"] == "PartitionTimeLimit")


def test_the_environment_is_rid_of_other_slurm_variables(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SBATCH_PARTITION", "elsewhere")
    kept = [name for name in cluster.environment() if name.startswith(("SLURM", "SBATCH"))]
    assert kept == ["SLURM_CONF"]


def test_waiting_for_a_state_that_cannot_come_fails_at_once(cluster: Cluster) -> None:
    job = cluster.sbatch("-o", "/dev/null", "--wrap", "exit 3")
    with pytest.raises(ClusterError, match=r"expected \['COMPLETED'\], got \['FAILED'\]"):
        cluster.wait(job, "COMPLETED")


def test_a_command_that_fails_says_so_in_its_own_words(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="Requested node configuration is not available"):
        cluster.sbatch("--gres=gpu:9", "--wrap", "true")


def test_drain_ends_jobs_that_heed_no_signal(cluster: Cluster) -> None:
    deaf = "trap '' TERM INT; while :; do sleep 1; done"
    running = cluster.sbatch("-o", "/dev/null", "--wrap", deaf)
    cluster.sbatch("--begin=now+1hour", "--wrap", "true")
    cluster.wait(running, "RUNNING")
    cluster.drain(timeout_s=4)
    assert cluster.squeue("-h") == ""


def test_reset_brings_a_drained_node_back(cluster: Cluster) -> None:
    cluster.run("scontrol", "update", "nodename=n2", "state=drain", "reason=test")
    cluster.reset()
    assert cluster.run("sinfo", "-h", "-N", "-p", "debug", "-o", "%T").split() == ["idle"] * 2


def test_jobs_outlive_the_controller_and_are_known_afterwards(cluster: Cluster) -> None:
    job = cluster.sbatch("-o", "/dev/null", "--wrap", "sleep 60")
    cluster.wait(job, "RUNNING")
    cluster.stop_controller()
    with pytest.raises(ClusterError, match="Unable to contact slurm controller"):
        cluster.squeue()
    cluster.start_controller()
    assert cluster.wait(job, "RUNNING") == "RUNNING"


@needs_slurm
def test_two_clusters_run_side_by_side(cluster: Cluster) -> None:
    with Cluster(nodes=1, gpus=0) as other:
        other.wait(other.sbatch("-o", "/dev/null", "--wrap", "sleep 60"), "RUNNING")
        assert cluster.squeue("-h") == ""
    assert cluster.run("sinfo", "-h", "-N", "-p", "debug", "-o", "%T").split() == ["idle"] * 2


@needs_slurm
def test_stop_leaves_no_process_and_no_file() -> None:
    with Cluster(nodes=1) as cluster:
        stubborn = "trap '' TERM INT; setsid env -i sleep 6161 & srun sleep 6262"
        cluster.sbatch("-o", "/dev/null", "--wrap", stubborn)
        assert until(lambda: sleepers() >= {"6161", "6262"})
    assert not sleepers() & {"6161", "6262"}
    assert members(cluster) == []
    assert not cluster.root.exists()


@needs_slurm
def test_stop_is_harmless_when_repeated_and_a_stopped_cluster_starts_again() -> None:
    with TemporaryDirectory() as root:  # (pytest's own may be too long for a socket)
        _start_and_stop(Cluster(Path(root), nodes=1))


def _start_and_stop(cluster: Cluster) -> None:
    for _ in range(2):
        cluster.start()
        cluster.stop()
        cluster.stop()
    assert not (cluster.root / "munge").exists()
    assert members(cluster) == []


@needs_slurm
def test_a_daemon_that_dies_at_the_start_is_named_with_its_last_words() -> None:
    cluster = Cluster(nodes=1, settings={"SelectType": "select/none_such"})
    with pytest.raises(ClusterError, match=r"(?s)slurmctld ended with code 1.*none_such"):
        cluster.start()
    assert members(cluster) == []


@needs_slurm
def test_a_root_that_slurm_cannot_write_down_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="expected an absolute path of at most 70 characters"):
        Cluster(tmp_path / "with a space")


@needs_slurm
def test_killing_whoever_started_it_ends_every_process() -> None:
    process, conf = start_by_hand()
    env = {**os.environ, "SLURM_CONF": conf}
    subprocess.run(["sbatch", "-o", "/dev/null", "--wrap", "sleep 63"], env=env, check=True)
    assert until(lambda: len(carrying("SLURM_CONF", conf)) >= 6)
    process.kill()
    process.communicate()
    assert until(lambda: carrying("SLURM_CONF", conf) == [])
    assert until(lambda: not Path(conf).parent.exists())


@needs_slurm
def test_what_a_killed_keeper_left_is_swept_up() -> None:
    with Cluster(nodes=1) as cluster:
        job = cluster.sbatch("-o", "/dev/null", "--wrap", "exec sleep 6464")
        cluster.wait(job, "RUNNING")
        assert until(lambda: "6464" in sleepers())
        keeper = int((cluster.root / "keeper").read_text().split()[0])
        os.kill(keeper, signal.SIGKILL)
        assert until(lambda: len(members(cluster)) <= 2), "the step and its job outlive all else"
        assert "6464" in sleepers()
        assert sweep()
        assert until(lambda: members(cluster) == [] and "6464" not in sleepers())


@needs_slurm
def test_a_command_by_hand_runs_inside_and_passes_its_exit_code_on() -> None:
    command = [*BY_HAND, "--nodes=3", "--", "sh", "-c", "sinfo -h -o %D -p debug; exit 7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "3\n"), done.stderr


@needs_slurm
def test_interrupting_it_by_hand_ends_it_in_peace() -> None:
    process, conf = start_by_hand()
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 0
    assert carrying("SLURM_CONF", conf) == []
