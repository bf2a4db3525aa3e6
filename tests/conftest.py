"""What tests of several rooms share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# What screens look like must not depend on who runs the tests, nor from where.
os.environ["COLUMNS"] = "118"
# Two workers of pytest on two cores, with two threads each, wait for each other: six times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def numerics() -> Iterator[None]:
    """A job pins the whole process; the tests of other modules get it back as it was."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_deterministic_debug_mode("default")
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
