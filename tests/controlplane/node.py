"""One real node, because a fault on a node is proved on a node: kubelet, containerd, runc and CNI plugins.

The node is a machine in the machine: namespaces of its own (see `inside.py`), joined to this one by a veth
pair. A fault may take down its links, stop its kubelet or fill its disk, and cannot hurt the machine; and
when the launcher dies, by whatever signal, all of it goes. Needs Linux and root.

By hand: ``python -m tests.controlplane.node --directory DIR``, as with `launch`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.controlplane import build, images, inside
from tests.controlplane.credentials import User
from tests.controlplane.groups import Groups
from tests.controlplane.launch import ControlPlane, Where, control_plane, serve
from tests.support.children import Child, ChildFailed
from tests.support.go_module import BuildError, cache_root

NAME = "node-1"
READY_WITHIN = 60.0
CNI_PLUGINS = Path("/usr/lib/cni")
NEEDS = {"containerd": "containerd", "runc": "runc", "ip": "iproute2", "nsenter": "util-linux"}


class Node:
    """The machine first, then, when there is an API server, its kubelet."""

    def __init__(self, directory: Path, programs: Path) -> None:
        self.directory = directory / "node"
        self.programs = programs
        self.user = User(f"system:node:{NAME}", "system:nodes", kubeconfig=f"kubeconfig-{NAME}")
        self._children: list[Child] = []
        self._groups = Groups(f"gameday-node-{os.getpid()}")

    @property
    def where(self) -> Where:
        """The API server listens on the address of the service `kubernetes`: pods find it without a proxy."""
        return Where(f"10.213.{self.net}.1", 443, f"10.213.{self.net}.0/25", node_grace_seconds=16)

    @property
    def address(self) -> str:
        return f"10.213.{self.net}.130"

    def open(self) -> None:
        """The namespaces, the link and the container runtime with its images."""
        self.directory.mkdir(parents=True, exist_ok=True)
        archive = images.build()
        self._groups.make()
        self._unshare()
        self._link()
        self._until((self.directory / inside.MOUNTED).exists, "the node has its file system")
        self._configure()
        self._spawn("containerd", "containerd", "--config", str(self.directory / "containerd.toml"))
        self._until(lambda: self.run("ctr", "version", check=False).returncode == 0, "containerd answers")
        self.run("ctr", "--namespace=k8s.io", "images", "import", str(archive))

    def start_kubelet(self, kubeconfig: Path) -> None:
        shutil.copy(kubeconfig, self.directory / "kubeconfig")
        self._spawn(
            "kubelet",
            str(self.programs / "kubelet"),
            f"--config={self.directory / 'kubelet.json'}",
            f"--kubeconfig={self.directory / 'kubeconfig'}",
            f"--hostname-override={NAME}",
            f"--node-ip={self.address}",
        )

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of another process on the node."""
        done = subprocess.run(
            [*self.enter, *command], cwd="/", capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if check and done.returncode != 0:
            raise ChildFailed(
                f"on the node, {' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}"
            )
        return done

    @property
    def enter(self) -> list[str]:
        """The start of a command line that runs on the node."""
        return ["nsenter", f"--target={self.process}", "--all", "--"]

    def check(self) -> None:
        for child in self._children:
            child.check()

    def close(self) -> None:
        """Process 1 dies, and with it every process, mount and link of the node."""
        for child in reversed(self._children):
            child.kill()
        self._groups.remove()

    def describe(self) -> dict[str, str]:
        return {
            "name": NAME,
            "address": self.address,
            "image": images.IMAGE,
            "process": str(self.process),
            "directory": str(self.directory),
        }

    def _unshare(self) -> None:
        kinds = ("mount", "pid", "net", "uts", "ipc", "cgroup")
        command = ["unshare", *(f"--{kind}" for kind in kinds), "--fork", "--kill-child", "--"]
        one = [
            sys.executable,
            "-m",
            "tests.controlplane.inside",
            str(self.directory),
            str(cache_root()),
        ]
        log = self.directory / "node.log"
        root = Path(__file__).resolve().parents[2]
        holder = Child("node", [*self._groups.join_root, *command, *one], log, cwd=root)
        self._children.append(holder)
        children = Path(f"/proc/{holder.process.pid}/task/{holder.process.pid}/children")
        self._until(lambda: bool(children.read_text().strip()), "the node has a process 1")
        self.process = int(children.read_text().split()[0])
        self._groups.settle(holder.process.pid, self.process)

    def _link(self) -> None:
        """A cable from here to the node. The kernel removes both ends when the node is gone."""
        for net in range(256):
            here = f"gameday{net}"
            peer = ["peer", "name", "eth0", "netns", str(self.process)]
            made = subprocess.run(["ip", "link", "add", here, "type", "veth", *peer], capture_output=True)
            if made.returncode == 0:
                break
        else:
            raise ChildFailed(f"could not join the node to this machine: {made.stderr.decode().strip()}")
        self.net = net
        for command in (
            f"address add {self.where.address}/24 dev {here}",
            f"link set {here} up",
            f"route add 10.214.{net}.0/24 via {self.address} dev {here}",
        ):
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        for command in (
            f"address add {self.address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {self.where.address}",
        ):
            subprocess.run(
                [*self.enter[:2], "--net", "ip", *command.split()], check=True, capture_output=True
            )

    def _configure(self) -> None:
        (self.directory / "containerd.toml").write_text(
            _CONTAINERD.format(image=images.IMAGE, cni=CNI_PLUGINS)
        )
        (self.directory / "kubelet.json").write_text(json.dumps(_KUBELET, indent=2))
        network = {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": True,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": f"10.214.{self.net}.0/24"}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                }
            ],
        }
        (self.directory / "pods.conflist").write_text(json.dumps(network, indent=2))
        self.run("hostname", NAME)
        self.run("mkdir", "-p", "/etc/cni/net.d")
        self.run("cp", str(self.directory / "pods.conflist"), "/etc/cni/net.d/")
        self.run("sh", "-c", f"echo {self.address} {NAME} >> /etc/hosts")

    def _spawn(self, name: str, *command: str) -> None:
        whole = [*self._groups.join, *self.enter, *command]
        self._children.append(Child(name, whole, self.directory / f"{name}.log", cwd=Path("/")))

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while not holds():
            self.check()
            if time.monotonic() > deadline:
                logs = "\n".join(child.last_lines() for child in self._children)
                raise ChildFailed(f"waited {READY_WITHIN:.0f} s, but not yet: {what}\n{logs}")
            time.sleep(0.05)


@asynccontextmanager
async def cluster_with_node(directory: Path) -> AsyncIterator[tuple[ControlPlane, Node]]:
    """A control plane of its own and its one node, Ready; both gone when the block ends."""
    _require()
    Groups.sweep("gameday-node-")
    programs = build.build()
    node = Node(directory.resolve(), programs)
    try:
        node.open()
        async with control_plane(directory, node.where, [node.user]) as plane:
            node.start_kubelet(plane.directory / node.user.kubeconfig)

            def ready() -> bool:
                node.check()
                return _ready(plane)

            await plane.until(ready, f"{NAME} is Ready", READY_WITHIN)
            yield plane, node
    finally:
        node.close()


def _ready(plane: ControlPlane) -> bool:
    answer = plane.get(f"/api/v1/nodes/{NAME}")
    conditions = json.loads(answer)["status"].get("conditions", []) if answer else []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _require() -> None:
    if sys.platform != "linux":
        raise ChildFailed("a real node needs Linux: its containers share this machine's kernel")
    if os.geteuid() != 0:
        raise ChildFailed("a real node needs root, for namespaces and mounts: run as root, or with sudo")
    missing = [package for name, package in NEEDS.items() if shutil.which(name) is None]
    if not (CNI_PLUGINS / "bridge").exists():
        missing.append("containernetworking-plugins")
    if missing:
        raise ChildFailed(f"a real node needs these Debian packages, install them: {' '.join(missing)}")


async def _serve(directory: Path) -> None:
    async with cluster_with_node(directory) as (plane, node):
        await serve(plane, node=node.describe())


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a control plane with one real node until interrupted.")
    parser.add_argument("--directory", type=Path, required=True, help="for kubeconfigs, logs and data")
    options = parser.parse_args()
    try:
        asyncio.run(_serve(options.directory))
    except (ChildFailed, BuildError) as error:
        print(f"node: {error}", file=sys.stderr)
        return 1
    return 0


_CONTAINERD = """
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  # Not every machine lets root make a process harder to kill.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni}"
    conf_dir = "/etc/cni/net.d"
"""

_KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
    # Only this machine can reach the node.
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "cgroupDriver": "cgroupfs",
    "failCgroupV1": False,
    "cgroupsPerQOS": False,
    "enforceNodeAllocatable": [],
    "localStorageCapacityIsolation": False,
    "failSwapOn": False,
    # Report quickly: tests wait for what the node says.
    "nodeStatusUpdateFrequency": "2s",
    "nodeLeaseDurationSeconds": 8,
    "syncFrequency": "5s",
    # The images are the only copies, and the disk is the machine's.
    "imageGCHighThresholdPercent": 100,
    "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
    "maxPods": 50,
}


if __name__ == "__main__":
    sys.exit(main())
