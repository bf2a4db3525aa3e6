"""Which programs the cluster needs, where they are, and what installs those that are not there."""

from __future__ import annotations

import os
import shutil

_PROGRAMS = {
    "slurm-wlm": (
        "slurmctld",
        "slurmd",
        "sbatch",
        "srun",
        "squeue",
        "scancel",
        "scontrol",
        "sinfo",
    ),
    "munge": ("munged",),
}
# Daemons live in sbin, which a user's PATH often lacks.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def find(program: str) -> str | None:
    """Return the absolute path of a program on PATH or in an sbin folder, or None."""
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN))
    return shutil.which(program, path=places)


def missing() -> str | None:
    """Return the line that installs what this machine lacks, or None when it lacks nothing."""
    lacking = [
        package for package, programs in _PROGRAMS.items() if not all(find(p) for p in programs)
    ]
    return f"apt-get install -y {' '.join(lacking)}" if lacking else None
