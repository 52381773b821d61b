"""A large cluster: an API server full of nodes and pods as real ones look, managed fields and all.

`python -m bench.large_cluster KUBECONFIG` fills it, serves it, and then writes the kubeconfig.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import uuid
from pathlib import Path
from typing import Any

from gameday.platform.objects import Object
from gameday.sandbox.apiserver import ApiServer, write_kubeconfig
from gameday.sandbox.apiserver.store import Store

NODES, PODS, NAMESPACES = 5_000, 50_000, 20
APPS = 50  # in each namespace
CREATED = "2026-11-01T08:00:00Z"
CONTEXT = "gameday-large"
LABEL = "nvidia.com/gpu.present"


async def serve(kubeconfig: Path) -> None:
    server = ApiServer()
    _fill(server.store)
    gc.freeze()  # else the clients wait now and then, while Python looks for garbage among all of it
    url = await server.start()
    write_kubeconfig(kubeconfig, url, CONTEXT)
    await asyncio.Event().wait()


def _fill(store: Store) -> None:
    """Past the API, which would take minutes. The parts that are alike are shared, to spare memory."""
    spaces = [namespace(number) for number in range(NAMESPACES)]
    for name in [*spaces, "gameday"]:
        store.put((("", "namespaces"), "", name), _namespace(name))
    for number in range(NODES):
        store.put((("", "nodes"), "", f"gpu-{number:04}"), _node(number))
    for space in spaces:  # without them the garbage collector takes the pods away
        for app in range(APPS):
            owner = _replica_set(f"server-{app}", space)
            store.put((("apps", "replicasets"), space, owner["metadata"]["name"]), owner)
    for number in range(PODS):
        pod = _pod(number, spaces[number % NAMESPACES])
        store.put((("", "pods"), pod["metadata"]["namespace"], pod["metadata"]["name"]), pod)


def namespace(number: int) -> str:
    return f"team-{number}"


def _namespace(name: str) -> Object:
    meta = {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": CREATED}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta, "status": {"phase": "Active"}}


def _condition(kind: str, status: str, **more: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "lastTransitionTime": CREATED, **more}


def _managed(manager: str, fields: dict[str, Any], subresource: str = "") -> dict[str, Any]:
    entry: dict[str, Any] = {"manager": manager, "operation": "Update", "apiVersion": "v1", "time": CREATED}
    entry |= {"fieldsType": "FieldsV1", "fieldsV1": fields}
    return entry | ({"subresource": subresource} if subresource else {})


def _owned(*names: str, inner: dict[str, Any] | None = None) -> dict[str, Any]:
    return {f"f:{name}": inner or {} for name in names}


_RESOURCES = {"cpu": "128", "memory": "2113450596Ki", "pods": "110", "ephemeral-storage": "1843119864Ki"}
_RESOURCES |= {
    "hugepages-1Gi": "0",
    "hugepages-2Mi": "0",
    "nvidia.com/gpu": "8",
    "openshift.io/mlnx_rdma": "8",
}
_PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")
_NODE_STATUS = {
    "capacity": _RESOURCES,
    "allocatable": _RESOURCES,
    "conditions": [
        *(
            _condition(p, "False", lastHeartbeatTime=CREATED, reason=f"No{p}", message=f"kubelet has no {p}")
            for p in _PRESSURES
        ),
        _condition(
            "Ready",
            "True",
            lastHeartbeatTime=CREATED,
            reason="KubeletReady",
            message="kubelet is posting ready status",
        ),
    ],
    "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
    "images": [
        {
            "names": [
                f"registry.example.com/team/image-{i}@sha256:{i:064x}",
                f"registry.example.com/team/image-{i}:1",
            ],
            "sizeBytes": 900_000_000 + i,
        }
        for i in range(30)
    ],
    "nodeInfo": {
        "architecture": "amd64",
        "containerRuntimeVersion": "containerd://2.1.4",
        "kernelVersion": "6.8.0-1030-generic",
        "kubeProxyVersion": "",
        "kubeletVersion": "v1.36.3",
        "operatingSystem": "linux",
        "osImage": "Ubuntu 24.04.3 LTS",
        "bootID": "b",
        "machineID": "m",
        "systemUUID": "s",
    },
}
_NODE_MANAGED = [
    _managed("kubelet", {"f:metadata": {"f:labels": _owned("kubernetes.io/arch", "kubernetes.io/hostname")}}),
    _managed("kubelet", {"f:status": {"f:conditions": _owned(*_PRESSURES), "f:images": {}}}, "status"),
]


def _node(number: int) -> Object:
    name = f"gpu-{number:04}"
    labels = {
        LABEL: "true",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": f"zone-{'abc'[number % 3]}",
        "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
        "nvidia.com/gpu.count": "8",
    }
    addresses = [
        {"type": "InternalIP", "address": f"198.18.{number // 250}.{number % 250 + 1}"},
        {"type": "Hostname", "address": name},
    ]
    meta = {"name": name, "uid": str(uuid.uuid4()), "creationTimestamp": CREATED, "labels": labels}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": meta | {"managedFields": _NODE_MANAGED},
        "spec": {"podCIDR": f"10.{number // 250}.{number % 250}.0/24", "providerID": f"metal://{name}"},
        "status": _NODE_STATUS | {"addresses": addresses},
    }


_PROBE = {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"}, "periodSeconds": 10}
_TOKEN = {"name": "kube-api-access", "readOnly": True, "mountPath": "/var/run/secrets/token"}
_CONTAINER = {
    "name": "main",
    "image": "registry.example.com/team/server:1.4.2",
    "command": ["/server"],
    "args": ["--port=8080", "--model=/models/llm"],
    "env": [{"name": f"SETTING_{i}", "value": f"value-{i}"} for i in range(10)],
    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
    "resources": {"limits": {"nvidia.com/gpu": "1", "memory": "64Gi"}, "requests": {"nvidia.com/gpu": "1"}},
    "volumeMounts": [_TOKEN, {"name": "models", "mountPath": "/models"}],
    "readinessProbe": _PROBE,
    "livenessProbe": _PROBE,
    "terminationMessagePath": "/dev/termination-log",
    "imagePullPolicy": "IfNotPresent",
}
_TOLERATIONS = [
    {
        "key": f"node.kubernetes.io/{key}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 300,
    }
    for key in ("not-ready", "unreachable")
]
_POD_SPEC = {
    "containers": [_CONTAINER],
    "restartPolicy": "Always",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "serviceAccountName": "default",
    "securityContext": {},
    "schedulerName": "default-scheduler",
    "tolerations": _TOLERATIONS,
    "priority": 0,
    "enableServiceLinks": True,
    "volumes": [
        {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
        {"name": "kube-api-access", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
    ],
}
_STATES = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
_POD_MANAGED = [
    _managed(
        "kube-controller-manager",
        {
            "f:metadata": {"f:generateName": {}, "f:labels": _owned("app", "pod-template-hash")},
            "f:spec": {
                'k:{"name":"main"}': _owned(*_CONTAINER),
                **_owned(*(k for k in _POD_SPEC if k != "containers")),
            },
        },
    ),
    _managed(
        "kubelet",
        {
            "f:status": {
                "f:conditions": {
                    json.dumps({"type": s}): _owned("lastTransitionTime", "status", "type") for s in _STATES
                },
                **_owned("containerStatuses", "hostIP", "phase", "podIP", "startTime"),
            }
        },
        "status",
    ),
]


def _uid_of(app: str, space: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{space}/{app}"))


def _replica_set(app: str, space: str) -> Object:
    labels = {"app": app, "pod-template-hash": "6d5f7c9b8"}
    meta = {"name": f"{app}-6d5f7c9b8", "namespace": space, "uid": _uid_of(app, space)}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": meta | {"creationTimestamp": CREATED, "labels": labels},
        "spec": {"replicas": PODS // NAMESPACES // APPS, "selector": {"matchLabels": labels}},
    }


def _pod(number: int, space: str) -> Object:
    app = f"server-{number // NAMESPACES % APPS}"
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{app}-6d5f7c9b8", "controller": True}
    owner |= {"uid": _uid_of(app, space), "blockOwnerDeletion": True}
    meta = {
        "name": f"{app}-6d5f7c9b8-{number:05}",
        "generateName": f"{app}-6d5f7c9b8-",
        "namespace": space,
        "uid": str(uuid.uuid4()),
        "creationTimestamp": CREATED,
        "labels": {"app": app, "pod-template-hash": "6d5f7c9b8"},
        "ownerReferences": [owner],
        "managedFields": _POD_MANAGED,
    }
    address = f"10.{number // 62_500}.{number // 250 % 250}.{number % 250 + 1}"
    started = {
        "name": "main",
        "ready": True,
        "restartCount": 0,
        "started": True,
        "image": _CONTAINER["image"],
        "imageID": "registry.example.com/team/server@sha256:" + "5" * 64,
        "containerID": f"containerd://{number:064x}",
        "state": {"running": {"startedAt": CREATED}},
        "lastState": {},
    }
    status = {
        "phase": "Running",
        "qosClass": "Burstable",
        "startTime": CREATED,
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": "198.18.0.1",
        "conditions": [_condition(s, "True", lastProbeTime=CREATED) for s in _STATES],
        "containerStatuses": [started],
    }
    spec = _POD_SPEC | {"nodeName": f"gpu-{number % NODES:04}"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status}


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
