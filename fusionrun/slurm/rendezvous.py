"""Where the ranks of a job meet: an address on its first node, and a port that is free there.

`python -m fusionrun.slurm.rendezvous` runs in the batch script, on that first node, and prints two
lines for a shell to evaluate and export: MASTER_ADDR=… and MASTER_PORT=….

It asks Slurm for the address it uses itself (NodeAddr), since node names need not resolve. Knows
no recipe and no run.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Final

from fusionrun.errors import FusionrunError, SchedulerError, UserError
from fusionrun.slurm import records
from fusionrun.slurm.clean import without_slurm

__all__ = ["candidate_ports", "main", "meeting_address", "meeting_port"]

# Below Linux's range of ports for outgoing connections, which begins at 32768: any of those may
# be taken between the test and its use. The number of ports is prime, so that every stride
# visits them all.
_FIRST_PORT: Final = 20000
_NUM_PORTS: Final = 12007
_STRIDE: Final = 5003
_PORTS_TRIED: Final = 500

_ATTEMPTS: Final = 4
_PAUSE_S: Final = 2.0
_TIMEOUT_S: Final = 30.0


def main() -> int:
    """Print the two lines; returns the exit code."""
    try:
        address = meeting_address(os.environ)
        port = meeting_port(os.environ)
    except FusionrunError as error:
        print(f"fusionrun: no rendezvous for the ranks: {error}", file=sys.stderr)
        return error.exit_code
    print(f"MASTER_ADDR={shlex.quote(address)}\nMASTER_PORT={port}")
    return 0


def meeting_address(environ: Mapping[str, str]) -> str:
    """Where all nodes of the job reach its first node.

    On one node it is the loopback address: nothing to ask, and no firewall in between.

    Args:
        environ: of a batch script: SLURM_JOB_NUM_NODES and SLURM_JOB_NODELIST.

    Raises:
        UserError: this is no job.
        SchedulerError: Slurm does not answer, or does not know the node.
    """
    nodes = environ.get("SLURM_JOB_NODELIST") or environ.get("SLURM_NODELIST", "")
    if not nodes:
        raise UserError("SLURM_JOB_NODELIST is not set: expected to run in a Slurm job")
    if (environ.get("SLURM_JOB_NUM_NODES") or environ.get("SLURM_NNODES")) == "1":
        return "127.0.0.1"
    first = _scontrol(environ, "show", "hostnames", nodes).split("\n")[0].strip()
    for node in records.nodes(_scontrol(environ, "show", "node", first)):
        if node.name == first and node.address:
            return node.address
    raise SchedulerError(f"scontrol show node {first}: expected its NodeAddr, and there is none")


def meeting_port(environ: Mapping[str, str]) -> int:
    """A port that is free on this machine now, another for each job that starts at this time.

    Args:
        environ: of a batch script: SLURM_JOB_ID.

    Raises:
        UserError: this is no job.
        SchedulerError: none of many was free.
    """
    job_id = environ.get("SLURM_JOB_ID", "")
    if not (job_id.isascii() and job_id.isdecimal()):
        raise UserError(f"SLURM_JOB_ID: got {job_id!r}, expected a number, as in a Slurm job")
    for port in candidate_ports(int(job_id)):
        if _is_free(port):
            return port
    raise SchedulerError(
        f"{_PORTS_TRIED} ports from {_FIRST_PORT} to {_FIRST_PORT + _NUM_PORTS - 1} were tried on "
        f"{socket.gethostname()}, and none could be bound: look at the node's network"
    )


def candidate_ports(job_id: int) -> Iterator[int]:
    """The ports a job tries, in order. Jobs with neighbouring ids begin at different ones."""
    for attempt in range(_PORTS_TRIED):
        yield _FIRST_PORT + (job_id + attempt * _STRIDE) % _NUM_PORTS


def _is_free(port: int) -> bool:
    """Whether every address of this machine can be bound, as torch's store will do."""
    families = [(socket.AF_INET, "0.0.0.0")]
    if socket.has_dualstack_ipv6():
        families.append((socket.AF_INET6, "::"))
    return all(_binds(family, address, port) for family, address in families)


def _binds(family: socket.AddressFamily, address: str, port: int) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        try:
            listener.bind((address, port))
        except OSError:
            return False
    return True


def _scontrol(environ: Mapping[str, str], *arguments: str) -> str:
    """Standard output of scontrol, asked again a few times: many jobs may start at once."""
    import subprocess

    said = ""
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt * _PAUSE_S)
        try:
            answer = subprocess.run(
                ["scontrol", *arguments],
                env=without_slurm(environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_TIMEOUT_S,
            )
        except FileNotFoundError as error:
            raise SchedulerError(
                "scontrol: not found on the PATH of this job. Fix: load Slurm's module in `setup`"
            ) from error
        except subprocess.TimeoutExpired:
            said = f"no answer within {_TIMEOUT_S:g} s"
            continue
        if answer.returncode == 0:
            return answer.stdout
        said = (answer.stderr or answer.stdout).strip()
    raise SchedulerError(f"scontrol {shlex.join(arguments)}: {said}")


if __name__ == "__main__":
    sys.exit(main())
