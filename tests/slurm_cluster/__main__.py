"""`python -m tests.slurm_cluster`: a cluster by hand, until Ctrl-C or for one command."""

from __future__ import annotations

import argparse
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from . import Cluster, ClusterError


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.slurm_cluster",
        description="Start a real Slurm cluster on this machine, to try things on. It runs until "
        "Ctrl-C, or as long as COMMAND, whose exit code it passes on.",
        epilog="Example: python -m tests.slurm_cluster -- srun -N2 sh -c 'echo $SLURMD_NODENAME'",
    )
    parser.add_argument("--root", type=Path, help="folder for its files (a temporary one)")
    parser.add_argument("--nodes", type=int, default=2, help="number of nodes (%(default)s)")
    parser.add_argument("--cpus", type=int, default=2, help="CPUs a node (%(default)s)")
    parser.add_argument("--gpus", type=int, default=1, help="pretended GPUs a node (%(default)s)")
    parser.add_argument(
        "--min-job-age-s", type=int, default=300, help="Slurm forgets a job after (%(default)s)"
    )
    parser.add_argument(
        "--requeue-wait-s", type=int, default=10, help="a requeued job waits (%(default)s)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="a further line of slurm.conf; may be given several times",
    )
    parser.add_argument("command", nargs="*", metavar="COMMAND", help="what to run, after --")
    return parser


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected NAME=VALUE")
    return name, value


def _until_interrupted(cluster: Cluster) -> int:
    nodes = ", ".join(cluster.node_names)
    try:
        print(f"export SLURM_CONF={shlex.quote(cluster.env['SLURM_CONF'])}")
        print(f"# Nodes {nodes} are idle; paste the line above into another shell and try:")
        print("#   sinfo; srun -N2 sh -c 'echo $SLURMD_NODENAME'; sbatch --wrap 'sleep 60'; squeue")
        print(f"# Logs: {cluster.root}/log. Ctrl-C ends it all.", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print(file=sys.stderr)
    return 0


def _run(cluster: Cluster, command: list[str]) -> int:
    try:
        return subprocess.run(command, env=cluster.environment()).returncode
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)
        return 127


def main() -> int:
    """Read the command line, hold a cluster, and return the exit code."""
    given = _arguments().parse_args()
    # kill(1) shall end it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Cluster(
            given.root,
            nodes=given.nodes,
            cpus=given.cpus,
            gpus=given.gpus,
            min_job_age_s=given.min_job_age_s,
            requeue_wait_s=given.requeue_wait_s,
            settings=dict(given.set),
        ) as cluster:
            return _run(cluster, given.command) if given.command else _until_interrupted(cluster)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
