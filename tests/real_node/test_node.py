"""The real node does what a node does: runs pods, tells their logs, gives its hardware to privileged ones."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.controlplane.groups import Groups
from tests.real_node.pods import MAIN, manifest, running
from tests.support.children import Child
from tests.support.node import RealNode
from tests.support.platforms import ROOT
from tests.support.polling import eventually, until

# Pods find the API server as in any cluster: by environment, certificate and token of their account.
WHO_AM_I = """
import json, os, ssl, time, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount"
server = "https://{KUBERNETES_SERVICE_HOST}:{KUBERNETES_SERVICE_PORT}".format(**os.environ)
url = server + "/apis/authentication.k8s.io/v1/selfsubjectreviews"
body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
headers = {"Authorization": "Bearer " + open(account + "/token").read(), "Content-Type": "application/json"}
request = urllib.request.Request(url, json.dumps(body).encode(), headers)
tls = ssl.create_default_context(cafile=account + "/ca.crt")
print(json.load(urllib.request.urlopen(request, context=tls))["status"]["userInfo"]["username"], flush=True)
time.sleep(600)
"""


async def test_the_node_is_real(kube: Kube, node: RealNode) -> None:
    found = await kube.get(Ref("v1", "Node", node.name))
    assert found["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://")
    assert node.processes("kubelet")


async def test_a_pod_in_the_pods_network_reaches_the_api_server(kube: Kube, node: RealNode) -> None:
    async with running(kube, manifest(node, "asks", "python3", "-c", WHO_AM_I)) as pod:
        said = await eventually(lambda: kube.logs(pod, MAIN))
        assert said.strip() == "system:serviceaccount:default:default"


async def test_commands_run_in_a_container(kube: Kube, node: RealNode) -> None:
    async with running(kube, manifest(node, "obeys", "sleep", "600")) as pod:
        done = await kube.exec(pod, MAIN, ["sh", "-c", "hostname; echo wrong >&2; exit 3"])
        assert (done.code, done.stdout, done.stderr) == (3, "obeys\n", "wrong\n")
        with pytest.raises(ApiError, match="no-such-tool"):
            await kube.exec(pod, MAIN, ["no-such-tool"])


async def test_a_privileged_pod_has_the_nodes_processes_and_tools(kube: Kube, node: RealNode) -> None:
    look = "import os; os.chroot('/proc/1/root'); os.execlp('ip', 'ip', '-brief', 'address', 'show', 'eth0')"
    command = ("sh", "-c", f'python3 -c "{look}"; pidof kubelet; sleep 600')
    container = {"securityContext": {"privileged": True}}
    pod = manifest(node, "looks", *command, hostNetwork=True, hostPID=True, container=container)
    async with running(kube, pod) as ref:
        said = await eventually(lambda: kube.logs(ref, MAIN), lambda text: text.count("\n") >= 2)
    address, kubelet = said.splitlines()
    assert node.address in address
    assert int(kubelet) in node.processes("kubelet")


async def test_the_nodes_machine_is_not_this_machine(node: RealNode) -> None:
    here = Path("/proc/sys/kernel/panic").read_text()
    node.run("sh", "-c", "echo 77 > /proc/sys/kernel/panic; touch /etc/on-the-node")
    assert node.run("cat", "/proc/sys/kernel/panic") == "77\n"
    assert Path("/proc/sys/kernel/panic").read_text() == here
    assert not Path("/etc/on-the-node").exists()


def test_nothing_stays_of_a_node_whose_launcher_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.controlplane.node", "--directory", str(tmp_path)]
    launcher = Child("launcher", command, tmp_path / "launcher.log", stdout=subprocess.PIPE, cwd=ROOT)
    assert launcher.process.stdout is not None
    assert launcher.process.stdout.readline().startswith(b"{"), launcher.last_lines()
    launcher.signal(signal.SIGKILL)
    launcher.process.wait()
    until(lambda: not _left(tmp_path), "every process and mount of the node is gone")
    until(lambda: not _groups(launcher.process.pid), "its control groups can be removed")


def _groups(launcher: int) -> list[Path]:
    """What the next start leaves of a killed launcher's control groups."""
    Groups.sweep("gameday-node-")
    return list(Path("/sys/fs/cgroup").glob(f"**/gameday-node-{launcher}"))


def _left(folder: Path) -> list[str]:
    """Processes that were started with something of the folder, and mounts in it."""
    found = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            if str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
    return found
