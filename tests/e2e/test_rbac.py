"""`gameday rbac`: with the Roles that it prints the run passes, and one object further is forbidden."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from gameday.ledger.keeping import ensure_namespace
from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, Resource
from tests.e2e.experiments import CORDON, SCALE, write
from tests.platform.arrange import pod, running, unique
from tests.support.kinds import Served, serving
from tests.support.platforms import Platform
from tests.support.program import Program
from tests.support.snapshot import Snapshot

METHOD: list[dict[str, Any]] = [
    {"cordon": {"nodes": {"names": ["gpu-0"]}}, "for": "1s"},
    {**SCALE, "for": "1s"},
]
ACCOUNTS = Resource("v1", "ServiceAccount", "serviceaccounts")


def roles(gameday: Program, file: Path) -> list[Object]:
    printed = gameday("rbac", file, "--account", "default/narrow", stderr=False)
    assert printed.code == 0, printed.output
    assert "every ConfigMap, Lease and Secret there" in printed.output  # what can't be named is said
    assert "--as-run-identity" in printed.output
    return list(yaml.safe_load_all(printed.output))


async def test_the_roles_name_what_is_changed(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    await ensure_namespace(kube)  # what is there is nobody's to print
    made = await asyncio.to_thread(roles, gameday, write(tmp_path, method=METHOD))
    rules = [(m["metadata"].get("namespace", ""), r) for m in made for r in m.get("rules", ())]
    changing = [(ns, r) for ns, r in rules if "patch" in r["verbs"] and ns != "gameday"]
    assert {(ns, r["resources"][0], *r["resourceNames"]) for ns, r in changing} == {
        ("", "nodes", "gpu-0"),
        ("platform", "deployments", "job-queue-controller"),
    }
    assert not any("*" in part for _, r in rules for part in (*r["verbs"], *r["resources"], *r["apiGroups"]))
    assert all("secrets" not in r["resources"] for ns, r in rules if ns != "gameday")
    bound = [m for m in made if m["kind"].endswith("Binding")]
    assert {b["subjects"][0]["name"] for b in bound} == {"narrow"}
    account = {"name": "narrow", "namespace": "default"}
    assert made[0] == {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account}
    assert len(bound) * 2 == len(made) - 1


def test_what_is_printed_can_be_applied_where_nothing_is_there_yet(
    platform: Platform, gameday: Program, tmp_path: Path
) -> None:
    space = unique("team")
    file = write(tmp_path, method=METHOD)
    printed = gameday("rbac", file, "--account", f"{space}/runner", stderr=False)
    assert printed.code == 0, printed.output
    kubectl = (platform.kubectl, "--kubeconfig", str(platform.kubeconfig))

    def run(*words: str, text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run((*kubectl, *words), input=text, capture_output=True, text=True, timeout=120)

    # The namespace of gameday is every test's.
    made = [d for d in yaml.safe_load_all(printed.output) if d["metadata"]["name"] != "gameday"]
    text = yaml.safe_dump_all(made)
    try:
        applied = run("apply", "--filename", "-", text=text)
        assert applied.returncode == 0, applied.stderr
        assert f"namespace/{space} created" in applied.stdout
        assert "serviceaccount/runner created" in applied.stdout
        again = gameday("rbac", file, "--account", f"{space}/runner", stderr=False)
        assert not {"Namespace", "ServiceAccount"} & {d["kind"] for d in yaml.safe_load_all(again.output)}
    finally:
        run("delete", "--ignore-not-found", "--filename", "-", text=text)


def test_a_plan_that_is_refused_has_no_roles(gameday: Program, tmp_path: Path) -> None:
    ended = gameday(
        "rbac",
        write(tmp_path, method=[CORDON], target={"namespaces": ["platform"], "nodes": {"selector": "a=b"}}),
    )
    assert ended.code == 4, ended.output
    assert "outside the target" in ended.output
    assert "ClusterRole" not in ended.output


@pytest.fixture
async def narrow(
    platform: Platform, gameday: Program, kube: Kube, tmp_path: Path
) -> AsyncIterator[tuple[Path, Path]]:
    """The experiment, and a kubeconfig of an account with its Roles alone."""
    if platform.restricted_kubeconfig is None:
        pytest.skip("the embedded API lets everybody do everything")
    file = write(tmp_path, method=METHOD)
    await ensure_namespace(kube)
    made = await asyncio.to_thread(roles, gameday, file)
    objects = [await kube.create(obj) for obj in made]
    path = ACCOUNTS.path("default", "narrow", "token")
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 600},
    }
    token = (await kube.ask("POST", path, body=body))["status"]["token"]
    config = yaml.safe_load(platform.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    kubeconfig = tmp_path / "narrow.kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    yield file, kubeconfig
    for obj in objects:
        await kube.delete(Ref.of(obj))


async def test_a_run_with_these_roles_passes_and_goes_no_further(
    narrow: tuple[Path, Path], gameday: Program, world_unchanged: Snapshot
) -> None:
    file, kubeconfig = narrow
    ended = await asyncio.to_thread(gameday.run, file, env={"KUBECONFIG": str(kubeconfig)})
    assert ended.code == 0, ended.output
    assert {e["state"] for e in ended.of("audited")} == {"restored"}
    async with await Kube.connect(kubeconfig) as kube:
        body = [{"op": "test", "path": "/kind", "value": "Node"}]
        await kube.dry_patch(Ref("v1", "Node", "gpu-0"), body)
        for further in (
            Ref("v1", "Node", "gpu-1"),
            Ref("apps/v1", "Deployment", "inference", "inference"),
        ):
            with pytest.raises(ApiError) as denied:
                await kube.dry_patch(further, body)
            assert denied.value.status == 403


GANGS = {
    "jobset.sigs.k8s.io/jobset-name": Served("jobset.x-k8s.io/v1alpha2", "JobSet", "jobsets"),
    "ray.io/cluster": Served("ray.io/v1", "RayCluster", "rayclusters"),
    "training.kubeflow.org/job-name": Served("kubeflow.org/v1", "PyTorchJob", "pytorchjobs"),
    "kueue.x-k8s.io/pod-group-name": Served("kueue.x-k8s.io/v1beta2", "Workload", "workloads"),
}


async def test_a_gang_may_have_another_name_by_the_time_of_the_run(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The next training run is another JobSet: Roles that name today's would let nobody read that one."""
    name = unique("llm")
    file = write(tmp_path, method=[{"cordon": {"nodes": {"names": ["gpu-6"]}}, "for": "1s"}])
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(serving(kube, list(GANGS.values())))
        for label, kind in GANGS.items():
            meta = {"name": name, "namespace": "training"}
            await kube.create({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta})
            member = await running(kube, pod("training", {label: name}, node="gpu-6"))
            stack.push_async_callback(kube.delete, member, grace=0)
        made = await asyncio.to_thread(roles, gameday, file)
    rules = [r for m in made for r in m.get("rules", ()) if m["metadata"].get("namespace") == "training"]
    named = {plural: "resourceNames" in r for r in rules for plural in r["resources"]}
    assert {kind.plural: named.get(kind.plural) for kind in GANGS.values()} == dict.fromkeys(
        (kind.plural for kind in GANGS.values()), False
    )
