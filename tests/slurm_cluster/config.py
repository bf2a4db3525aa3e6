"""The text of slurm.conf and gres.conf. Pure: numbers and paths in, text out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Device files that are harmless to hand out as if they were GPUs.
_DEVICES = ("/dev/zero", "/dev/full", "/dev/null", "/dev/random", "/dev/urandom")
MAX_GPUS = len(_DEVICES)


@dataclass(frozen=True)
class Layout:
    """Where a cluster keeps its files."""

    root: Path

    @property
    def conf(self) -> Path:
        return self.root / "slurm.conf"

    @property
    def munge_dir(self) -> Path:
        return self.root / "munge"

    @property
    def munge_socket(self) -> Path:
        return self.munge_dir / "socket"

    @property
    def state_dir(self) -> Path:
        return self.root / "state"

    @property
    def spool_dir(self) -> Path:
        return self.root / "spool"

    @property
    def log_dir(self) -> Path:
        return self.root / "log"

    @property
    def keeper_file(self) -> Path:
        """Holds the pid of the process that answers for this cluster, and when it began."""
        return self.root / "keeper"


@dataclass(frozen=True)
class Shape:
    """How large the cluster is and how long it waits for what."""

    nodes: int = 2
    cpus: int = 2
    gpus: int = 1
    min_job_age_s: int = 300
    kill_wait_s: int = 5
    requeue_wait_s: int = 10
    message_timeout_s: int = 5
    max_array_size: int = 1001
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(f"n{i}" for i in range(1, self.nodes + 1))


def slurm_conf(layout: Layout, shape: Shape, *, user: str, ports: tuple[int, ...]) -> str:
    """Return slurm.conf; `ports` are the controller's and then each node's.

    `shape.settings` replace or add lines, by name.
    """
    lines = _general(layout, shape, user=user, port=ports[0])
    lines.update(shape.settings)
    text = [f"{name}={value}" for name, value in lines.items()]
    text += [
        _node(shape, name, port) for name, port in zip(shape.node_names, ports[1:], strict=True)
    ]
    names = ",".join(shape.node_names)
    text.append(f"PartitionName=debug Nodes={names} Default=YES MaxTime=INFINITE State=UP")
    text.append(f"PartitionName=short Nodes={names} MaxTime=5 State=UP")
    return "\n".join(text) + "\n"


def gres_conf(shape: Shape) -> str:
    """Return gres.conf: a harmless device file for each GPU of each node."""
    lines = ["AutoDetect=off"]
    for name in shape.node_names:
        lines += [f"NodeName={name} Name=gpu File={file}" for file in _DEVICES[: shape.gpus]]
    return "\n".join(lines) + "\n"


def _general(layout: Layout, shape: Shape, *, user: str, port: int) -> dict[str, str]:
    return {
        "ClusterName": "fusionrun",
        "SlurmctldHost": "localhost(127.0.0.1)",
        "SlurmctldPort": str(port),
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        "CredType": "cred/munge",
        # cred_expire is also how long a requeued job waits before it may start again (120 s
        # where nobody sets it). Too short, and a busy machine refuses its own jobs.
        "AuthInfo": f"socket={layout.munge_socket},cred_expire={shape.requeue_wait_s}",
        **_files(layout),
        **_plugins(),
        **_waits(shape),
        "MailProg": "/bin/true",
        # Nodes may claim more than this machine has.
        "SlurmdParameters": "config_overrides",
        "ReturnToService": "2",
        "MaxArraySize": str(shape.max_array_size),
        "GresTypes": "gpu",
    }


def _files(layout: Layout) -> dict[str, str]:
    return {
        "StateSaveLocation": str(layout.state_dir),
        "SlurmdSpoolDir": f"{layout.spool_dir}/%n",
        "SlurmctldPidFile": f"{layout.root}/slurmctld.pid",
        "SlurmdPidFile": f"{layout.root}/%n.pid",
        "SlurmctldLogFile": f"{layout.log_dir}/slurmctld.log",
        "SlurmdLogFile": f"{layout.log_dir}/%n.log",
    }


def _plugins() -> dict[str, str]:
    return {
        "AccountingStorageType": "accounting_storage/none",
        "JobAcctGatherType": "jobacct_gather/none",
        "JobCompType": "jobcomp/none",
        "MpiDefault": "none",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "SwitchType": "switch/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "SchedulerType": "sched/backfill",
    }


def _waits(shape: Shape) -> dict[str, str]:
    return {
        "SchedulerParameters": "batch_sched_delay=0,sched_interval=1,bf_interval=1",
        "MinJobAge": str(shape.min_job_age_s),
        "KillWait": str(shape.kill_wait_s),
        # A command gives up on a controller that is gone a second before this.
        "MessageTimeout": str(shape.message_timeout_s),
        "InactiveLimit": "0",
        "OverTimeLimit": "0",
        "SlurmctldTimeout": "60",
        "SlurmdTimeout": "60",
    }


def _node(shape: Shape, name: str, port: int) -> str:
    gres = f" Gres=gpu:{shape.gpus}" if shape.gpus else ""
    return (
        f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} "
        f"CPUs={shape.cpus} Sockets=1 CoresPerSocket={shape.cpus} ThreadsPerCore=1 "
        f"RealMemory=8000{gres} State=UNKNOWN"
    )
