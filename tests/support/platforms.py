"""Starts a platform for tests: the sandbox, or a real control plane, with a fleet or with one real node."""

from __future__ import annotations

import json
import select
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.controlplane import build
from tests.support.children import Child, ChildFailed
from tests.support.kubeconfigs import kubectl
from tests.support.node import RealNode
from tests.support.polling import until

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN = 120.0
NAMES = ("sandbox", "cluster", "node")  # the last one is for tests/real_node; "systems" for tests/systems


@dataclass
class Platform:
    """What tests may know of the cluster they run on."""

    name: str
    context: str
    directory: Path
    kubeconfig: Path
    prometheus_url: str
    api_url: str
    control_url: str = ""  # the fleet's switches
    gpud_url: str = ""  # of each node's GPUd, with {node} for its name
    slurm_url: str = ""  # the fleet's slurmrestd
    slurm_token: str = ""
    restricted_kubeconfig: Path | None = None
    unauthorized_kubeconfig: Path | None = None
    _node: RealNode | None = None
    _control_plane: Child | None = None

    @property
    def kubectl(self) -> str:
        """kubectl's path; the test is skipped on a machine without one."""
        return kubectl()

    @property
    def node(self) -> RealNode:
        """The real node; only the platform `node` has one."""
        if self._node is None:
            pytest.skip("about a real node: make test-node")
        return self._node

    def stop_api(self) -> None:
        """The API server is gone (on the cluster as by kill -9); its objects are kept."""
        if self._control_plane is not None:
            self._control_plane.signal(signal.SIGUSR1)
        else:
            self.control("api/stop")
        until(lambda: _answer(self.api_url) is None, "the API server is gone")

    def start_api(self) -> None:
        """Start it again, at the same address, and wait until it is ready."""
        if self._control_plane is not None:
            self._control_plane.signal(signal.SIGUSR2)
        else:
            self.control("api/start")
        until(lambda: _answer(f"{self.api_url}/readyz") == 200, "the API is ready", within=READY_WITHIN)

    def stop_prometheus(self) -> None:
        self.control("prometheus/stop")

    def start_prometheus(self) -> None:
        self.control("prometheus/start")

    def control(self, what: str) -> None:
        """Throw a switch of the fleet: nodes/gpu-0/stop, pods/NAMESPACE/POD/restart (see sandbox/web.py)."""
        request = urllib.request.Request(f"{self.control_url}/{what}", method="POST")
        with urllib.request.urlopen(request, timeout=30):
            pass


@contextmanager
def platform(name: str, directory: Path) -> Iterator[Platform]:
    """The platform of that name with its fleet and Prometheus, all gone when the block ends."""
    start = {"sandbox": _sandbox, "cluster": _cluster, "node": _with_node, "systems": _for_systems}[name]
    with start(directory) as running:
        yield running


@contextmanager
def _sandbox(directory: Path) -> Iterator[Platform]:
    command = ("gameday.sandbox", "--directory", directory / "sandbox")
    with _module(*command, log=directory / "sandbox.log") as (_, told):
        yield _platform("sandbox", directory, told)


@contextmanager
def _cluster(directory: Path, *fleet_options: str, name: str = "cluster") -> Iterator[Platform]:
    # Built here and not by the child, whose output goes to a log: the first build takes a quarter of an hour.
    build.build()
    launcher = ("tests.controlplane.launch", "--directory", directory / "controlplane")
    with _module(*launcher, log=directory / "controlplane.log") as (control_plane, plane):
        fleet = ("gameday.sandbox", "--kubeconfig", plane["kubeconfig"], "--directory", directory / "fleet")
        with _module(*fleet, *fleet_options, log=directory / "fleet.log") as (_, told):
            running = _platform(name, directory, told)
            running.restricted_kubeconfig = Path(plane["restrictedKubeconfig"])
            running.unauthorized_kubeconfig = Path(plane["unauthorizedKubeconfig"])
            running._control_plane = control_plane
            yield running


def _for_systems(directory: Path) -> AbstractContextManager[Platform]:
    """Simulated kubelets and nothing else of the fleet: the controllers are other people's real ones."""
    real = ("--no-workloads", "--no-prometheus", "--without", "argocd", "rollouts", "chaos-mesh")
    return _cluster(directory, *real, "--nodes", "4", name="systems")


@contextmanager
def _with_node(directory: Path) -> Iterator[Platform]:
    """Without a fleet and without Prometheus: the node is all there is."""
    build.build()
    launcher = ("tests.controlplane.node", "--directory", directory / "controlplane")
    with _module(*launcher, log=directory / "controlplane.log") as (control_plane, plane):
        yield Platform(
            name="node",
            context=plane["context"],
            directory=directory,
            kubeconfig=Path(plane["kubeconfig"]),
            prometheus_url="",
            api_url=plane["url"],
            _node=RealNode(**plane["node"]),
            _control_plane=control_plane,
        )


def _platform(name: str, directory: Path, told: dict[str, Any]) -> Platform:
    return Platform(
        name=name,
        context=told["context"],
        directory=directory,
        kubeconfig=Path(told["kubeconfig"]),
        prometheus_url=told["prometheus"],
        control_url=told["control"],
        gpud_url=told["gpud"],
        slurm_url=told["slurm"],
        slurm_token=told["slurmToken"],
        api_url=told["api"],
    )


@contextmanager
def _module(module: str, *arguments: Any, log: Path) -> Iterator[tuple[Child, dict[str, Any]]]:
    """`python -m module` as a child, and the JSON line that it prints when it is ready."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    child = Child(module, command, log, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        yield child, _first_line(child)
    finally:
        child.terminate()


def _first_line(child: Child) -> dict[str, Any]:
    output = child.process.stdout
    assert output is not None
    ready, _, _ = select.select([output], [], [], READY_WITHIN)
    line = output.readline() if ready else b""
    if not line:
        child.terminate()
        raise ChildFailed(f"{child.name} did not get ready; {child.last_lines()}")
    told: dict[str, Any] = json.loads(line)
    return told


def _answer(url: str) -> int | None:
    """The HTTP status of whoever answers; None when nobody does. Certificates do not matter here."""
    try:
        with urllib.request.urlopen(url, timeout=5, context=ssl._create_unverified_context()) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None
