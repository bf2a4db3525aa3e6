"""From a resolved `slurm` section to what is asked of Slurm: options, and how many processes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["KEYS", "num_gpus", "options", "processes_per_node", "world_size"]

KEYS = (
    "partition",
    "account",
    "qos",
    "constraint",
    "reservation",
    "nodes",
    "gpus_per_node",
    "gres",
    "cpus_per_task",
    "mem",
    "mem_per_cpu",
    "time",
    "exclude",
    "nodelist",
)
"""Keys that bear the name of sbatch's option, in the order of the script."""


def processes_per_node(settings: Mapping[str, Any]) -> int:
    """One process for each GPU of a node; without GPUs one."""
    return max(1, num_gpus(settings))


def num_gpus(settings: Mapping[str, Any]) -> int:
    """GPUs of a node: of all types together, and of those in `gres`."""
    if (asked := settings["gpus_per_node"]) is not None:
        return sum(_count(part) for part in str(asked).split(","))
    parts = (settings["gres"] or "").split(",")
    return sum(_count(part) for part in parts if part.split(":")[0] in ("gpu", "gres/gpu"))


def _count(part: str) -> int:
    """The number at the end of `TYPE:NUMBER` or `NUMBER`; one where there is none."""
    number = re.search(r"(?:^|:)(\d+)$", part)
    return int(number[1]) if number else 1


def world_size(settings: Mapping[str, Any]) -> int:
    """How many processes train the run together."""
    return int(settings["nodes"]) * processes_per_node(settings)


def options(settings: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """sbatch's long options with their values; None for one that takes none."""
    for name in KEYS:
        if settings[name] is not None:
            yield name.replace("_", "-"), str(settings[name])
    yield "ntasks-per-node", str(processes_per_node(settings))
    yield ("requeue" if settings["requeue"] else "no-requeue"), None
    yield "signal", f"B:USR1@{settings['grace']}"
    if settings["mail"] is not None:
        yield "mail-user", settings["mail"]
        yield "mail-type", "END,FAIL,REQUEUE,TIME_LIMIT"
    for name, value in settings["extra"].items():
        option = str(name).replace("_", "-").lstrip("-")
        if value is True:
            yield option, None
        elif value is not False:
            yield option, str(value)
