"""A real Kueue and a real JobSet beside a real control plane, with all their webhooks.

Configuration as in upstream's charts, but for addresses and certificates: both run outside the cluster.
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_true
from tests.support.children import Child
from tests.support.go_module import GoModule
from tests.support.monitoring import free_port
from tests.support.polling import eventually
from tests.systems.build import JOBSET, KUEUE
from tests.systems.install import install
from tests.systems.webhooks import Webhooks

CONVERTED = (
    "localqueues",
    "clusterqueues",
    "cohorts",
    "workloads",
    "multikueueclusters",
)  # upstream's patches
# Upstream's manifests have webhooks for each kind of job that Kueue knows; these are there.
CHECKED = ("clusterqueue", "resourceflavor", "workload", "cohort", "job", "jobset", "pod")
# Kueue reads its metrics' certificate there, whatever its configuration says. /etc is another in its own
# mount namespace: this folder lies over the machine's.
OVER_ETC = 'mount -t overlay -o "lowerdir=$0:/etc" gameday /etc && exec "$@"'


@dataclass
class Controller(ABC):
    """One of the two, which a test may stop and start. `directory` holds its files and its log."""

    directory: Path
    kubeconfig: Path
    _child: Child | None = None
    _health: int = field(default_factory=free_port)

    module: GoModule = field(init=False)
    program: str = field(init=False)
    version: str = field(init=False)  # of its configuration's kind

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True)
        self._program = self.module.build() / self.program
        self._webhooks = Webhooks(self.directory)
        self._file = self.directory / "configuration.yaml"
        self._file.write_text(yaml.safe_dump(self.configuration()))

    def configuration(self) -> Object:
        return {
            "apiVersion": self.version,
            "kind": "Configuration",
            "health": {"healthProbeBindAddress": f"127.0.0.1:{self._health}"},
            "metrics": {"bindAddress": f"127.0.0.1:{free_port()}"},
            "webhook": {"port": self._webhooks.port, "certDir": str(self.directory)},
            "leaderElection": {"leaderElect": False},
            "internalCertManagement": {"enable": False},
            "clientConnection": {"qps": 500, "burst": 1000},
        }

    def command(self) -> list[str | Path]:
        return [self._program, f"--kubeconfig={self.kubeconfig}", f"--config={self._file}"]

    def start(self) -> None:
        """Start it, and wait until its webhooks answer."""
        child = Child(self.program, self.command(), self.directory / f"{self.program}.log")
        self._child = child
        child.until_well(f"http://127.0.0.1:{self._health}/readyz", within=90)

    def stop(self) -> None:
        """As kill -9 does."""
        assert self._child is not None
        self._child.kill()

    def kinds(self) -> Iterator[Object]:
        """Its CustomResourceDefinitions, with an address where upstream's name a Service."""
        bases = self.module.file(f"sigs.k8s.io/{self.program}", "config/components/crd/bases")
        for file in sorted(bases.glob("*.yaml")):
            crd = yaml.safe_load(file.read_text())
            if crd["spec"]["names"]["plural"] in CONVERTED:
                how = {"clientConfig": self._webhooks.at("convert"), "conversionReviewVersions": ["v1"]}
                crd["spec"]["conversion"] = {"strategy": "Webhook", "webhook": how}
            yield crd

    def configurations(self) -> Iterator[Object]:
        """Its webhook configurations, for the kinds that are there."""
        file = self.module.file(f"sigs.k8s.io/{self.program}", "config/components/webhook/manifests.yaml")
        for configuration in yaml.safe_load_all(file.read_text()):
            configuration["metadata"]["name"] = f"{self.program}-{configuration['metadata']['name']}"
            configuration["webhooks"] = [
                webhook | self.narrowed(webhook["name"])
                for webhook in configuration["webhooks"]
                if webhook["name"].removesuffix(".kb.io")[1:] in CHECKED
            ]
            for webhook in configuration["webhooks"]:
                webhook["clientConfig"] = self._webhooks.at(webhook["clientConfig"]["service"]["path"])
            yield configuration

    @abstractmethod
    def narrowed(self, webhook: str) -> Object:
        """The selectors that upstream's own patches give a webhook."""


class RealKueue(Controller):
    module, program, version = KUEUE, "kueue", "config.kueue.x-k8s.io/v1beta2"

    def __post_init__(self) -> None:
        super().__post_init__()
        over = self.directory / "etc" / "kueue" / "metrics" / "certs"
        over.mkdir(parents=True)
        for name in ("tls.crt", "tls.key"):
            shutil.copy(self.directory / name, over / name)

    def configuration(self) -> Object:
        frameworks = ["batch/job", "jobset.x-k8s.io/jobset", "pod"]
        own: dict[str, Any] = {"integrations": {"frameworks": frameworks}}
        return super().configuration() | own | {"featureGates": {"VisibilityOnDemand": False}}

    def command(self) -> list[str | Path]:
        overlay: list[str | Path] = ["unshare", "--mount", "sh", "-c", OVER_ETC, self.directory / "etc"]
        return [*overlay, *super().command()]

    def narrowed(self, webhook: str) -> Object:
        if not webhook.endswith("pod.kb.io"):
            return {}
        own = {
            "key": "kubernetes.io/metadata.name",
            "operator": "NotIn",
            "values": ["kube-system", "kueue-system"],
        }
        return {"namespaceSelector": {"matchExpressions": [own]}}


class RealJobSet(Controller):
    module, program, version = JOBSET, "jobset", "config.jobset.x-k8s.io/v1alpha1"

    def narrowed(self, webhook: str) -> Object:
        if not webhook.endswith("pod.kb.io"):
            return {}
        own = {"key": "jobset.sigs.k8s.io/jobset-name", "operator": "Exists"}
        return {"objectSelector": {"matchExpressions": [own]}}


@asynccontextmanager
async def running(controller: Controller, kube: Kube) -> AsyncIterator[None]:
    """One of them, installed and running until the block ends."""
    kinds = [*controller.kinds()]
    await install(kube, kinds)
    for kind in kinds:  # Kueue ends where one is not served yet
        await eventually(partial(kube.get, Ref.of(kind)), lambda o: is_true(o, "Established"))
    controller.start()
    try:
        await install(kube, controller.configurations())
        yield
    finally:
        controller.stop()
