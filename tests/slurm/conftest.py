"""A real Slurm of each version, shared by the tests; each test gets it idle, and must leave it so."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import slurm as real
from tests.support.polling import until
from tests.support.slurm import NODES, VERSIONS, RealSlurm


@pytest.fixture(scope="session", params=VERSIONS)
def cluster(request: pytest.FixtureRequest) -> Iterator[RealSlurm]:
    """The cluster of one version. pytest's own folders are closed to slurmrestd, which runs as nobody."""
    temporary = tempfile.TemporaryDirectory(prefix="slurm-")
    with temporary as folder, real.slurm(request.param, Path(folder)) as running:
        yield running


@pytest.fixture
def slurm(cluster: RealSlurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[RealSlurm]:
    """The cluster, idle; after the test every node and the partition must be as before."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    _idle(cluster)
    before = _state(cluster)
    yield cluster
    _idle(cluster)
    assert _state(cluster) == before


def _state(cluster: RealSlurm) -> dict[str, str]:
    partition = cluster("scontrol", "-o", "show", "partition", "gpu")
    # A newer Slurm keeps showing the reason of a node that is in service again.
    nodes = {name: cluster.node(name).split(" ")[0] for name in NODES}
    return nodes | {"partition": partition.split(" State=")[1].split()[0]}


def _idle(cluster: RealSlurm) -> None:
    cluster("scancel", "--user=root")
    until(lambda: not cluster("squeue", "-h", "-o", "%i").split(), "no job is left", within=60)
