"""The launcher gives a real cluster, survives a killed API server, and leaves no process behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gameday.platform.errors import ApiError, Unreachable
from gameday.platform.kube import Kube
from gameday.platform.objects import Object
from gameday.platform.resources import NODES
from tests.controlplane.credentials import CONTEXT
from tests.controlplane.launch import ControlPlane, control_plane
from tests.support import platforms, snapshot
from tests.support.polling import until
from tests.support.proxy import ApiProxy

pytestmark = pytest.mark.controlplane


@pytest.fixture(scope="module", autouse=True)
def _only_where_it_is_built(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--platform") != "cluster":
        pytest.skip("about the real control plane: --platform cluster")


def config_map(name: str, **data: str) -> Object:
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


@pytest.fixture(scope="module")
async def plane(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path_factory.mktemp("controlplane")) as running:
        yield running


@pytest.fixture
async def admin(plane: ControlPlane) -> AsyncIterator[Kube]:
    async with await Kube.connect(plane.kubeconfig) as kube:
        yield kube


async def test_answers_as_kubernetes(plane: ControlPlane, admin: Kube) -> None:
    assert (await admin.version()).startswith("v1.")
    assert admin.context == CONTEXT


@pytest.mark.parametrize(("kubeconfig", "status"), [("restricted", 403), ("unauthorized", 401)])
async def test_refuses(plane: ControlPlane, kubeconfig: str, status: int) -> None:
    async with await Kube.connect(plane.directory / f"kubeconfig-{kubeconfig}") as kube:
        with pytest.raises(ApiError) as refused:
            await kube.list(NODES)
    assert refused.value.status == status


async def test_keeps_its_objects_when_the_api_server_is_killed(plane: ControlPlane, admin: Kube) -> None:
    await admin.create(config_map("survivor", key="value"))
    plane.stop_apiserver()
    admin.patience = 0.1
    with pytest.raises(Unreachable):
        await admin.list(NODES)
    await plane.start_apiserver()
    namespaces = {
        obj["metadata"]["name"] for obj in await admin.list(await admin.resource("v1", "ConfigMap"))
    }
    assert "survivor" in namespaces


async def test_a_snapshot_names_what_was_left_behind(admin: Kube) -> None:
    with pytest.raises(AssertionError, match="ConfigMap default/litter: left behind"):
        async with snapshot.unchanged(admin, within=0):
            created = await admin.create(config_map("litter"))
    before = await snapshot.take(admin)
    created["data"] = {"key": "other"}
    path = "/api/v1/namespaces/default/configmaps/litter"
    await admin.request("PUT", path, body=created)
    assert snapshot.differences(before, await snapshot.take(admin)) == [
        'ConfigMap default/litter: data was absent, is {"key": "other"}'
    ]


async def test_a_proxy_fails_on_demand(plane: ControlPlane, tmp_path: Path) -> None:
    proxy = ApiProxy(plane.kubeconfig, tmp_path / "kubeconfig")
    proxy.start()
    try:
        async with await Kube.connect(proxy.kubeconfig) as kube:
            kube.patience = 0
            proxy.fail("GET", "/nodes", 500, message="out of luck")
            with pytest.raises(ApiError, match="out of luck"):
                await kube.list(NODES)
            proxy.cut()
            with pytest.raises(Unreachable):
                await kube.list(NODES)
            proxy.restore()
            assert await kube.list(NODES) == []
    finally:
        proxy.close()


def test_leaves_no_process_behind_when_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.controlplane.launch", "--directory", str(tmp_path), "--no-crds"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=platforms.ROOT) as launcher:
        assert launcher.stdout is not None
        launcher.stdout.readline()
        launcher.kill()
    until(
        lambda: not any(str(tmp_path) in command for command in _commands()), "all of it is gone", within=10
    )


def _commands() -> list[str]:
    """The command lines of all running processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                found.append((entry / "cmdline").read_text())
            except OSError:
                continue
    return found
