"""A real Argo CD beside a real control plane: its Redis, repo server and controllers as child processes.

Flags and environment are those of upstream's Procfile for development, without TLS between its parts.
"""

from __future__ import annotations

import base64
import os
import secrets
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from gameday.platform.kube import Kube
from gameday.platform.objects import Object
from tests.support.children import Child
from tests.support.monitoring import free_port
from tests.support.polling import until
from tests.systems.build import ARGO
from tests.systems.install import install

UPSTREAM = "github.com/argoproj/argo-cd/v3"
NAMESPACE = "argocd"
RESYNC = 5  # seconds between comparisons that nothing else asks for
REDIS, REPO = "redis-server", "argocd-repo-server"
CONTROLLER, SETS = "argocd-application-controller", "argocd-applicationset-controller"


@dataclass
class RealArgoCD:
    """Its processes, each of which a test may stop and start."""

    directory: Path
    kubeconfig: Path
    _children: dict[str, Child] = field(default_factory=dict)
    _ports: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True)
        self.programs = ARGO.build()
        names = (REDIS, REPO, CONTROLLER, SETS, "repo-metrics", "sets-metrics", "sets-webhook")
        self._ports = {name: free_port() for name in names}
        # The repo server finds its wrapper of git on PATH.
        for script in ("git-verify-wrapper.sh", "git-ask-pass.sh"):
            copied = shutil.copy(ARGO.file(UPSTREAM, f"hack/{script}"), self.directory)
            Path(copied).chmod(0o755)

    def start(self, name: str) -> None:
        """Start one of its programs, and wait until it answers."""
        program = shutil.which(REDIS) if name == REDIS else self.programs / name
        assert program, "redis-server is not installed: make systems"
        log = self.directory / f"{name}.log"
        command = [program, *self._flags(name)]
        child = Child(name, command, log, cwd=self.directory, environment=self._environment)
        self._children[name] = child
        if name == CONTROLLER:  # well only once it has its settings and caches
            child.until_well(f"http://127.0.0.1:{self._ports[name]}/healthz", within=60)
        else:
            until(lambda: self._answers(child), f"{name} answers", within=60)

    def stop(self, name: str) -> None:
        """As kill -9 does."""
        self._children[name].kill()

    def stop_all(self) -> None:
        for child in reversed(self._children.values()):
            child.kill()

    def _answers(self, child: Child) -> bool:
        child.check()
        try:
            with socket.create_connection(("127.0.0.1", self._ports[child.name]), timeout=2):
                return True
        except OSError:
            return False

    def _flags(self, name: str) -> list[str]:
        def at(other: str) -> str:
            return f"127.0.0.1:{self._ports[other]}"

        port = str(self._ports[name])
        own: dict[str, Callable[[], list[str]]] = {
            REDIS: lambda: ["--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no"],
            REPO: lambda: [
                *("--address", "127.0.0.1", "--port", port, "--redis", at(REDIS)),
                *("--metrics-address", "127.0.0.1", "--metrics-port", str(self._ports["repo-metrics"])),
                *("--disable-tls", "--client-ca-path", "", "--revision-cache-expiration", "1s"),
            ],
            CONTROLLER: lambda: [
                *("--namespace", NAMESPACE, "--metrics-port", port, "--redis", at(REDIS)),
                *("--repo-server", at(REPO), "--repo-server-plaintext"),
                *("--app-resync", str(RESYNC), "--app-resync-jitter", "0"),
            ],
            SETS: lambda: [
                *("--namespace", NAMESPACE, "--probe-addr", at(SETS), "--metrics-addr", at("sets-metrics")),
                *("--webhook-addr", at("sets-webhook"), "--enable-leader-election=false"),
                *("--argocd-repo-server", at(REPO), "--repo-server-plaintext"),
            ],
        }
        return own[name]()

    @property
    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.directory}:{os.environ['PATH']}",
            "KUBECONFIG": str(self.kubeconfig),
            "HOME": str(self.directory),
            "ARGOCD_FAKE_IN_CLUSTER": "true",
            "ARGOCD_GPG_ENABLED": "false",
            **{f"ARGOCD_{n}": str(self.directory) for n in ("GNUPGHOME", "TLS_DATA_PATH", "SSH_DATA_PATH")},
        }


def objects() -> list[Object]:
    """Kinds, configuration, and the project that every Application is of."""
    files = [f"manifests/crds/{kind}-crd.yaml" for kind in ("application", "applicationset", "appproject")]
    names = ("cm", "cmd-params-cm", "gpg-keys-cm", "rbac-cm", "secret", "ssh-known-hosts-cm", "tls-certs-cm")
    files += [f"manifests/base/config/argocd-{name}.yaml" for name in names]
    found = [yaml.safe_load(ARGO.file(UPSTREAM, file).read_text()) for file in files]
    for each in found:
        if each["kind"] in ("ConfigMap", "Secret"):
            each["metadata"]["namespace"] = NAMESPACE
        if each["kind"] == "Secret":
            each["data"] = {"server.secretkey": base64.b64encode(secrets.token_bytes(32)).decode()}
    project = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AppProject",
        "metadata": {"name": "default", "namespace": NAMESPACE},
        "spec": {
            "sourceRepos": ["*"],
            "destinations": [{"namespace": "*", "server": "*"}],
            "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
        },
    }
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    return [space, *found, project]


@asynccontextmanager
async def running(directory: Path, kubeconfig: Path, kube: Kube) -> AsyncIterator[RealArgoCD]:
    """Argo CD, installed and running until the block ends."""
    argocd = RealArgoCD(directory, kubeconfig)

    await install(kube, objects())
    try:
        for name in (REDIS, REPO, CONTROLLER, SETS):
            argocd.start(name)
        yield argocd
    finally:
        argocd.stop_all()
