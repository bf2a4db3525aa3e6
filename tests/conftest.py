"""What tests of several rooms share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# What screens look like must not depend on who runs the tests, nor from where.
os.environ["COLUMNS"] = "118"
# Two workers of pytest on two cores, with two threads each, wait for each other: six times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Files that take longest, the longest first: one that begins last keeps a single worker busy while
# the others have nothing left to do.
LONG_FILES = (
    "slurm/test_submit.py",
    "train/test_engines.py",
    "slurm/test_several_nodes.py",
    "slurm/test_array.py",
    "faults/test_kills.py",
    "train/test_resume.py",
    "submit/test_local.py",
    "faults/test_disk.py",
    "test_tooling.py",
    "slurm/test_status.py",
    "train/test_accuracy.py",
    "cli/test_cli_train.py",
    "submit/test_local_sweep.py",
    "test_benchmarks.py",
    "recipe/test_mutations.py",
    "hostile/test_links.py",
    "faults/test_writers.py",
    "slurm/test_staged_submit.py",
    "recipe/test_recipe_fuzz.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Several workers take the files in the order below, not those with most tests first."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


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
