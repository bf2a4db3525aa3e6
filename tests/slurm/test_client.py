"""Slurm's commands as they are called: against a real cluster, and with commands that misbehave."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from fusionrun.errors import SchedulerError, UserError
from fusionrun.slurm.clean import without_slurm
from fusionrun.slurm.client import SchedulerUnreachableError, Slurm, SubmitTimeout
from tests.slurm_cluster import Cluster

POISON = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOBID": "77",
    "SLURM_EXPORT_ENV": "NONE",
    "SLURM_NTASKS": "64",
    "SLURM_MEM_PER_NODE": "999999",
    "SLURM_TIME_FORMAT": "%s",
    "SLURM_CLUSTERS": "nowhere",
    "SLURMD_NODENAME": "n9",
    "SBATCH_PARTITION": "nonsense",
    "SBATCH_TIMELIMIT": "never",
    "SRUN_CPUS_PER_TASK": "64",
    "SQUEUE_FORMAT": "%i",
    "SQUEUE_STATES": "FAILED",
    "SQUEUE_USERS": "nobody",
    "SCANCEL_STATE": "FAILED",
    "SCANCEL_INTERACTIVE": "1",
    "PMI_RANK": "3",
    "PMIX_RANK": "3",
}


@pytest.fixture
def slurm(slurm_env: dict[str, str]) -> Slurm:
    return Slurm(slurm_env)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A job that sleeps, in a folder whose name is no help."""
    folder = tmp_path / "a folder; $(touch x) 'q'"
    folder.mkdir()
    path = folder / "job.sbatch"
    path.write_text(
        "#!/bin/bash\n#SBATCH --output=/dev/null\n#SBATCH --comment=fusionrun:run-1-s0\nsleep 60\n"
    )
    return path


@pytest.fixture
def fakes(tmp_path: Path) -> Path:
    """A folder for programs in Slurm's place."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def fake(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def before(folder: Path, environment: dict[str, str], timeout_s: float | None = None) -> Slurm:
    """The cluster, with the folder's programs in front of the real ones."""
    path = f"{folder}:{environment['PATH']}"
    return Slurm({**environment, "PATH": path}, timeout_s)


def until_state(slurm: Slurm, job_id: str, *states: str, timeout_s: float = 20.0) -> str:
    deadline = time.monotonic() + timeout_s
    while (state := (slurm.show_job(job_id) or {}).get("JobState", "")) not in states:
        assert time.monotonic() < deadline, f"job {job_id} is {state}, not {states}"
        time.sleep(0.05)
    return state


# The environment


def test_the_scrub_keeps_slurm_conf_and_what_is_not_slurms() -> None:
    mine = {"PATH": "/bin", "HOME": "/root", "SLURM_CONF": "/etc/slurm.conf"}
    assert without_slurm({**mine, **POISON}) == mine


def test_a_poisoned_environment_changes_nothing(
    cluster: Cluster, slurm_env: dict[str, str], script: Path, tmp_path: Path
) -> None:
    slurm = Slurm({**slurm_env, **POISON})
    told = tmp_path / "told"
    script.write_text(
        f"#!/bin/bash\n#SBATCH -o /dev/null\nenv > '{told}.new'; mv '{told}'.new '{told}'\n"
    )
    assert slurm.verdict(script).accepted
    job_id = slurm.submit(script)
    assert [job.id for job in slurm.queue(ended=True)].count(job_id) == 1
    assert until_state(slurm, job_id, "COMPLETED", "FAILED") == "COMPLETED"
    seen = dict(line.split("=", 1) for line in told.read_text().splitlines() if "=" in line)
    assert seen["SLURM_JOB_ID"] == job_id
    assert not {"SBATCH_PARTITION", "SQUEUE_FORMAT", "PMI_RANK", "SLURM_CLUSTERS"} & set(seen)


def test_the_same_environment_unscrubbed_would_be_refused(
    slurm_env: dict[str, str], script: Path
) -> None:
    done = subprocess.run(
        ["sbatch", "--test-only", script], env={**slurm_env, **POISON}, capture_output=True
    )
    assert done.returncode != 0


# Against a real cluster


def test_the_version_is_that_of_the_commands(cluster: Cluster, slurm: Slurm) -> None:
    told = cluster.run("sbatch", "--version").split()[-1]
    assert ".".join(f"{n:02}" for n in slurm.version()[:2]) == ".".join(told.split(".")[:2])


def test_a_submitted_job_is_found_by_its_run(slurm: Slurm, script: Path) -> None:
    job_id = slurm.submit(script, "--time=5", "--begin=now+60")
    (job,) = slurm.find("run-1-s0")
    assert (job.id, job.state, job.reason) == (job_id, "PENDING", "BeginTime")
    assert job.time_left_s == 300
    assert slurm.find("run-1-s") == []


def test_an_array_is_found_task_by_task(slurm: Slurm, script: Path) -> None:
    job_id = slurm.submit(script, "--array=0-3%2", "--hold")
    assert [job.handle for job in slurm.find("run-1-s0")] == [f"{job_id}_{i}" for i in range(4)]


def test_a_job_that_ended_is_found_when_asked_for(slurm: Slurm, script: Path) -> None:
    script.write_text(script.read_text().replace("sleep 60", "exit 9"))
    job_id = slurm.submit(script)
    until_state(slurm, job_id, "FAILED")
    assert [job.id for job in slurm.find("run-1-s0")] == []
    (job,) = (job for job in slurm.find("run-1-s0", ended=True) if job.id == job_id)
    assert (job.state, job.reason, job.exit_code) == ("FAILED", "NonZeroExitCode", 9)


def test_all_users_jobs_can_be_listed(slurm: Slurm, script: Path) -> None:
    job_id = slurm.submit(script, "--hold")
    assert job_id in {job.id for job in slurm.queue(user_only=False)}


def test_the_queue_takes_one_squeue(
    cluster: Cluster, slurm_env: dict[str, str], fakes: Path, tmp_path: Path
) -> None:
    real = cluster.run("sh", "-c", "command -v squeue").strip()
    fake(fakes, "squeue", f'echo "$@" >> "{tmp_path}/calls"; exec {real} "$@"')
    before(fakes, slurm_env).queue()
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


def test_a_text_nobody_can_read_is_asked_for_in_json(
    slurm_env: dict[str, str], fakes: Path
) -> None:
    recorded = Path(__file__).parent / "outputs" / "22.05" / "squeue.json"
    body = f'case "$*" in *--json*) cat "{recorded}";; *) echo "a new form of text";; esac'
    fake(fakes, "squeue", body)
    jobs = before(fakes, slurm_env).queue(user_only=False)
    assert "digits-1a2b3c4d-s0" in {job.run_id for job in jobs}
    assert all(job.is_living for job in jobs)


def test_an_answer_nobody_can_read_is_an_error(slurm_env: dict[str, str], fakes: Path) -> None:
    fake(fakes, "squeue", "echo nonsense")
    with pytest.raises(SchedulerError, match="squeue: its text and its JSON cannot be read"):
        before(fakes, slurm_env).queue()


def test_a_job_is_shown_by_slurms_own_names(slurm: Slurm, script: Path) -> None:
    job = slurm.show_job(slurm.submit(script, "--hold", "--job-name=x JobState=FAILED"))
    assert job is not None
    assert (job["JobState"], job["Reason"]) == ("PENDING", "JobHeldUser")
    assert job["Command"] == str(script)


def test_a_forgotten_job_is_none(slurm: Slurm) -> None:
    assert slurm.show_job("99999999") is None


def test_a_cancelled_job_is_cancelled(slurm: Slurm, script: Path) -> None:
    job_id = slurm.submit(script)
    slurm.cancel(job_id)
    assert until_state(slurm, job_id, "CANCELLED") == "CANCELLED"
    slurm.cancel(job_id)


def test_one_task_of_an_array_can_be_cancelled(slurm: Slurm, script: Path) -> None:
    job_id = slurm.submit(script, "--array=0-2", "--hold")
    slurm.cancel(f"{job_id}_1")
    assert [job.array_index for job in slurm.find("run-1-s0")] == [0, 2]


def test_cancelling_a_job_that_is_gone_is_no_error(slurm: Slurm) -> None:
    slurm.cancel("99999999")


def test_a_signal_reaches_the_batch_script(slurm: Slurm, script: Path, tmp_path: Path) -> None:
    ready, heard = tmp_path / "ready", tmp_path / "heard"
    script.write_text(
        f"#!/bin/bash\n#SBATCH -o /dev/null\ntrap 'touch \"{heard}\"; exit 0' USR1\n"
        f'touch "{ready}"\nsleep 30 & wait\n'
    )
    job_id = slurm.submit(script)
    deadline = time.monotonic() + 20
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    slurm.signal(job_id, "USR1")
    assert until_state(slurm, job_id, "COMPLETED") == "COMPLETED"
    assert heard.exists()


def test_a_requeued_job_starts_again_when_hastened(slurm: Slurm, script: Path) -> None:
    job_id = slurm.submit(script, "--requeue")
    until_state(slurm, job_id, "RUNNING")
    slurm.requeue(job_id)
    until_state(slurm, job_id, "PENDING")
    slurm.hasten(job_id)
    (job,) = slurm.find("run-1-s0")
    assert (job.id, job.restarts) == (job_id, 1)


def test_partitions_nodes_and_configuration_are_the_clusters(slurm: Slurm) -> None:
    assert [(p.name, p.max_time_s) for p in slurm.partitions()] == [("debug", None), ("short", 300)]
    assert [(node.name, node.gres) for node in slurm.nodes()] == [
        ("n1", ("gpu:1",)),
        ("n2", ("gpu:1",)),
    ]
    assert slurm.config()["SelectType"] == "select/cons_tres"


# What the scheduler refuses


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("--partition=nonsense", r"(?s)Invalid partition name.*lists the partitions"),
        ("--nodelist=n9", r"(?s)Invalid node name.*slurm.nodelist"),
        ("--gres=gpu:9", r"(?s)Requested node configuration.*fusionrun doctor"),
        ("--constraint=none_such", r"(?s)Invalid feature.*slurm.constraint"),
        ("--array=0-99999", r"(?s)Invalid job array specification.*MaxArraySize"),
        ("--reservation=none_such", r"(?s)reservation is invalid.*scontrol show reservation"),
    ],
)
def test_a_refusal_has_the_schedulers_words_and_what_to_do(
    slurm: Slurm, script: Path, asked: str, said: str
) -> None:
    with pytest.raises(SchedulerError, match=said) as caught:
        slurm.submit(script, asked)
    assert not isinstance(caught.value, SubmitTimeout)
    assert caught.value.exit_code == 4


def test_the_verdict_on_a_good_script_has_a_start(slurm: Slurm, script: Path) -> None:
    verdict = slurm.verdict(script, "--time=5")
    assert verdict.accepted
    assert verdict.start is not None
    assert "partition debug" in verdict.words


def test_the_verdict_on_a_bad_script_is_no_and_why(slurm: Slurm, script: Path) -> None:
    verdict = slurm.verdict(script, "--partition=nonsense")
    assert (verdict.accepted, verdict.start) == (False, None)
    assert "Invalid partition name specified" in verdict.words


def test_requeueing_what_is_gone_is_refused(slurm: Slurm) -> None:
    with pytest.raises(SchedulerError, match="Invalid job id specified"):
        slurm.requeue("99999999")


# Who does not answer


def test_without_a_controller_the_queue_says_so_at_once(cluster: Cluster, slurm: Slurm) -> None:
    cluster.stop_controller()
    try:
        begun = time.monotonic()
        with pytest.raises(SchedulerUnreachableError, match=r"(?s)is DOWN.*Jobs that run go on"):
            slurm.queue()
        assert time.monotonic() - begun < 5
    finally:
        cluster.start_controller()
    assert slurm.queue() == []


def test_a_missing_configuration_is_named_at_once() -> None:
    slurm = Slurm({**os.environ, "SLURM_CONF": "/none/slurm.conf"})
    with pytest.raises(SchedulerUnreachableError, match=r"SLURM_CONF=/none/slurm.conf: no such"):
        slurm.queue()


def test_without_slurm_nothing_is_available_and_the_way_out_is_named(tmp_path: Path) -> None:
    slurm = Slurm({"PATH": str(tmp_path)})
    assert not slurm.available()
    with pytest.raises(
        SchedulerUnreachableError, match=r"not found on .*PATH(?s:.*)executor local"
    ):
        slurm.queue()


def test_a_sbatch_too_slow_to_answer_leaves_it_open(
    cluster: Cluster, slurm_env: dict[str, str], fakes: Path, script: Path
) -> None:
    real = cluster.run("sh", "-c", "command -v sbatch").strip()
    fake(fakes, "sbatch", f'{real} "$@"; sleep 60')
    slow = before(fakes, slurm_env, timeout_s=2.0)
    with pytest.raises(SubmitTimeout, match=r"nobody knows whether(?s:.*)no answer within 2 s"):
        slow.submit(script, "--hold")
    assert len(slow.find("run-1-s0")) == 1


def test_what_a_wrapper_of_sbatch_started_ends_with_it(
    slurm_env: dict[str, str], fakes: Path, script: Path, tmp_path: Path
) -> None:
    late = tmp_path / "late"
    fake(fakes, "sbatch", f'(sleep 2; touch "{late}") & wait')
    with pytest.raises(SubmitTimeout, match=r"no answer within 0\.5 s"):
        before(fakes, slurm_env, timeout_s=0.5).submit(script)
    time.sleep(2)
    assert not late.exists()


@pytest.mark.parametrize(
    "body",
    [
        "echo 'sbatch: error: Socket timed out on send/recv operation' >&2; exit 1",
        "kill -9 $$",
        "echo queued",
    ],
)
def test_a_lost_answer_leaves_it_open(fakes: Path, script: Path, body: str) -> None:
    fake(fakes, "sbatch", body)
    with pytest.raises(SubmitTimeout, match="nobody knows whether the job was queued"):
        Slurm({"PATH": f"{fakes}:{os.environ['PATH']}"}).submit(script)


def test_a_verdict_that_was_lost_is_no_refusal(
    slurm_env: dict[str, str], fakes: Path, script: Path
) -> None:
    fake(fakes, "sbatch", "echo 'allocation failure: Socket timed out on send/recv' >&2; exit 1")
    with pytest.raises(SchedulerUnreachableError, match=r"(?s)Socket timed out.*try again"):
        before(fakes, slurm_env).verdict(script)


def test_a_slow_command_is_out_of_reach(fakes: Path) -> None:
    fake(fakes, "scontrol", "sleep 60")
    slurm = Slurm({"PATH": f"{fakes}:{os.environ['PATH']}"}, timeout_s=0.2)
    with pytest.raises(SchedulerUnreachableError, match=r"scontrol: no answer within 0.2 s"):
        slurm.queue()


def test_the_time_limit_comes_from_the_environment() -> None:
    assert Slurm({}).timeout_s == 30.0
    assert Slurm({"FUSIONRUN_SLURM_TIMEOUT_S": "2.5"}).timeout_s == 2.5


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf"])
def test_a_time_limit_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"FUSIONRUN_SLURM_TIMEOUT_S: got '.*', expected seconds"):
        Slurm({"FUSIONRUN_SLURM_TIMEOUT_S": value})
