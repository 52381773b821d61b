"""The real kubectl works against either platform, for all that people do to a cluster during a game day."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.platform.arrange import budget, config_map, deployment, pod, running, unique
from tests.support.platforms import Platform

Kubectl = Callable[..., Coroutine[Any, Any, str]]


class Complaint(Exception):
    """kubectl failed; the text is what it said."""


@pytest.fixture
def kubectl(platform: Platform, namespace: str, tmp_path: Path) -> Kubectl:
    """Runs kubectl in the test's namespace; a keyword `file` is passed with -f. Answers what it printed."""

    async def run(*arguments: str, file: Object | None = None) -> str:
        given = list(arguments)
        if file is not None:
            (tmp_path / "object.json").write_text(json.dumps(file))
            given += ["-f", str(tmp_path / "object.json")]
        process = await _start(platform, namespace, *given)
        async with asyncio.timeout(60):
            output, errors = await process.communicate()
        if process.returncode:
            raise Complaint(errors.decode())
        return output.decode()

    return run


async def _start(platform: Platform, namespace: str, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        platform.kubectl,
        "-n",
        namespace,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "KUBECONFIG": str(platform.kubeconfig)},
    )


def columns(output: str) -> list[str]:
    return output.splitlines()[0].split()


async def test_discovery(kubectl: Kubectl) -> None:
    assert "Server Version" in await kubectl("version")
    listed = await kubectl("api-resources", "--no-headers", "-o", "name")
    assert {"pods", "nodes", "deployments.apps", "poddisruptionbudgets.policy"} <= set(listed.split())
    assert (await kubectl("auth", "can-i", "delete", "pods")).strip() == "yes"


async def test_get_prints_the_columns_people_know(
    kubectl: Kubectl, kube: Kube, namespace: str, node: str
) -> None:
    ref = await running(kube, pod(namespace, node=node))
    assert columns(await kubectl("get", "pods")) == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    wide = await kubectl("get", "pod", ref.name, "-o", "wide", "--no-headers")
    assert wide.split()[:4] == [ref.name, "0/1", "Running", "0"]
    assert node in wide.split()
    assert columns(await kubectl("get", "nodes")) == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert columns(await kubectl("get", "ns")) == ["NAME", "STATUS", "AGE"]
    await kube.create(deployment(namespace))
    assert columns(await kubectl("get", "deploy")) == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert json.loads(await kubectl("get", "pod", ref.name, "-o", "json"))["metadata"]["uid"] == ref.uid
    await kube.delete(ref, grace=0)


@pytest.mark.parametrize("kind", ["rs", "ds", "jobs", "pdb", "events", "leases", "svc", "secrets", "crd"])
async def test_wide_tables_can_be_printed(kubectl: Kubectl, kind: str) -> None:
    await kubectl("get", kind, "-A", "-o", "wide")


async def test_create_apply_and_delete(kubectl: Kubectl, kube: Kube, namespace: str) -> None:
    name = unique("made")
    created = await kubectl("create", "configmap", name, "--from-literal=a=1")
    assert created.strip() == f"configmap/{name} created"
    app = deployment(namespace)
    app_name = app["metadata"]["name"]
    assert (await kubectl("apply", file=app)).strip() == f"deployment.apps/{app_name} created"
    assert (await kubectl("apply", file=app)).strip() == f"deployment.apps/{app_name} unchanged"
    app["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}]
    assert (await kubectl("apply", file=app)).strip() == f"deployment.apps/{app_name} configured"
    del app["spec"]["template"]["spec"]["containers"][0]["env"]
    await kubectl("apply", file=app)
    (container,) = (await kube.get(Ref.of(app)))["spec"]["template"]["spec"]["containers"]
    assert "env" not in container
    deleted = await kubectl("delete", "configmap", name)
    assert f'configmap "{name}" deleted' in deleted
    with pytest.raises(Complaint, match=r"\(NotFound\)"):
        await kubectl("get", "configmap", name)
    await kubectl("delete", "deploy", app_name)


async def test_create_of_workloads(kubectl: Kubectl, kube: Kube, namespace: str) -> None:
    """kubectl sends these as protobuf."""
    name = unique("made")
    await kubectl("create", "deployment", name, "--image=none", "--replicas=0", "--port=80")
    made = await kube.get(Ref("apps/v1", "Deployment", name, namespace))
    assert made["spec"]["replicas"] == 0
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["ports"][0]["containerPort"]) == ("none", 80)
    await kubectl("create", "pdb", name, "--selector=a=b", "--min-available=50%")
    guard = await kube.get(Ref("policy/v1", "PodDisruptionBudget", name, namespace))
    assert guard["spec"] == {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}
    await kubectl("create", "role", name, "--verb=get,list", "--resource=pods")
    role = await kube.get(Ref("rbac.authorization.k8s.io/v1", "Role", name, namespace))
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    await kubectl("delete", "deploy,pdb,role", name)


async def test_server_side_apply_conflicts(kubectl: Kubectl, namespace: str) -> None:
    obj = config_map(namespace, a="1")
    await kubectl("apply", "--server-side", "--field-manager=one", file=obj)
    obj["data"] = {"a": "2"}
    with pytest.raises(Complaint, match=r'conflict with "one": \.data\.a'):
        await kubectl("apply", "--server-side", "--field-manager=two", file=obj)
    forced = await kubectl("apply", "--server-side", "--field-manager=two", "--force-conflicts", file=obj)
    assert "serverside-applied" in forced


async def test_strict_validation_by_default(kubectl: Kubectl, namespace: str) -> None:
    wrong = pod(namespace)
    wrong["spec"]["nodNeame"] = "typo"
    with pytest.raises(Complaint, match=r'unknown field "spec\.nodNeame"'):
        await kubectl("create", file=wrong)


async def test_patch_label_annotate_and_scale(kubectl: Kubectl, kube: Kube, namespace: str) -> None:
    ref = Ref.of(await kube.create(deployment(namespace)))
    await kubectl("label", "deploy", ref.name, "a=b")
    await kubectl("annotate", "deploy", ref.name, "c=d")
    await kubectl("patch", "deploy", ref.name, "-p", '{"spec": {"minReadySeconds": 3}}')
    await kubectl("scale", "deploy", ref.name, "--replicas=2")
    changed = await kube.get(ref)
    assert changed["metadata"]["labels"]["a"] == "b"
    assert changed["metadata"]["annotations"]["c"] == "d"
    assert (changed["spec"]["minReadySeconds"], changed["spec"]["replicas"]) == (3, 2)
    await kubectl("delete", "deploy", ref.name)


async def test_watch_prints_what_happens(
    platform: Platform, kubectl: Kubectl, kube: Kube, namespace: str
) -> None:
    mark = unique("mark")
    obj = config_map(namespace, labels={"mark": mark})
    watching = await _start(
        platform, namespace, "get", "cm", "-l", f"mark={mark}", "-w", "--output-watch-events"
    )
    assert watching.stdout
    ref = Ref.of(await kube.create(obj))
    async with asyncio.timeout(30):
        header, added = [await watching.stdout.readline() for _ in range(2)]
        await kube.delete(ref)
        deleted = await watching.stdout.readline()
    watching.kill()
    await watching.communicate()
    assert header.split() == [b"EVENT", b"NAME", b"DATA", b"AGE"]
    assert added.split()[:2] == [b"ADDED", ref.name.encode()]
    assert deleted.split()[:2] == [b"DELETED", ref.name.encode()]


async def test_describe(kubectl: Kubectl, kube: Kube, namespace: str, node: str) -> None:
    ref = await running(kube, pod(namespace, node=node))
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": unique("event"), "namespace": namespace},
        "involvedObject": {"kind": "Pod", "name": ref.name, "namespace": namespace, "uid": ref.uid},
        "reason": "Happened",
        "message": "it happened to be seen",
        "type": "Normal",
    }
    await kube.create(event)
    described = await kubectl("describe", "pod", ref.name)
    assert f"Node:             {node}" in described
    assert "it happened to be seen" in described
    assert ref.name in await kubectl("describe", "node", node)
    app = Ref.of(await kube.create(deployment(namespace)))
    assert "Replicas:" in await kubectl("describe", "deploy", app.name)
    assert "No resource quota" in await kubectl("describe", "ns", namespace)
    await kube.delete(app)
    await kube.delete(ref, grace=0)


async def test_wait(kubectl: Kubectl, kube: Kube, namespace: str, node: str) -> None:
    ref = Ref.of(await kube.create(pod(namespace, node=node)))
    waiting = asyncio.create_task(
        kubectl("wait", "--for=condition=Ready", f"pod/{ref.name}", "--timeout=30s")
    )
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await kube.patch(ref, {"status": status}, "merge", subresource="status")
    assert "condition met" in await waiting
    waiting = asyncio.create_task(kubectl("wait", "--for=delete", f"pod/{ref.name}", "--timeout=30s"))
    await kube.delete(ref, grace=0)
    await waiting


async def test_cordon_and_drain(kubectl: Kubectl, kube: Kube, namespace: str, node: str) -> None:
    labels = {"app": unique("guarded")}
    pods = [await running(kube, pod(namespace, labels, node)) for _ in range(2)]
    guard = await budget(kube, namespace, labels, 2, minAvailable=2)
    assert (await kubectl("cordon", node)).strip() == f"node/{node} cordoned"
    assert "SchedulingDisabled" in await kubectl("get", "node", node)
    drain = ("drain", node, "--force", "--grace-period=0", "--ignore-daemonsets")
    with pytest.raises(Complaint, match="violate the pod's disruption budget"):
        await kubectl(*drain, "--timeout=1s")
    await kube.delete(guard)
    drained = await kubectl(*drain, "--timeout=30s")
    assert f"node/{node} drained" in drained
    assert [p for p in pods if await kube.find(p)] == []
    assert (await kubectl("uncordon", node)).strip() == f"node/{node} uncordoned"
    assert "unschedulable" not in (await kube.get(Ref("v1", "Node", node)))["spec"]


async def test_taint(kubectl: Kubectl, kube: Kube, node: str) -> None:
    await kubectl("taint", "node", node, "broken=yes:NoExecute")
    found = (await kube.get(Ref("v1", "Node", node)))["spec"]["taints"]
    assert [t["value"] for t in found if t["key"] == "broken"] == ["yes"]
    await kubectl("taint", "node", node, "broken-")
    left = (await kube.get(Ref("v1", "Node", node)))["spec"].get("taints", [])
    assert [t for t in left if t["key"] == "broken"] == []
