"""Where the ranks meet: by hand-made answers of scontrol, and on a real cluster of two nodes."""

from __future__ import annotations

import os
import re
import shlex
import socket
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusionrun.errors import SchedulerError, UserError
from fusionrun.slurm import rendezvous
from fusionrun.slurm.rendezvous import candidate_ports, main, meeting_address, meeting_port
from tests.slurm.needs import needs_slurm
from tests.slurm_cluster import Cluster

ROOT = Path(__file__).parents[2]
TWO_NODES = {"SLURM_JOB_NODELIST": "gpu[07-08]", "SLURM_JOB_NUM_NODES": "2"}
NODE = """NodeName=gpu07 Arch=x86_64 CoresPerSocket=32
   CPUAlloc=2 CPUEfctv=64 CPUTot=64 CPULoad=0.05
   Gres=gpu:4
   NodeAddr={address} NodeHostName=gpu07 Version=23.11.4
   OS=Linux 6.1.0 #1 SMP NodeAddr=10.9.9.9
   State=ALLOCATED ThreadsPerCore=1 TmpDisk=0 Weight=1
"""


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files `hostnames` and `node` are what scontrol answers, first on the PATH."""
    monkeypatch.setattr(rendezvous, "_PAUSE_S", 0.0)
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "scontrol"
    answers = shlex.quote(str(folder))
    program.write_text(f'#!/bin/sh\necho "$*" >> {answers}/calls\ncat {answers}/$2 || exit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def environment(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **more}


# --- the address ------------------------------------------------------------------------------


def test_one_node_meets_on_itself_and_asks_nobody(scontrol: Path) -> None:
    one = environment(SLURM_JOB_NODELIST="gpu07", SLURM_JOB_NUM_NODES="1")
    assert meeting_address(one) == "127.0.0.1"
    assert not (scontrol / "calls").exists()


@pytest.mark.parametrize("address", ["10.1.2.7", "gpu07-ib", "fe80::7"])
def test_several_nodes_meet_at_the_first_ones_node_addr(scontrol: Path, address: str) -> None:
    (scontrol / "hostnames").write_text("gpu07\ngpu08\n")
    (scontrol / "node").write_text(NODE.format(address=address))
    assert meeting_address(environment(**TWO_NODES)) == address
    assert (scontrol / "calls").read_text() == "show hostnames gpu[07-08]\nshow node gpu07\n"


def test_a_scontrol_that_fails_is_asked_again_and_then_told_in_its_words(scontrol: Path) -> None:
    (scontrol / "hostnames").write_text("gpu07\ngpu08\n")
    with pytest.raises(SchedulerError, match=r"^scontrol show node gpu07: .*No such file"):
        meeting_address(environment(**TWO_NODES))
    assert (scontrol / "calls").read_text().count("show node") == 4


def test_a_machine_without_scontrol_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SchedulerError, match=r"^scontrol: not found on the PATH of this job"):
        meeting_address({**TWO_NODES, "PATH": str(tmp_path)})


def test_outside_a_job_there_is_no_rendezvous() -> None:
    with pytest.raises(UserError, match=r"SLURM_JOB_NODELIST is not set: expected to run in a"):
        meeting_address({})
    with pytest.raises(UserError, match=r"SLURM_JOB_ID: got '', expected a number"):
        meeting_port({})


# --- the port ---------------------------------------------------------------------------------


@given(st.integers(1, 2**32))
def test_a_hundred_jobs_in_a_row_begin_at_different_ports(first_job: int) -> None:
    begin = [next(candidate_ports(job)) for job in range(first_job, first_job + 100)]
    assert len(set(begin)) == 100


@given(st.integers(1, 2**32))
def test_a_job_tries_no_port_twice_and_none_that_connections_take(job: int) -> None:
    ports = list(candidate_ports(job))
    assert len(set(ports)) == len(ports)
    assert min(ports) >= 20000
    assert max(ports) < 32768


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_an_occupied_port_is_passed_over(address: str) -> None:
    job = os.getpid() + 4_000_000
    free = meeting_port({"SLURM_JOB_ID": str(job)})
    with socket.create_server((address, free)):
        other = meeting_port({"SLURM_JOB_ID": str(job)})
    assert other != free
    assert other in set(candidate_ports(job))


# --- as the script calls it -------------------------------------------------------------------


def test_two_lines_for_a_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n1")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert main() == 0
    assert re.fullmatch(r"MASTER_ADDR=127\.0\.0\.1\nMASTER_PORT=\d{5}\n", capsys.readouterr().out)


def test_a_failure_prints_no_line_for_the_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_NODELIST", raising=False)
    monkeypatch.delenv("SLURM_NODELIST", raising=False)
    assert main() == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("fusionrun: no rendezvous for the ranks: SLURM_JOB_NODELIST")


JOIN = """
import torch
from fusionrun.train.ranks import join_ranks
ranks = join_ranks(torch.device("cpu"))
total = torch.tensor([ranks.rank + 1.0])
ranks.sum_(total)
print("rank", ranks.rank, "of", ranks.size, "sum", total.item(), flush=True)
ranks.close()
"""


@needs_slurm
def test_ranks_on_two_nodes_whose_names_do_not_resolve_meet_in_two_jobs_at_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "join.py").write_text(JOIN)
    script = tmp_path / "job.sh"
    python = shlex.quote(sys.executable)
    script.write_text(
        "#!/bin/bash\n"
        "set -e\n"
        f"export PYTHONPATH={shlex.quote(str(ROOT))} OMP_NUM_THREADS=1\n"
        f"meeting=$({python} -m fusionrun.slurm.rendezvous)\n"
        'echo "$meeting"\n'
        'eval "$meeting"\n'
        "export MASTER_ADDR MASTER_PORT FUSIONRUN_RANK_TIMEOUT_S=60\n"
        f"srun {python} {shlex.quote(str(tmp_path / 'join.py'))}\n"
    )
    outs = [tmp_path / f"{number}.out" for number in range(2)]
    jobs = [
        cluster.sbatch("-N2", "-n2", "-c1", "-D", str(tmp_path), "-o", str(out), str(script))
        for out in outs
    ]
    ended = [cluster.wait(job, "COMPLETED", timeout_s=90) for job in jobs]
    said = [out.read_text() for out in outs]
    assert ended == ["COMPLETED"] * 2, said
    for text in said:
        lines = sorted(line for line in text.splitlines() if line.startswith("rank"))
        assert lines == ["rank 0 of 2 sum 3.0", "rank 1 of 2 sum 3.0"]
        assert "MASTER_ADDR=127.0.0.1\n" in text
    ports = {port for text in said for port in re.findall(r"MASTER_PORT=(\d+)", text)}
    assert len(ports) == 2
