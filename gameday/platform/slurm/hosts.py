"""Which Kubernetes node a Slurm node is: on Slinky and SUNK a Slurm node is a pod, with a name of its own.

Slinky's operator writes the pod into the Slurm node's comment, as JSON with namespace, podName and node, and
labels the pod with the Slurm node's name (slurm-operator v1.2.1: internal/utils/podinfo, api/v1beta1). SUNK's
NodeSet gives a pod the name of its Slurm node (docs.coreweave.com, SUNK, "NodeSet"). Elsewhere a Slurm node
is the Kubernetes node of its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gameday.platform.errors import ApiError
from gameday.platform.objects import Object, controller, labels_of
from gameday.platform.resources import NODES, PODS

if TYPE_CHECKING:
    from gameday.platform.kube import Kube
    from gameday.platform.slurm.model import Node

HOSTNAME = "nodeset.slinky.slurm.net/pod-hostname"
SUNK = "sunk.coreweave.com/"


async def hosts(nodes: Iterable[Node], kube: Kube, listed: Iterable[Object] | None = None) -> dict[str, str]:
    """The Kubernetes node of each Slurm node, "" where there is none. Raises PlatformError.

    `listed` are Kubernetes' nodes, where they are known already.
    """
    nodes = list(nodes)
    listed = await kube.list(NODES) if listed is None else listed
    known = {n["metadata"]["name"] for n in listed}
    labelled = await _pods(kube, HOSTNAME)
    by_pod = {(p["metadata"]["namespace"], p["metadata"]["name"]): _host(p) for p in labelled}
    by_name = {labels_of(p).get(HOSTNAME): _host(p) for p in labelled}
    found = {n.name: _linked(n, by_pod, by_name) for n in nodes}
    found |= {name: name for name, host in found.items() if host is None and name in known}
    if any(host is None for host in found.values()):
        sunk = {_name(p): _host(p) for p in await _sunks(kube)}
        found |= {name: sunk.get(name) for name, host in found.items() if host is None}
    return {name: host or "" for name, host in found.items()}


def _linked(node: Node, by_pod: dict[tuple[str, str], str], by_name: dict[str | None, str]) -> str | None:
    """The host by Slinky's link; None without one. The pod itself knows best: a comment may be older."""
    try:
        told = json.loads(node.comment or "{}")
        pod, host = (str(told["namespace"]), str(told["podName"])), str(told.get("node") or "")
    except (ValueError, KeyError, TypeError):
        return by_name.get(node.name)
    return by_pod.get(pod) or by_name.get(node.name) or host


async def _pods(kube: Kube, label: str | None = None) -> list[Object]:
    """All pods, or those with a label; none where they may not be listed: then only the comment links."""
    try:
        return await kube.list(PODS, labels=label)
    except ApiError as error:
        if error.status != 403:
            raise
        return []


async def _sunks(kube: Kube) -> list[Object]:
    """The pods of SUNK's NodeSets. Where that API is not served nobody has to list every pod to see none."""
    try:
        await kube.resource(f"{SUNK}v1alpha1", "NodeSet")
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        return []
    return [p for p in await _pods(kube) if _is_sunks(p)]


def _host(pod: Object) -> str:
    return str(pod["spec"].get("nodeName") or "")


def _name(pod: Object) -> str:
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])


def _is_sunks(pod: Object) -> bool:
    owner = controller(pod)
    return owner is not None and owner["kind"] == "NodeSet" and str(owner["apiVersion"]).startswith(SUNK)
