"""Chaos Mesh's daemon on the real node: a privileged pod, as in upstream's chart, in the node's root.

There is no image of it, so the pod starts the program that was built here. Upstream's image also holds two
helpers: `pause`, whose C source is in the module, and `nsexec`, for which a few lines stand in.
"""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gameday.platform.chaos_mesh import nodes_with_daemon
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.node import RealNode
from tests.support.polling import eventually
from tests.systems.build import CHAOS_DAEMON
from tests.systems.chaos_mesh import NAMESPACE, create_once

UPSTREAM = "github.com/chaos-mesh/chaos-mesh"
NAME = "chaos-daemon"
LABELS = {"app.kubernetes.io/component": NAME}
PORT = 31767
# Options as upstream's: a letter and a path for each namespace. What is started dies with who started it.
NSEXEC = """#!/bin/sh
set -e
entered=""
while [ "$1" != -- ]; do
  case "$1" in
    -n) entered="$entered --net=$2"; shift 2 ;;
    -p) entered="$entered --pid=$2"; shift 2 ;;
    -m) entered="$entered --mount=$2"; shift 2 ;;
    -i) entered="$entered --ipc=$2"; shift 2 ;;
    *) shift ;;
  esac
done
shift
exec nsenter $entered -- setpriv --pdeathsig TERM -- "$@"
"""


def prepare(node: RealNode) -> Path:
    """Put the helpers on the node; the daemon's own path there."""
    program = CHAOS_DAEMON.build() / NAME
    source = CHAOS_DAEMON.file(UPSTREAM, "hack/pause.c")
    pause = Path(node.directory) / "pause"
    subprocess.run(["gcc", "-w", "-o", pause, source], check=True, capture_output=True)
    script = Path(node.directory) / "nsexec"
    script.write_text(NSEXEC)
    for helper in (pause, script):
        helper.chmod(0o755)
        node.run("install", "-D", str(helper), f"/usr/local/bin/{helper.name}")
    node.run("ln", "-sfn", "/sys", "/host-sys")  # where the chart mounts it
    return program


def pod(node: RealNode, program: Path) -> Object:
    enter = ["nsenter", "-t", "1", "-m", "-u", "-i", "--"]
    flags = ["--runtime", "containerd", "--runtime-socket-path", "/run/containerd/containerd.sock"]
    container = {
        "name": NAME,
        "image": node.image,
        "imagePullPolicy": "Never",
        "command": ["/bin/busybox", *enter, str(program), *flags, "--grpc-port", str(PORT)],
        "securityContext": {"privileged": True},
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
    }
    spec = {
        "nodeName": node.name,
        "hostPID": True,
        "hostNetwork": True,
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }
    meta = {"name": NAME, "namespace": NAMESPACE, "labels": LABELS}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def service() -> Object:
    """Its controllers find a daemon by the EndpointSlices of this name."""
    port = {"name": "grpc", "port": PORT, "targetPort": PORT}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": LABELS},
        "spec": {"clusterIP": "None", "selector": LABELS, "ports": [port]},
    }


async def start(kube: Kube, node: RealNode, program: Path) -> Ref:
    """The daemon's pod, once it answers."""
    ref = Ref.of(await kube.create(pod(node, program)))
    await eventually(lambda: nodes_with_daemon(kube), lambda nodes: node.name in nodes, within=60)
    slices = await kube.resource("discovery.k8s.io/v1", "EndpointSlice")

    async def addresses() -> list[str]:
        found = await kube.list(slices, NAMESPACE, labels=f"kubernetes.io/service-name={NAME}")
        return [a for s in found for e in s.get("endpoints") or () for a in e.get("addresses") or ()]

    await eventually(addresses, lambda found: node.address in found)
    return ref


async def stop(kube: Kube, ref: Ref) -> None:
    await kube.delete(ref, grace=0)
    await eventually(lambda: kube.find(ref), lambda found: found is None)


@asynccontextmanager
async def running(kube: Kube, node: RealNode) -> AsyncIterator[Path]:
    """The daemon on the node until the block ends; its path, to start it again."""
    program = prepare(node)
    await create_once(kube, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    await eventually(lambda: kube.find(Ref("v1", "ServiceAccount", "default", NAMESPACE)))
    await create_once(kube, service())
    await start(kube, node, program)
    yield program
