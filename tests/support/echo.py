"""An API server that has every object that it is asked for: to see which ones are.

Takes a path apart as an API server does, which decodes it before it looks for slashes.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, unquote

from tests.support.raw import Asked, answer

Object = dict[str, Any]
KINDS = {
    "v1": {
        "pods": "Pod",
        "nodes": "Node",
        "configmaps": "ConfigMap",
        "events": "Event",
        "resourcequotas": "ResourceQuota",
        "secrets": "Secret",
        "services": "Service",
        "namespaces": "Namespace",
    },
    "apps/v1": {
        "deployments": "Deployment",
        "statefulsets": "StatefulSet",
        "replicasets": "ReplicaSet",
        "daemonsets": "DaemonSet",
    },
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "coordination.k8s.io/v1": {"leases": "Lease"},
    "argoproj.io/v1alpha1": {"applications": "Application", "rollouts": "Rollout"},
    "networking.istio.io/v1": {"virtualservices": "VirtualService"},
    "cluster.x-k8s.io/v1beta1": {"machines": "Machine", "machinesets": "MachineSet"},
    "sriovnetwork.openshift.io/v1": {"sriovnetworknodestates": "SriovNetworkNodeState"},
    "k8s.cni.cncf.io/v1": {"network-attachment-definitions": "NetworkAttachmentDefinition"},
    "chaos-mesh.org/v1alpha1": {"networkchaos": "NetworkChaos", "physicalmachines": "PhysicalMachine"},
    "certs.example.com/v1": {"certificates": "Certificate"},
}
CLUSTER_WIDE = {"nodes", "namespaces"}
_SPEC = {
    "replicas": 3,
    "nodeName": "gpu-0",
    "containers": [
        {"name": "main", "image": "dcgm", "resources": {"limits": {"cpu": "4", "nvidia.com/gpu": "1"}}}
    ],
    "template": {"spec": {"containers": [{"name": "main"}]}},
    "selector": {"matchLabels": {"app": "a"}},
    "hard": {"pods": "10", "requests.nvidia.com/gpu": "8"},
    "http": [{"name": "main", "route": [{"destination": {"host": "server"}}]}],
    "syncPolicy": {},
    "scaleTargetRef": {"kind": "Deployment", "name": "other"},
}


def parts(target: str) -> tuple[str, list[str]]:
    """The API version of a request's path, and what comes below it, both as the server reads them."""
    root, *words = unquote(target.partition("?")[0]).removeprefix("/").split("/")
    return ("/".join(words[:2]), words[2:]) if root == "apis" else ("/".join(words[:1]), words[1:])


def respond(asked: Asked) -> bytes:
    """An answer for everything that has the form of a request to an API server."""
    version, below = parts(asked.target)
    if not version:
        known = [{"name": v.partition("/")[0], "versions": [{"groupVersion": v}]} for v in KINDS]
        return answer(200, {"groups": known})
    if version in ("authorization.k8s.io/v1",):
        return answer(201, {"status": {"allowed": True}})
    served = KINDS.get(version)
    if served is None:
        groups = {v.partition("/")[0]: v for v in KINDS}
        if version in groups:
            return answer(200, {"preferredVersion": {"groupVersion": groups[version]}})
        return answer(404, b"404 page not found")
    if not below:
        listed = [
            {"name": p, "kind": k, "namespaced": p not in CLUSTER_WIDE, "singularName": k.lower()}
            for p, k in served.items()
        ]
        return answer(
            200, {"resources": [*listed, {"name": "pods/resize", "kind": "Pod", "namespaced": True}]}
        )
    namespace = None
    if below[0] == "namespaces" and len(below) > 2:
        namespace, below = below[1], below[2:]
    kind = served.get(below[0])
    if kind is None:
        return answer(404, b"404 page not found")
    if len(below) == 1 and asked.method == "GET":
        items = [_object(version, kind, _one(asked, below[0]), namespace or _space(below[0]))]
        return answer(200, {"metadata": {"resourceVersion": "1"}, "items": items})
    name = below[1] if len(below) > 1 else "made"
    return answer(200, _object(version, kind, name, namespace))


def _one(asked: Asked, plural: str) -> str:
    """The name of the one object of a list: the one that was asked for, where one was."""
    fields = parse_qs(asked.query).get("fieldSelector", [""])[0]
    named = dict(f.partition("=")[::2] for f in fields.split(",")).get("metadata.name")
    return named or ("gpu-0" if plural in CLUSTER_WIDE else "one")


def _space(plural: str) -> str | None:
    return None if plural in CLUSTER_WIDE else "training"


def _object(version: str, kind: str, name: str, namespace: str | None) -> Object:
    metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1", "generation": 1}
    metadata |= {"namespace": namespace} if namespace else {}
    status = {
        "phase": "Running",
        "hard": _SPEC["hard"],
        "used": {"pods": "3"},
        "readyReplicas": 3,
        "capacity": {"nvidia.com/gpu": "8"},
        "allocatable": {"nvidia.com/gpu": "8"},
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "history": [{"id": 1, "revision": "a"}, {"id": 2, "revision": "b"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": _SPEC, "status": status}
