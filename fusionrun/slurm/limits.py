"""What Slurm queues, and its partition can never start: refused before it is queued.

Unless a site says otherwise (EnforcePartLimits) Slurm accepts a time limit, a number of nodes, CPUs
or memory beyond a partition's own bounds, and the job waits for ever. What it refuses itself (more
than any node has) is left to its own words. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fusionrun.durations import in_words
from fusionrun.errors import Problem
from fusionrun.slurm.checks import time_s
from fusionrun.slurm.records import Partition
from fusionrun.slurm.request import processes_per_node

__all__ = ["beyond"]

_FIX: Final = "change it, or ask for another slurm.partition"

_MB: Final = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}


def beyond(settings: Mapping[str, Any], partitions: Sequence[Partition]) -> list[Problem]:
    """What of a resolved `slurm` section none of its partitions can ever start.

    A QOS may lift a partition's bounds: with one, nothing is beyond them here.

    Args:
        settings: the section, plain.
        partitions: the cluster's.

    Returns:
        Problems without places, each with its dotted key. Of several partitions named, those of
        the first: one that fits is enough.
    """
    meant = _meant(settings["partition"], partitions)
    if settings["qos"] is not None or not meant:
        return []
    found = [[*_problems(settings, partition)] for partition in meant]
    return found[0] if all(found) else []


def _meant(named: str | None, partitions: Sequence[Partition]) -> list[Partition]:
    """Those that the section names, or the default one; none where one of them is not known."""
    if named is None:
        return [partition for partition in partitions if partition.is_default]
    known = {partition.name: partition for partition in partitions}
    names = [name.strip() for name in named.split(",")]
    return [known[name] for name in names] if all(name in known for name in names) else []


def _problems(settings: Mapping[str, Any], partition: Partition) -> Iterator[Problem]:
    yield from _time(settings, partition)
    yield from _nodes(settings, partition)
    yield from _cpus(settings, partition)
    yield from _memory(settings, partition)


def _time(settings: Mapping[str, Any], partition: Partition) -> Iterator[Problem]:
    extra = {name.replace("_", "-"): value for name, value in settings["extra"].items()}
    limit = time_s(str(extra.get("time-min", settings["time"] or "")))
    if limit is None or partition.max_time_s is None or limit <= partition.max_time_s:
        return
    yield Problem(
        None,
        "slurm.time",
        f"{settings['time']!r}: {in_words(limit)}",
        f"at most {in_words(partition.max_time_s)}, the limit of partition {partition.name}",
        "ask for less, and the run goes on in another job after each limit; "
        "or another slurm.partition",
    )


def _nodes(settings: Mapping[str, Any], partition: Partition) -> Iterator[Problem]:
    asked = settings["nodes"]
    least, most = partition.min_nodes, min(partition.max_nodes or asked, partition.num_nodes)
    if least <= asked <= most or not partition.num_nodes:
        return
    bounds = f"{least} to {most}" if least > 1 else f"at most {most}"
    expected = f"{bounds}, of the {partition.num_nodes} in partition {partition.name}"
    yield Problem(None, "slurm.nodes", str(asked), expected, _FIX)


def _cpus(settings: Mapping[str, Any], partition: Partition) -> Iterator[Problem]:
    processes, each = processes_per_node(settings), settings["cpus_per_task"] or 1
    most = partition.max_cpus_per_node
    if most is None or processes * each <= most:
        return
    key = "gpus_per_node" if settings["cpus_per_task"] is None else "cpus_per_task"
    got = f"{processes * each} CPUs on each node: {processes} × {each}"
    expected = f"at most {most}, the limit of partition {partition.name}"
    yield Problem(None, f"slurm.{key}", got, expected, _FIX)


def _memory(settings: Mapping[str, Any], partition: Partition) -> Iterator[Problem]:
    most = partition.max_memory_mb
    key = "mem" if settings["mem"] is not None else "mem_per_cpu"
    asked = _mb(settings[key])
    if key == "mem_per_cpu":
        asked *= processes_per_node(settings) * (settings["cpus_per_task"] or 1)
    if most is None or asked <= most:
        return
    expected = f"at most {most} MB, the limit of partition {partition.name}"
    got = f"{settings[key]!r}: {round(asked)} MB on each node"
    yield Problem(None, f"slurm.{key}", got, expected, _FIX)


def _mb(text: str | None) -> float:
    found = re.fullmatch(r"(\d+)([KMGT]?)", (text or "").upper())
    return int(found[1]) * _MB[found[2] or "M"] if found else 0.0
