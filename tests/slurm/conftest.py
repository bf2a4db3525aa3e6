"""The Slurm cluster the tests share: a real one, started once, made as new between tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm.needs import skip_without_slurm
from tests.slurm_cluster import Cluster


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """A running cluster of two nodes. Tests ask for `cluster`; wider fixtures may ask for this."""
    skip_without_slurm()
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Iterator[Cluster]:
    """The shared cluster, without a job and with every node idle once the test is over."""
    yield shared_cluster
    shared_cluster.reset()


@pytest.fixture
def slurm_env(cluster: Cluster) -> dict[str, str]:
    """A subprocess' environment with this cluster's SLURM_CONF and no other Slurm variable."""
    return cluster.environment()
