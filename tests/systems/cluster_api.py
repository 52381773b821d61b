"""A real Cluster API core beside a real control plane, with all its webhooks.

The cluster whose machines it keeps is the one that it runs on, found by a kubeconfig as any other would be.
Machines become nodes by an infrastructure provider of the tests' own: upstream's contract is in its
docs/book/src/developer/providers/contracts/infra-machine.md.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.sandbox.fleet.nodes import MARK
from tests.e2e.experiments import EVERYWHERE
from tests.support.children import Child
from tests.support.monitoring import free_port
from tests.support.polling import eventually
from tests.systems.build import CLUSTER_API
from tests.systems.install import install
from tests.systems.webhooks import Webhooks

UPSTREAM = "sigs.k8s.io/cluster-api"
API = "cluster.x-k8s.io/v1beta2"
GROUP = "infrastructure.cluster.x-k8s.io"
SPACE = "platform"
CLUSTER = Ref(API, "Cluster", "tested", SPACE)
MACHINE_SET = Ref(API, "MachineSet", "elastic", SPACE)
MEMBERS = {"node.cluster.x-k8s.io/pool": "elastic"}  # labels of this domain go from a machine to its node
MODEL = Ref("v1", "Node", "cpu-0")  # what a machine's node is like


@dataclass
class RealClusterAPI:
    """The core's controllers, which a test may stop and start."""

    directory: Path
    kubeconfig: Path
    _child: Child | None = None
    _health: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True)
        self._program = CLUSTER_API.build() / "core"
        self._webhooks = Webhooks(self.directory)

    def start(self) -> None:
        """Start them, and wait until their webhooks answer."""
        flags = [
            f"--kubeconfig={self.kubeconfig}",
            f"--health-addr=127.0.0.1:{self._health}",
            f"--diagnostics-address=127.0.0.1:{free_port()}",
            "--insecure-diagnostics",
            f"--webhook-port={self._webhooks.port}",
            f"--webhook-cert-dir={self.directory}",
            "--skip-crd-migration-phases=StorageVersionMigration,CleanupManagedFields",
        ]
        own = {"POD_NAMESPACE": SPACE, "POD_NAME": "core", "POD_UID": "none"}
        child = Child("core", [self._program, *flags], self.directory / "core.log", environment=own)
        self._child = child
        child.until_well(f"http://127.0.0.1:{self._health}/readyz", within=90)

    def stop(self) -> None:
        """As kill -9 does."""
        assert self._child is not None
        self._child.kill()

    def kinds(self) -> Iterator[Object]:
        """Their CustomResourceDefinitions, which say of which contract they are, and who converts them."""
        for file in sorted(CLUSTER_API.file(UPSTREAM, "core/config/crd/bases").glob("*.yaml")):
            crd = yaml.safe_load(file.read_text())
            versions = {v["name"] for v in crd["spec"]["versions"]} & {"v1beta1", "v1beta2"}
            crd["metadata"]["labels"] = {f"cluster.x-k8s.io/{v}": v for v in versions}
            if len(crd["spec"]["versions"]) > 1:
                how = {"clientConfig": self._webhooks.at("convert"), "conversionReviewVersions": ["v1"]}
                crd["spec"]["conversion"] = {"strategy": "Webhook", "webhook": how}
            yield crd

    def configurations(self) -> Iterator[Object]:
        """Its webhook configurations, with addresses in the place of Services."""
        file = CLUSTER_API.file(UPSTREAM, "core/config/webhook/manifests.yaml")
        for configuration in yaml.safe_load_all(file.read_text()):
            configuration["metadata"]["name"] = f"cluster-api-{configuration['metadata']['name']}"
            for webhook in configuration["webhooks"]:
                webhook["clientConfig"] = self._webhooks.at(webhook["clientConfig"]["service"]["path"])
            yield configuration


def infrastructure_kinds() -> Iterator[Object]:
    """The provider's cluster, machines and their templates."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    for kind in ("TestCluster", "TestMachine", "TestMachineTemplate"):
        yield {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": f"{kind.lower()}s.{GROUP}",
                "labels": {
                    "cluster.x-k8s.io/v1beta2": "v1beta1"
                },  # a contract, and the version that keeps it
            },
            "spec": {
                "group": GROUP,
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": f"{kind.lower()}s", "singular": kind.lower()},
                "versions": [
                    {
                        "name": "v1beta1",
                        "served": True,
                        "storage": True,
                        "subresources": {"status": {}} if kind == "TestMachine" else {},
                        "schema": {
                            "openAPIV3Schema": {
                                "type": "object",
                                "properties": {"spec": anything, "status": anything},
                            }
                        },
                    }
                ],
            },
        }


async def provide(kube: Kube) -> None:
    """The infrastructure provider: each of its machines gets a node, until this is cancelled.

    The core drains a machine's node and deletes it.
    """
    while True:
        # The kind is not served yet, a machine goes meanwhile, or the API server is away.
        with contextlib.suppress(PlatformError):
            machines = await kube.resource(f"{GROUP}/v1beta1", "TestMachine")
            for machine in await kube.list(machines, SPACE):
                if not machine.get("status") and "deletionTimestamp" not in machine["metadata"]:
                    await _provision(kube, machine)
        await asyncio.sleep(0.2)


async def _provision(kube: Kube, machine: Object) -> None:
    name, model = machine["metadata"]["name"], await kube.get(MODEL)
    named = f"tests://{name}"
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {MARK: "true", "kubernetes.io/hostname": name}},
        "spec": {"providerID": named},
        "status": {
            key: value for key, value in model["status"].items() if key not in ("conditions", "images")
        },
    }
    if await kube.find(Ref.of(node)) is None:
        await kube.create(node)
    await kube.patch(Ref.of(machine), {"spec": {"providerID": named}}, "merge")
    provisioned = {"status": {"initialization": {"provisioned": True}}}
    await kube.patch(Ref.of(machine), provisioned, "merge", subresource="status")


def workload(kubeconfig: Path) -> Iterator[Object]:
    """The cluster, its control plane's one machine, and a pool of another.

    Without a machine of the control plane the core neither drains nor deletes any node.
    """
    labels = {"cluster.x-k8s.io/cluster-name": CLUSTER.name}
    secret = base64.b64encode(kubeconfig.read_bytes()).decode()
    yield {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{CLUSTER.name}-kubeconfig", "namespace": SPACE, "labels": labels},
        "type": "cluster.x-k8s.io/secret",
        "data": {"value": secret},
    }
    endpoint = {"host": "127.0.0.1", "port": 6443}  # nobody asks it
    infrastructure = f"{GROUP}/v1beta1"
    provisioned = {"status": {"initialization": {"provisioned": True}}}
    yield _object("TestCluster", CLUSTER.name, {}, infrastructure) | provisioned
    reference = {"apiGroup": GROUP, "kind": "TestCluster", "name": CLUSTER.name}
    spec = {"controlPlaneEndpoint": endpoint, "infrastructureRef": reference}
    yield _object(CLUSTER.kind, CLUSTER.name, spec)
    yield _object("TestMachine", "control-0", {}, infrastructure)
    yield _object("TestMachineTemplate", "elastic", {"template": {"spec": {}}}, infrastructure)
    control = _object("Machine", "control-0", _machine("TestMachine", "control-0"))
    control["metadata"]["labels"] = {**labels, "cluster.x-k8s.io/control-plane": ""}
    yield control
    template = {"metadata": {"labels": MEMBERS}, "spec": _machine("TestMachineTemplate", "elastic")}
    yield _object(
        MACHINE_SET.kind,
        MACHINE_SET.name,
        {
            "clusterName": CLUSTER.name,
            "replicas": 1,
            "selector": {"matchLabels": MEMBERS},
            "template": template,
        },
    )


def _object(kind: str, name: str, spec: Object, version: str = API) -> Object:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": SPACE},
        "spec": spec,
    }


def _machine(kind: str, name: str) -> Object:
    return {
        "clusterName": CLUSTER.name,
        "version": "v1.36.3",
        "bootstrap": {"dataSecretName": "none"},  # whoever reads it: this provider does not
        "infrastructureRef": {"apiGroup": GROUP, "kind": kind, "name": name},
    }


def _spaces() -> Iterator[Object]:
    """Those that experiments of other tests name; there are no pods in them."""
    for name in EVERYWHERE:
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


async def _settled(kube: Kube) -> bool:
    found = await kube.get(MACHINE_SET)
    return bool((found.get("status") or {}).get("availableReplicas"))


@asynccontextmanager
async def running(directory: Path, kubeconfig: Path, kube: Kube) -> AsyncIterator[RealClusterAPI]:
    """Cluster API's core with a pool of one machine, running until the block ends."""
    core = RealClusterAPI(directory, kubeconfig)
    await install(kube, [*core.kinds(), *infrastructure_kinds(), *_spaces()])
    provider = asyncio.create_task(provide(kube))
    try:
        core.start()
        await install(kube, [*core.configurations(), *workload(kubeconfig)])
        await eventually(lambda: _settled(kube), within=60)
        yield core
    finally:
        provider.cancel()
        core.stop()
