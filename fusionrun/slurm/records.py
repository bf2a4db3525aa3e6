"""What `scontrol show` prints of jobs, nodes, partitions and the configuration, as values. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from fusionrun.slurm.parse import duration_s, or_empty

__all__ = [
    "Node",
    "Partition",
    "config",
    "gres_count",
    "nodes",
    "partitions",
    "records",
]


@dataclass(frozen=True)
class Partition:
    """A partition.

    Attributes:
        name: what `slurm.partition` takes.
        is_default: whether jobs go there that name none.
        is_up: whether it starts jobs now.
        max_time_s: the longest time limit it lets run; None for no limit.
        default_time_s: the limit of a job that gives none; None where that is `max_time_s`.
        num_nodes: how many nodes it has.
        preempt: `OFF`, or what happens to a job that makes room for another.
        min_nodes: the fewest a job may have.
        max_nodes: the most; None for all.
        max_cpus_per_node: the most CPUs of a node; None for all.
        max_memory_mb: megabytes of memory, the most of a node; None for all.
    """

    name: str
    is_default: bool
    is_up: bool
    max_time_s: int | None
    default_time_s: int | None
    num_nodes: int
    preempt: str = "OFF"
    min_nodes: int = 1
    max_nodes: int | None = None
    max_cpus_per_node: int | None = None
    max_memory_mb: int | None = None


_OUT_OF_SERVICE: Final = frozenset(
    {"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "NOT_RESPONDING", "UNKNOWN"}
)


@dataclass(frozen=True)
class Node:
    """A node.

    Attributes:
        name: Slurm's name of it, which need not resolve.
        address: where it listens (NodeAddr), which Slurm itself uses.
        state: Slurm's word: `IDLE`, `MIXED+DRAIN`, …
        partitions: it belongs to.
        num_cpus: it has.
        memory_mb: Slurm may give out.
        gres: generic resources, `gpu:a100:4`; empty for none.
        reason: why it is drained or down.
    """

    name: str
    address: str
    state: str
    partitions: tuple[str, ...]
    num_cpus: int
    memory_mb: int
    gres: tuple[str, ...]
    reason: str

    @property
    def is_out_of_service(self) -> bool:
        """Whether it starts no jobs until somebody repairs it. A node asleep does not count."""
        words = self.state.split("+")
        return "*" in self.state or not _OUT_OF_SERVICE.isdisjoint(words)


def records(text: str) -> list[dict[str, str]]:
    """What `scontrol show job|node|partition` prints, not on one line: a mapping each.

    On one line (`-o`) a job named `x JobState=FAILED` cannot be told from a failed one. On
    several, a user's own words fill the rest of their line, and come after what they could fake:
    the first of two equal names counts.
    """
    blocks = re.split(r"\n[ \t]*\n", text)
    return [record for block in blocks if (record := _record(block))]


_WHOLE_LINE: Final = frozenset(
    {
        "AdminComment",
        "Command",
        "Comment",
        "ExtraInfo",
        "OS",
        "Reason",
        "StdErr",
        "StdIn",
        "StdOut",
        "SubmitLine",
        "SystemComment",
        "WorkDir",
    }
)
_PAIR: Final = re.compile(r"(\S+?)=(.*?)(?=\s+[A-Za-z][\w:/.]*=|\s*$)")


def _record(block: str) -> dict[str, str]:
    pairs = [pair for line in block.splitlines() for pair in _pairs(line.strip())]
    return dict(reversed(pairs))  # the first of two equal names counts


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    name, equals, rest = line.partition("=")
    if equals and name in _WHOLE_LINE:
        yield name, rest
        return
    line, _, job_name = line.partition(" JobName=") if line.startswith("JobId=") else (line, "", "")
    yield from ((pair[1], pair[2].strip()) for pair in _PAIR.finditer(line))
    if job_name:
        yield "JobName", job_name


def config(text: str) -> dict[str, str]:
    """What `scontrol show config` prints: name to value, `(null)` as the empty text."""
    pairs = (line.split("=", 1) for line in text.splitlines() if re.match(r"[\w\[\]]+\s*= ", line))
    return {name.strip(): _or_null(value.strip()) for name, value in pairs}


def _or_null(text: str) -> str:
    return "" if text in ("(null)", "(null type)") else text


def partitions(text: str) -> list[Partition]:
    """What `scontrol show partition` prints."""
    return [_partition(record) for record in records(text) if "PartitionName" in record]


def _partition(record: Mapping[str, str]) -> Partition:
    return Partition(
        name=record["PartitionName"],
        is_default=record.get("Default") == "YES",
        is_up=record.get("State") == "UP",
        max_time_s=duration_s(record.get("MaxTime", "")),
        default_time_s=duration_s(record.get("DefaultTime", "")),
        num_nodes=_number(record.get("TotalNodes", "")),
        min_nodes=max(1, _number(record.get("MinNodes", ""))),
        max_nodes=_bound(record.get("MaxNodes", "")),
        max_cpus_per_node=_bound(record.get("MaxCPUsPerNode", "")),
        max_memory_mb=_bound(record.get("MaxMemPerNode", "")),
        preempt=record.get("PreemptMode", "OFF"),
    )


def nodes(text: str) -> list[Node]:
    """What `scontrol show node` prints."""
    return [_node(record) for record in records(text) if "NodeName" in record]


def _node(record: Mapping[str, str]) -> Node:
    return Node(
        name=record["NodeName"],
        address=record.get("NodeAddr", record["NodeName"]),
        state=record.get("State", "UNKNOWN"),
        partitions=_listed(record.get("Partitions", "")),
        num_cpus=_number(record.get("CPUTot", "")),
        memory_mb=_number(record.get("RealMemory", "")),
        gres=_listed(record.get("Gres", "")),
        reason=or_empty(record.get("Reason", "")),
    )


def _listed(text: str) -> tuple[str, ...]:
    """A list at whose commas it is cut, but not at those in brackets: `gpu:4(S:0,2)`."""
    return tuple(item for item in re.split(r",(?![^(\[]*[)\]])", or_empty(text)) if item)


def gres_count(gres: str) -> tuple[str, str, int]:
    """Name, type (or empty) and number: `gpu:a100:4(S:0-1)` is ("gpu", "a100", 4)."""
    name, *rest = gres.partition("(")[0].split(":")
    number = int(rest.pop()) if rest and rest[-1].isdecimal() else 1
    return name, ":".join(rest), number


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _bound(text: str) -> int | None:
    """A number, or None for UNLIMITED and what else is none."""
    return int(text) if text.isdecimal() else None
