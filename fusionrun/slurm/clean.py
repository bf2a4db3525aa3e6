"""The environment in which Slurm's commands are called. It reads nothing but what it is given.

Slurm's commands take options from the environment (`SBATCH_PARTITION`, `SQUEUE_FORMAT`), and
sbatch hands its whole environment to the job. A shell inside a job is full of that job's values,
which would size, place and name the new job's steps. So all of it goes, except for `SLURM_CONF`,
which says where the cluster is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["own_handle", "without_slurm"]

_PREFIXES: Final = (
    "SLURM",  # SLURM_*, and what a daemon leaves: SLURMD_NODENAME
    "SBATCH_",
    "SRUN_",
    "SALLOC_",
    "SQUEUE_",
    "SCANCEL_",
    "SCONTROL_",
    "SINFO_",
    "SACCT_",
    "PMI",  # PMI_*, PMI2_*, PMIX_*: a running step's own wiring
)
_KEPT: Final = frozenset({"SLURM_CONF"})


def without_slurm(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without what steers Slurm's commands or belongs to a job around us."""
    return {
        name: value
        for name, value in environment.items()
        if name in _KEPT or not name.startswith(_PREFIXES)
    }


def own_handle(environment: Mapping[str, str]) -> str:
    """What scontrol and scancel call the job around us: `12`, or `12_3` for a task of an array.

    A task has a number of its own too, but that of an array's last one is the whole array's.
    """
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return environment["SLURM_JOB_ID"]
    return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
