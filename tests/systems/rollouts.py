"""A real Argo Rollouts controller beside a real control plane."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from gameday.platform.kube import Kube
from tests.support.children import Child
from tests.support.monitoring import free_port
from tests.systems.build import ARGO
from tests.systems.install import install

UPSTREAM = "github.com/argoproj/argo-rollouts"
KINDS = ("analysis-run", "analysis-template", "cluster-analysis-template", "experiment", "rollout")


@dataclass
class RealRollouts:
    """The controller's process, which a test may stop and start."""

    directory: Path
    kubeconfig: Path
    _child: Child | None = None

    def start(self) -> None:
        """Start it, and wait until it says that it is well."""
        health = free_port()
        flags = [f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", f"--metricsPort={free_port()}"]
        command = [str(ARGO.build() / "rollouts-controller"), *flags, f"--healthzPort={health}"]
        child = Child("rollouts-controller", command, self.directory / "rollouts-controller.log")
        self._child = child
        child.until_well(f"http://127.0.0.1:{health}/healthz", within=60)

    def stop(self) -> None:
        """As kill -9 does."""
        assert self._child is not None
        self._child.kill()


@asynccontextmanager
async def running(directory: Path, kubeconfig: Path, kube: Kube) -> AsyncIterator[RealRollouts]:
    """Argo Rollouts, installed and running until the block ends."""
    files = [ARGO.file(UPSTREAM, f"manifests/crds/{kind}-crd.yaml") for kind in KINDS]
    await install(kube, [yaml.safe_load(file.read_text()) for file in files])
    rollouts = RealRollouts(directory, kubeconfig)
    rollouts.start()
    try:
        yield rollouts
    finally:
        rollouts.stop()
