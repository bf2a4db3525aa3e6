"""What a partition can never start is told with the key that asks for it, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest

from fusionrun.schema.base import plain
from fusionrun.schema.slurm import Slurm
from fusionrun.slurm.limits import beyond
from fusionrun.slurm.records import Partition

SHORT = Partition(
    name="short",
    is_default=True,
    is_up=True,
    max_time_s=7200,
    default_time_s=None,
    num_nodes=4,
    min_nodes=2,
    max_nodes=3,
    max_cpus_per_node=8,
    max_memory_mb=16_000,
)
LONG = Partition("long", False, True, None, None, 2)


def keys(**asked: Any) -> list[str]:
    settings = plain(Slurm(**{"nodes": 2, **asked}))
    return [problem.key for problem in beyond(settings, [SHORT, LONG])]


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ({"time": "02:00:01"}, "slurm.time"),
        ({"time": "1-00"}, "slurm.time"),
        ({"nodes": 1}, "slurm.nodes"),
        ({"nodes": 4}, "slurm.nodes"),
        ({"nodes": 3, "partition": "long"}, "slurm.nodes"),
        ({"cpus_per_task": 5, "gpus_per_node": 2}, "slurm.cpus_per_task"),
        ({"gpus_per_node": 9}, "slurm.gpus_per_node"),
        ({"mem": "16G"}, "slurm.mem"),
        ({"mem_per_cpu": "4G", "cpus_per_task": 4}, "slurm.mem_per_cpu"),
    ],
)
def test_what_is_beyond_the_partitions_bounds(asked: dict[str, Any], key: str) -> None:
    assert keys(**asked) == [key]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"time": "02:00:00", "nodes": 3, "cpus_per_task": 8, "mem": "15G"},
        {"time": "03:00:00", "partition": "long"},
        {"time": "03:00:00", "partition": "short,long"},
        {"time": "03:00:00", "qos": "lifts-limits"},
        {"time": "03:00:00", "extra": {"time_min": "01:00:00"}},
        {"time": "03:00:00", "partition": "unknown-here"},
    ],
)
def test_what_may_start(asked: dict[str, Any]) -> None:
    assert keys(**asked) == []
