"""What the contract tests put into a cluster: small objects of their own, on either platform."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, Resource
from tests.support.polling import eventually

SERVICE_ACCOUNTS = Resource("v1", "ServiceAccount", "serviceaccounts")


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid4().hex[:8]}"


def config_map(namespace: str, name: str = "", labels: dict[str, str] | None = None, **data: str) -> Object:
    metadata: Object = {"name": name or unique("map"), "namespace": namespace}
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def pod(namespace: str, labels: dict[str, str] | None = None, node: str = "", **spec: Any) -> Object:
    spec = {"containers": [{"name": "main", "image": "none"}], "automountServiceAccountToken": False, **spec}
    metadata = {"name": unique("pod"), "namespace": namespace, "labels": labels or {}}
    # bound from the start, as a static or DaemonSet pod may be: no scheduler is involved
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec | ({"nodeName": node} if node else {"schedulerName": "nobody"}),
    }


def deployment(namespace: str, name: str = "", replicas: int = 0) -> Object:
    name = name or unique("app")
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": template,
            "paused": True,
        },
    }


async def running(kube: Kube, obj: Object, *, ready: bool = True) -> Ref:
    """Create a pod and be its kubelet for once: it runs, and is ready or not."""
    ref = Ref.of(await kube.create(obj))
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    status = {"phase": "Running", "conditions": conditions}
    await kube.patch(ref, {"status": status}, "merge", subresource="status")
    return ref


async def budget(kube: Kube, namespace: str, labels: dict[str, str], pods: int, **spec: Any) -> Ref:
    """A budget over pods that exist already, once the disruption controller has counted them."""
    obj = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": unique("budget"), "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, **spec},
    }
    ref = Ref.of(await kube.create(obj))

    def counted(found: Object) -> bool:
        status = found.get("status") or {}
        return status.get("observedGeneration") == 1 and status.get("expectedPods") == pods

    await eventually(lambda: kube.get(ref), counted)
    return ref


async def put(kube: Kube, resource: Resource, obj: Object, **query: str) -> Object:
    """Replace an object, as a client without patches does."""
    metadata = obj["metadata"]
    path = resource.path(metadata.get("namespace"), metadata["name"])
    answer: Object = json.loads(await kube.request("PUT", path, query=query, body=obj))
    return answer


async def refusal(call: Any) -> ApiError:
    """The ApiError that a call must end with."""
    try:
        answer = await call
    except ApiError as error:
        return error
    raise AssertionError(f"was not refused: {answer!r}")
