"""What a test does where no Slurm can be started: it skips, and says what installs one."""

from __future__ import annotations

import pytest

from tests.slurm_cluster import missing

_LINE = missing()

needs_slurm = pytest.mark.skipif(_LINE is not None, reason=f"needs a Slurm to start: {_LINE}")


def skip_without_slurm() -> None:
    """For fixtures, which no mark can skip."""
    if _LINE:
        pytest.skip(f"needs a Slurm to start: {_LINE}")
