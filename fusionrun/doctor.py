"""What this machine and cluster offer, each line with what it means for a recipe.

It looks and changes nothing, but for an empty file it makes and removes where runs would live.
torch is looked for, not imported: on a login host that alone can take half a minute.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fusionrun import __version__
from fusionrun.durations import in_words
from fusionrun.errors import SchedulerError
from fusionrun.slurm.client import Slurm
from fusionrun.slurm.records import Node, Partition, gres_count

__all__ = ["Finding", "Report", "examine", "screen"]

Level = Literal["fine", "note", "problem"]

DEVICES_TIMEOUT_S = 20.0
"""nvidia-smi starts the driver where nothing else keeps it loaded: up to ten seconds."""

# Of /proc/mounts: what nodes of a cluster share.
_SHARED = (
    "nfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse.ceph",
    "afs",
    "panfs",
    "wekafs",
    "cifs",
    "glusterfs",
    "fuse.glusterfs",
    "orangefs",
    "pvfs2",
    "9p",
    "virtiofs",
    "daos",
    "quobyte",
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: the part it belongs to: machine, slurm, partition.
        name: what was looked at.
        value: what was found.
        meaning: what that means for a recipe, in a sentence.
        level: `problem` where something asked for cannot work; `note` where care is due.
    """

    about: str
    name: str
    value: str
    meaning: str
    level: Level = "fine"


@dataclass(frozen=True)
class Report:
    """All that was found.

    Attributes:
        findings: in the order to show them.
        reachable: whether the scheduler answered; None where there is no Slurm.
        partitions: the cluster's, as Slurm describes them.
    """

    findings: tuple[Finding, ...]
    reachable: bool | None
    partitions: tuple[Partition, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Everything, in types that JSON knows."""
        return asdict(self)


def examine(slurm: Slurm, runs_dir: Path) -> Report:
    """Look at this machine, at where runs live, and at the cluster if there is one."""
    here = [*_python(), _torch(), _devices(), _runs_dir(runs_dir)]
    if not slurm.available():
        return Report((*here, _NO_SLURM), None)
    try:
        slurm.ping()
        settings, partitions, nodes = slurm.config(), slurm.partitions(), slurm.nodes()
        version = slurm.version()
    except SchedulerError as error:
        return Report((*here, _out_of_reach(error)), False)
    cluster = [
        *slurm_findings(version, settings, nodes),
        *(partition_finding(partition, nodes) for partition in partitions),
    ]
    return Report((*here, *cluster), True, tuple(partitions))


_NO_SLURM = Finding(
    "slurm",
    "Slurm",
    "not found",
    "no sbatch on the PATH: `fusionrun train` runs here in the foreground, "
    "`fusionrun submit --executor local` in the background",
)


def _out_of_reach(error: SchedulerError) -> Finding:
    words = [line.strip() for line in str(error).splitlines()[1:]]
    return Finding("slurm", "Slurm", "out of reach", " ".join(words), "problem")


def _python() -> Iterator[Finding]:
    number = ".".join(map(str, sys.version_info[:3]))
    meaning = "a job runs this very program by this path: the nodes must see it there"
    yield Finding("machine", "python", f"{number} ({sys.executable})", meaning)
    where = Path(__file__).parent
    meaning = "a queued run takes a copy of it along, and keeps to that copy"
    yield Finding("machine", "fusionrun", f"{__version__} ({where})", meaning)


def _torch() -> Finding:
    from importlib import metadata, util

    if util.find_spec("torch") is None:
        meaning = "plan, submit and status need none; `fusionrun train` and a job's python do"
        return Finding("machine", "torch", "not found", meaning, "note")
    try:
        found = metadata.version("torch")
    except metadata.PackageNotFoundError:
        found = "of unknown version"
    return Finding("machine", "torch", found, "`fusionrun train` can run here (not imported now)")


def _devices() -> Finding:
    names = devices()
    if not names:
        meaning = "training here uses the CPU; a job uses what its node grants it"
        return Finding("machine", "devices", "no GPU seen", meaning)
    counted = ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))
    return Finding("machine", "devices", counted, "`fusionrun train` can use them")


def devices() -> list[str]:
    """Names of the GPUs that `nvidia-smi -L` lists; none where there is no such program."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DEVICES_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return device_names(done.stdout) if done.returncode == 0 else []


def device_names(text: str) -> list[str]:
    """`GPU 0: NVIDIA A100 (UUID: GPU-…)` is `NVIDIA A100`; the parts of a divided GPU are not."""
    lines = (line for line in text.splitlines() if line.startswith("GPU "))
    return [line.partition(": ")[2].partition(" (UUID")[0] for line in lines]


def _runs_dir(directory: Path) -> Finding:
    """Whether a run can be made there, and whether a cluster's nodes are likely to see it."""
    place = directory.absolute()
    there = next(p for p in [place, *place.parents] if os.path.exists(p))
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        meaning = f"no run can be made there: {error.strerror}; choose another with --runs DIR"
        return Finding("machine", "runs directory", str(place), meaning, "problem")
    kind = filesystem_of(there, _mounts())
    if kind.startswith(_SHARED):
        return Finding("machine", "runs directory", str(place), f"writable; shared ({kind})")
    meaning = f"writable; on {kind}: every node of a queued run must see it under this path"
    return Finding("machine", "runs directory", str(place), meaning, "note")


def _mounts() -> str:
    try:
        return Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def filesystem_of(path: Path, mounts: str) -> str:
    """Kind of the file system a path is on, from the text of /proc/mounts."""
    resolved = path.resolve()
    kind, depth = "a file system of unknown kind", -1
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(fields[1].replace("\\040", " "))
        if resolved.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = fields[2], len(point.parts)  # a later mount covers an earlier one
    return kind


def slurm_findings(
    version: tuple[int, int, int], settings: Mapping[str, str], nodes: Sequence[Node]
) -> Iterator[Finding]:
    """What a cluster's settings mean for a recipe. Pure.

    Args:
        version: of the commands.
        settings: `Slurm.config()`.
        nodes: all of them.
    """
    yield _version(version)
    yield _gpus(settings, nodes)
    yield _memory(settings)
    yield _accounting(settings)
    yield _requeue(settings)
    yield _kill_wait(settings)
    yield _proctrack(settings)
    yield _min_job_age(settings)
    yield _arrays(settings)
    yield _part_limits(settings)


def _slurm(name: str, value: str, meaning: str, level: Level = "fine") -> Finding:
    return Finding("slurm", name, value, meaning, level)


def _version(version: tuple[int, int, int]) -> Finding:
    number = f"{version[0]}.{version[1]:02}.{version[2]}"
    if version < (22, 5, 0):
        meaning = "older than any that fusionrun was tried with (22.05 and later)"
        return _slurm("Slurm", f"{number}, reachable", meaning, "note")
    return _slurm("Slurm", f"{number}, reachable", "`fusionrun submit` queues here")


def _gpus(settings: Mapping[str, str], nodes: Sequence[Node]) -> Finding:
    kinds = [gres_count(gres) for node in nodes for gres in node.gres]
    gpus = [(kind, number) for name, kind, number in kinds if name == "gpu"]
    if "gpu" not in settings.get("GresTypes", "").split(",") or not gpus:
        return _slurm("GPUs", "none", "leave slurm.gpus_per_node and slurm.gres out")
    most = max(number for _, number in gpus)
    types = sorted({kind for kind, _ in gpus if kind})
    value = f"up to {most} a node" + (f": {', '.join(types)}" if types else "")
    if settings.get("SelectType") == "select/cons_tres":
        typed = f" or '{types[0]}:{most}'" if types else ""
        return _slurm("GPUs", value, f"slurm.gpus_per_node: {most}{typed} (never with slurm.gres)")
    meaning = (
        f"slurm.gres: 'gpu:{most}'; slurm.gpus_per_node needs select/cons_tres, which is not used"
    )
    return _slurm("GPUs", value, meaning, "note")


def _memory(settings: Mapping[str, str]) -> Finding:
    mode = settings.get("SelectTypeParameters", "")
    if "MEMORY" not in mode.upper():
        meaning = "not shared out: slurm.mem only keeps to nodes that have so much"
        return _slurm("memory", mode or "unknown", meaning)
    for name, of in (("DefMemPerNode", "a node"), ("DefMemPerCPU", "a CPU")):
        amount = settings.get(name, "")
        if amount.isdecimal() and int(amount):
            meaning = f"shared out: without slurm.mem a run gets {amount} MB {of}"
            return _slurm("memory", mode, meaning, "note")
    meaning = "shared out: without slurm.mem a run takes a whole node's, and keeps others away"
    return _slurm("memory", mode, meaning, "note")


def _accounting(settings: Mapping[str, str]) -> Finding:
    kind = settings.get("AccountingStorageType", "").rpartition("/")[2] or "none"
    if kind == "none":
        meaning = "the run directory alone remembers how a run ended; fusionrun reads it there"
        return _slurm("accounting", "none", meaning)
    meaning = "sacct remembers jobs too; slurm.account and slurm.qos may be required"
    return _slurm("accounting", kind, meaning)


def _requeue(settings: Mapping[str, str]) -> Finding:
    if settings.get("JobRequeue", "1") == "1":
        meaning = "slurm.requeue: true (the default) goes on under the same job id"
        return _slurm("requeue", "allowed", meaning)
    meaning = "a job must ask for it, as slurm.requeue: true does; if refused, set it to false: "
    meaning += "the run then goes on in new jobs"
    return _slurm("requeue", "off by default", meaning, "note")


def _kill_wait(settings: Mapping[str, str]) -> Finding:
    meaning = "between TERM and KILL at a time limit or scancel: too short to save in, so the run "
    meaning += "stops slurm.grace before the limit"
    return _slurm("KillWait", settings.get("KillWait", "unknown"), meaning)


def _proctrack(settings: Mapping[str, str]) -> Finding:
    kind = settings.get("ProctrackType", "unknown").rpartition("/")[2]
    if kind == "cgroup":
        return _slurm("proctrack", kind, "whatever a job started ends with it")
    meaning = "a process that leaves its session may outlive its job and keep a GPU"
    return _slurm("proctrack", kind, meaning, "note")


def _min_job_age(settings: Mapping[str, str]) -> Finding:
    meaning = "so long after its end squeue still knows a job; then only its run directory does"
    return _slurm("MinJobAge", settings.get("MinJobAge", "unknown"), meaning)


def _arrays(settings: Mapping[str, str]) -> Finding:
    most = settings.get("MaxArraySize", "unknown")
    if most == "0":
        return _slurm("MaxArraySize", most, "arrays are off: a sweep cannot be queued", "note")
    return _slurm("MaxArraySize", most, "a sweep of more runs becomes several arrays")


def _part_limits(settings: Mapping[str, str]) -> Finding:
    value = settings.get("EnforcePartLimits", "NO")
    if value != "NO":
        return _slurm("EnforcePartLimits", value, "a run beyond a partition's limits is refused")
    meaning = "a slurm.time beyond the partition's limit is accepted, and then waits for ever"
    return _slurm("EnforcePartLimits", value, meaning, "note")


def partition_finding(partition: Partition, nodes: Sequence[Node]) -> Finding:
    """What a partition offers. Pure."""
    own = [node for node in nodes if partition.name in node.partitions]
    name = partition.name + (" (default)" if partition.is_default else "")
    value = ", ".join([f"{_limit(partition.max_time_s)}", *_hardware(partition, own)])
    if not partition.is_up:
        return Finding("partition", name, value, "starts no jobs now", "note")
    return Finding("partition", name, value, _partition_meaning(partition, own))


def _partition_meaning(partition: Partition, nodes: Sequence[Node]) -> str:
    given = partition.default_time_s
    if given is not None:
        meaning = f"without slurm.time a run gets {in_words(given)}"
    elif partition.max_time_s is not None:
        meaning = (
            f"slurm.time up to {in_words(partition.max_time_s)}; a longer run goes on in slices"
        )
    else:
        meaning = "set slurm.time, or the scheduler cannot foresee when anything starts"
    away = sum(node.is_out_of_service for node in nodes)
    meaning += f"; {away} of {len(nodes)} nodes out of service" if away else ""
    if partition.preempt not in ("OFF", ""):
        meaning += f"; a run may have to make room for others ({partition.preempt.lower()})"
    return meaning


def _hardware(partition: Partition, nodes: Sequence[Node]) -> Iterator[str]:
    yield f"{partition.num_nodes} node{'s' * (partition.num_nodes != 1)}"
    if not nodes:
        return
    yield f"{_range([node.num_cpus for node in nodes])} CPUs"
    yield f"{_range([round(node.memory_mb / 1024) for node in nodes])} GB"
    gres = dict.fromkeys(gres.partition("(")[0] for node in nodes for gres in node.gres)
    yield from gres


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


def _limit(seconds: int | None) -> str:
    return "no time limit" if seconds is None else f"{in_words(seconds)} at most"


_HEADINGS = {"machine": "this machine", "slurm": "the cluster", "partition": "partitions"}
_MARKS: Mapping[Level, str] = {"fine": " ", "note": "·", "problem": "!"}
_WIDTH = 100


def screen(report: Report) -> str:
    """The findings as text: what was found on a line, what it means below."""
    wide = max(len(finding.name) for finding in report.findings)
    lines: list[str] = []
    for about, heading in _HEADINGS.items():
        own = [finding for finding in report.findings if finding.about == about]
        if own:
            lines += ["", heading, *(line for f in own for line in _lines(f, wide))]
    return "\n".join(lines[1:])


def _lines(finding: Finding, wide: int) -> Iterator[str]:
    from textwrap import wrap

    yield f"{_MARKS[finding.level]} {finding.name:{wide}}  {finding.value}"
    below = wrap(finding.meaning, _WIDTH - wide - 4, break_long_words=False, break_on_hyphens=False)
    yield from (f"{'':{wide + 4}}{line}" for line in below)
