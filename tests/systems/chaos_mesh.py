"""A real Chaos Mesh beside a real control plane: its controller manager as a child process, with webhooks.

Outside the cluster it is found by the address in the webhook configurations, which upstream's chart gives a
service's name. Environment as in upstream's chart (controller-manager-deployment.yaml).
"""

from __future__ import annotations

import base64
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gameday.platform.chaos_mesh import API_VERSION
from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.children import Child
from tests.support.monitoring import free_port
from tests.support.polling import eventually, until
from tests.systems.build import CHAOS_MESH

NAMESPACE = "chaos-mesh"
CONTROLLER = "chaos-controller-manager"
PAUSE_IMAGE = "example.com/pause:1"  # of pods under pod-failure; other than any victim's
CRDS = "apiextensions.k8s.io/v1"
# Upstream's chart has a webhook for each of these (values.yaml, webhook.CRDS).
CHECKED = (
    *("podchaos", "iochaos", "timechaos", "networkchaos", "stresschaos", "dnschaos", "httpchaos"),
    *("schedule", "workflow"),
)


@dataclass
class RealChaosMesh:
    """Its controller manager, which a test may stop, start and hold still."""

    directory: Path
    kubeconfig: Path
    pause_image: str = PAUSE_IMAGE
    port: int = field(default_factory=free_port)
    _child: Child | None = None

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True)
        self._program = CHAOS_MESH.build() / CONTROLLER
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "tls.key", "-out", "tls.crt"]
        subprocess.run(command, cwd=self.directory, check=True, capture_output=True)

    @property
    def certificate(self) -> bytes:
        return (self.directory / "tls.crt").read_bytes()

    def start(self) -> None:
        """Start it, and wait until its webhooks answer."""
        log = self.directory / f"{CONTROLLER}.log"
        child = Child(CONTROLLER, [self._program], log, environment=self._environment)
        self._child = child

        def answers() -> bool:
            child.check()
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=2):
                    return True
            except OSError:
                return False

        until(answers, f"{CONTROLLER} answers", within=90)

    def stop(self) -> None:
        """As kill -9 does. (One SIGTERM stops its controllers alone.)"""
        assert self._child is not None
        self._child.kill()

    def hold(self) -> None:
        """Let it stand still: what it has read grows old."""
        assert self._child is not None
        self._child.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._child is not None
        self._child.signal(signal.SIGCONT)

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "NAMESPACE": NAMESPACE,
            "CERTS_DIR": str(self.directory),
            "WEBHOOK_HOST": "127.0.0.1",
            "WEBHOOK_PORT": str(self.port),
            "METRICS_HOST": "127.0.0.1",
            "METRICS_PORT": str(free_port()),
            "ENABLE_LEADER_ELECTION": "false",
            "SECURITY_MODE": "false",
            "POD_FAILURE_PAUSE_IMAGE": self.pause_image,
            "QPS": "500",
            "BURST": "1000",
        }

    def webhooks(self) -> Iterator[Object]:
        """The configurations that have the API server ask it, at its own address."""
        for verb, kind in (("mutate", "Mutating"), ("validate", "Validating")):
            yield {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": f"{kind}WebhookConfiguration",
                "metadata": {"name": f"chaos-mesh-{verb}"},
                "webhooks": [self._webhook(verb, name) for name in CHECKED],
            }

    def _webhook(self, verb: str, name: str) -> Object:
        plural = name if name.endswith("chaos") else f"{name}s"
        path = f"{verb}-chaos-mesh-org-v1alpha1-{name}"
        rule = {"apiGroups": ["chaos-mesh.org"], "apiVersions": ["v1alpha1"], "resources": [plural]}
        return {
            "name": f"{verb[0]}{name}.kb.io",
            "clientConfig": {
                "url": f"https://127.0.0.1:{self.port}/{path}",
                "caBundle": base64.b64encode(self.certificate).decode(),
            },
            "rules": [rule | {"operations": ["CREATE", "UPDATE"]}],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "failurePolicy": "Fail",
            "timeoutSeconds": 5,
        }


async def install(mesh: RealChaosMesh, kube: Kube) -> None:
    """Its namespace and webhooks; its kinds are there already."""
    await create_once(kube, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for plural in ("networkchaos", "schedules", "workflows", "workflownodes"):
        ref = Ref(CRDS, "CustomResourceDefinition", f"{plural}.chaos-mesh.org")
        versions = (await kube.get(ref))["spec"]["versions"]
        for version in versions:
            _add_behaviour(version["schema"]["openAPIV3Schema"])
        await kube.patch(ref, {"spec": {"versions": versions}}, "merge")
    for configuration in mesh.webhooks():
        await create_once(kube, configuration)


def _add_behaviour(schema: Any) -> None:
    """A field that the module of the API sets by default, and the CRDs of a few days before lack."""
    if isinstance(schema, list):
        for each in schema:
            _add_behaviour(each)
    elif isinstance(schema, dict):
        properties = schema.get("properties")
        if isinstance(properties, dict) and {"direction", "externalTargets"} <= properties.keys():
            properties["partitionBehavior"] = {"type": "string"}
        for each in schema.values():
            _add_behaviour(each)


async def create_once(kube: Kube, obj: Object) -> None:
    """Create an object unless one of its name is there."""
    try:
        await kube.create(obj)
    except ApiError as error:
        if error.status != 409:
            raise


@asynccontextmanager
async def without_webhooks(mesh: RealChaosMesh, kube: Kube) -> AsyncIterator[None]:
    """The API server asks nobody, until the block ends; they need the controllers, which may be away."""
    for each in mesh.webhooks():
        await kube.delete(Ref.of(each))
    wrong = {
        "apiVersion": API_VERSION,
        "kind": "Workflow",
        "metadata": {"name": "wrong", "namespace": NAMESPACE},
    }

    async def is_taken() -> bool:
        try:
            await kube.dry_run({**wrong, "spec": {"entry": "nobody", "templates": []}})
        except ApiError:
            return False
        return True

    await eventually(is_taken)
    try:
        yield
    finally:
        for each in mesh.webhooks():
            await kube.create(each)
        await eventually(is_taken, lambda taken: not taken)


@asynccontextmanager
async def running(
    directory: Path, kubeconfig: Path, kube: Kube, **options: Any
) -> AsyncIterator[RealChaosMesh]:
    """Chaos Mesh's controllers, running until the block ends."""
    mesh = RealChaosMesh(directory, kubeconfig, **options)
    try:
        mesh.start()
        await install(mesh, kube)
        yield mesh
    finally:
        mesh.stop()
