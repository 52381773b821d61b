"""Starts the built control plane on free loopback ports, so that tests get a cluster of their own in seconds.

By hand: ``python -m tests.controlplane.launch --directory DIR`` prints one JSON line with the paths and stays
until it is interrupted. SIGUSR1 kills the API server (as `kill -9` would), SIGUSR2 starts it again with the
same port and data; SIGHUP does both to etcd.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.controlplane import build
from tests.controlplane.credentials import (
    CONTEXT,
    User,
    make_certificate,
    make_rsa_key,
    write_kubeconfig,
    write_tokens,
)
from tests.support.children import Child, ChildFailed
from tests.support.go_module import BuildError

LOOPBACK = "127.0.0.1"
READY_WITHIN = 120.0
# Client limits of the controllers: Kubernetes' defaults (20 and 50 a second) are made for shared clusters.
CLIENT_RATE = ("--kube-api-qps=2000", "--kube-api-burst=4000", "--leader-elect=false", "--secure-port=0")


# The heaps are small and the machine has memory: collecting less often saves a fifth of the processor time.
LEAN = {"GOGC": "400"}


# Device taints are beta and off by default in 1.36: the API's version and the gate must both be switched on.
DEVICE_TAINTS = "--feature-gates=DRADeviceTaintRules=true"


@dataclass(frozen=True)
class Where:
    """The network's part of a control plane that differs when a real node belongs to it."""

    address: str = LOOPBACK
    port: int = 0  # 0: any that is free
    services: str = "10.96.0.0/16"
    # Simulated kubelets share two busy cores with the tests: a late heartbeat is not a lost node.
    node_grace_seconds: int = 60


@dataclass
class ControlPlane:
    """etcd, API server, controller manager and scheduler; no kubelet: others simulate nodes, or are one."""

    directory: Path
    programs: Path
    where: Where = Where()
    nodes: list[User] = field(default_factory=list)
    admin: User = field(default_factory=lambda: User("admin", "system:masters"))
    _children: dict[str, Child] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.etcd_port, self.peer_port = _free_port(), _free_port()
        self.api_port = self.where.port or _free_port()

    @property
    def url(self) -> str:
        return f"https://{self.where.address}:{self.api_port}"

    @property
    def kubeconfig(self) -> Path:
        """May do everything (group system:masters)."""
        return self.directory / "kubeconfig"

    @property
    def restricted_kubeconfig(self) -> Path:
        """User `restricted`, known but without a single permission: 403."""
        return self.directory / "kubeconfig-restricted"

    @property
    def unauthorized_kubeconfig(self) -> Path:
        """A token the API server does not know: 401."""
        return self.directory / "kubeconfig-unauthorized"

    @property
    def kubectl(self) -> str:
        return str(self.programs / "kubectl")

    def describe(self) -> dict[str, Any]:
        """What another process needs to use this control plane."""
        return {
            "kubeconfig": str(self.kubeconfig),
            "restrictedKubeconfig": str(self.restricted_kubeconfig),
            "unauthorizedKubeconfig": str(self.unauthorized_kubeconfig),
            "url": self.url,
            "context": CONTEXT,
            "kubectl": self.kubectl,
            "directory": str(self.directory),
        }

    async def start(self) -> None:
        self._prepare()
        self._spawn("etcd", self._etcd_flags())
        await self.start_apiserver()
        self._write_kubeconfigs()
        self._spawn("kube-controller-manager", self._controller_manager_flags())
        self._spawn("kube-scheduler", self._scheduler_flags())
        # The controller manager makes it; without it no pod is admitted.
        await self.until(self._default_service_account_exists, "the service account `default` exists")

    def stop_apiserver(self) -> None:
        """Kill it as `kill -9` would; etcd keeps the objects."""
        self._children["kube-apiserver"].kill()

    def restart_etcd(self) -> None:
        """Kill it as `kill -9` would, and start it again with its data; others wait for it."""
        self._children["etcd"].kill()
        self._spawn("etcd", self._etcd_flags())

    async def start_apiserver(self) -> None:
        """Start it on its port and wait until it is ready."""
        self._spawn("kube-apiserver", self._apiserver_flags())
        await self.until(self._ready, "the API server answers /readyz")

    def stop(self) -> None:
        """Everything at once and without grace: the data is thrown away with it."""
        for child in self._children.values():
            child.kill()
        shutil.rmtree(self.directory / "etcd", ignore_errors=True)

    def check(self) -> None:
        """Raise when a program ended on its own."""
        for child in self._children.values():
            child.check()

    def cpu_seconds(self) -> float:
        """Processor time that the programs have used since they started, of all cores together."""
        ticks = 0
        for child in self._children.values():
            fields = Path(f"/proc/{child.process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
        return ticks / os.sysconf("SC_CLK_TCK")

    def _spawn(self, name: str, flags: list[str]) -> None:
        log = self.directory / f"{name}.log"
        self._children[name] = Child(name, [self.programs / name, *flags], log, environment=LEAN)

    def _prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)  # tokens and keys lie in it
        key = self.directory / "service-account.key"
        if not key.exists():
            make_rsa_key(key)
            authority, private = self.directory / "apiserver.crt", self.directory / "apiserver.key"
            make_certificate(authority, private, self.where.address)
        self._restricted = User("restricted", kubeconfig=self.restricted_kubeconfig.name)
        write_tokens(self.directory / "tokens.csv", [self.admin, self._restricted, *self.nodes])

    def _etcd_flags(self) -> list[str]:
        client = f"http://127.0.0.1:{self.etcd_port}"
        peer = f"http://127.0.0.1:{self.peer_port}"
        return [
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _apiserver_flags(self) -> list[str]:
        key = self.directory / "service-account.key"
        return [
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--secure-port={self.api_port}",
            f"--bind-address={self.where.address}",
            f"--advertise-address={self.where.address}",
            # A loopback address is no valid Endpoint, and nothing here asks for the service `kubernetes`.
            "--endpoint-reconciler-type=none",
            f"--cert-dir={self.directory}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--token-auth-file={self.directory / 'tokens.csv'}",
            "--authorization-mode=Node,RBAC",
            f"--service-cluster-ip-range={self.where.services}",
            "--allow-privileged=true",
            "--runtime-config=resource.k8s.io/v1beta2=true",
            DEVICE_TAINTS,
            # No name server here knows a node. Simulated ones alone have an InternalDNS, which is localhost.
            "--kubelet-preferred-address-types=InternalDNS,InternalIP,Hostname",
        ]

    def _controller_manager_flags(self) -> list[str]:
        return [
            f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={self.directory / 'service-account.key'}",
            f"--root-ca-file={self.directory / 'apiserver.crt'}",
            f"--node-monitor-grace-period={self.where.node_grace_seconds}s",
            DEVICE_TAINTS,
            *CLIENT_RATE,
        ]

    def _scheduler_flags(self) -> list[str]:
        return [f"--kubeconfig={self.kubeconfig}", DEVICE_TAINTS, *CLIENT_RATE]

    def _write_kubeconfigs(self) -> None:
        certificate = (self.directory / "apiserver.crt").read_bytes()
        unknown = User("nobody", kubeconfig=self.unauthorized_kubeconfig.name)
        for user in (self.admin, self._restricted, unknown, *self.nodes):
            write_kubeconfig(self.directory / user.kubeconfig, self.url, certificate, user)

    async def until(self, holds: Callable[[], object], what: str, within: float = READY_WITHIN) -> None:
        deadline = time.monotonic() + within
        while not await asyncio.to_thread(holds):
            self.check()
            if time.monotonic() > deadline:
                logs = "\n".join(child.last_lines() for child in self._children.values())
                raise ChildFailed(f"waited {within:.0f} s, but not yet: {what}\n{logs}")
            await asyncio.sleep(0.05)

    def _ready(self) -> bool:
        return self.get("/readyz") == b"ok"

    def _default_service_account_exists(self) -> bool:
        return self.get("/api/v1/namespaces/default/serviceaccounts/default") is not None

    def get(self, path: str) -> bytes | None:
        """The answer's body; None while the server is not there or says no."""
        request = urllib.request.Request(
            self.url + path, headers={"Authorization": f"Bearer {self.admin.token}"}
        )
        try:
            certificates = ssl.create_default_context(cafile=str(self.directory / "apiserver.crt"))
            with urllib.request.urlopen(request, timeout=5, context=certificates) as answer:
                body: bytes = answer.read()
                return body
        except (OSError, urllib.error.URLError):
            return None


@asynccontextmanager
async def control_plane(
    directory: Path, where: Where = Where(), nodes: Iterable[User] = ()
) -> AsyncIterator[ControlPlane]:
    """A control plane of its own, gone when the block ends; its logs stay in `directory`."""
    programs = await asyncio.to_thread(build.build)
    plane = ControlPlane(directory.resolve(), programs, where, list(nodes))
    try:
        await plane.start()
        yield plane
    finally:
        plane.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def apply_crds(kubectl: str, kubeconfig: Path) -> None:
    """Teach the API server Chaos Mesh's and Argo CD's own kinds."""
    folder = build.crds()
    # Server-side: client-side apply copies each manifest into an annotation, and these are too large for one.
    apply = ["apply", "--server-side", "-f", str(folder)]
    wait = ["wait", "--for=condition=Established", "crd", "--all"]
    for arguments in (apply, wait):
        command = [kubectl, f"--kubeconfig={kubeconfig}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ChildFailed(f"could not apply the CRDs in {folder}: {done.stderr.strip()}")


async def serve(plane: ControlPlane, **more: Any) -> None:
    """Tell what there is in one JSON line, then obey signals until one says to stop."""
    print(json.dumps(plane.describe() | more), flush=True)
    asked: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    switches = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
    for number in (signal.SIGINT, signal.SIGTERM, *switches):
        loop.add_signal_handler(number, asked.put_nowait, number)
    while (number := await asked.get()) in switches:
        if number == signal.SIGHUP:
            plane.restart_etcd()
        elif number == signal.SIGUSR1:
            plane.stop_apiserver()
        else:
            await plane.start_apiserver()


async def _serve(directory: Path, *, crds: bool) -> None:
    async with control_plane(directory) as plane:
        if crds:
            await asyncio.to_thread(apply_crds, plane.kubectl, plane.kubeconfig)
        await serve(plane)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a real Kubernetes control plane until interrupted.")
    parser.add_argument("--directory", type=Path, required=True, help="for kubeconfigs, logs and data")
    parser.add_argument("--no-crds", action="store_true", help="leave Chaos Mesh's and Argo CD's kinds out")
    options = parser.parse_args()
    try:
        asyncio.run(_serve(options.directory, crds=not options.no_crds))
    except (ChildFailed, BuildError) as error:
        print(f"controlplane: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
