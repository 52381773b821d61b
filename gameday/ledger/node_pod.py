"""The objects that a program on a node is made of: its account with two permissions, its files, its pod."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gameday import node
from gameday.ledger.operations import RUN_LABEL
from gameday.node.task import Task
from gameday.platform.objects import Object, Ref

CONTAINER = "program"
FOLDER = "/opt/gameday"  # in the container
PACKAGE = "gameday.node"
GRACE = 60  # seconds that the kubelet leaves the program to revert, once told to stop


@dataclass(frozen=True)
class Settings:
    """How its pods run, as in `spec.target.nodeProgram`."""

    image: str
    pull_policy: str = "IfNotPresent"
    tolerations: tuple[Object, ...] = ({"operator": "Exists"},)
    pull_secrets: tuple[str, ...] = ()

    def to_data(self) -> dict[str, Any]:
        return {
            "image": self.image,
            "pullPolicy": self.pull_policy,
            "tolerations": list(self.tolerations),
            "pullSecrets": list(self.pull_secrets),
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Settings:
        return cls(data["image"], data["pullPolicy"], tuple(data["tolerations"]), tuple(data["pullSecrets"]))


@cache
def program_files() -> dict[str, str]:
    """The program's modules by their file names."""
    return {f.name: f.read_text() for f in Path(node.__file__).parent.glob("*.py")}


def helpers(pod: Ref, task: Task, run: str) -> list[Object]:
    """What must be there before the pod: all of it under the pod's name, so that none serves another one.

    The account may get the run's Lease and this very pod, and nothing else.
    """
    space = pod.namespace or ""
    lease_space, lease = task.lease
    lease_rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [lease]}
    pod_rule = {"apiGroups": [""], "resources": ["pods"], "resourceNames": [pod.name]}
    rules: dict[str, list[Object]] = {space: [pod_rule | {"verbs": ["get"]}]}
    rules.setdefault(lease_space, []).append(lease_rule | {"verbs": ["get"]})
    made = [_object("v1", "ServiceAccount", pod.name, space, run)]
    made.append(
        _object("v1", "ConfigMap", pod.name, space, run)
        | {"data": {**program_files(), "task.json": json.dumps(task.to_data(), indent=1)}}
    )
    rbac = "rbac.authorization.k8s.io"
    for namespace, allowed in rules.items():
        made.append(_object(f"{rbac}/v1", "Role", pod.name, namespace, run) | {"rules": allowed})
        made.append(
            _object(f"{rbac}/v1", "RoleBinding", pod.name, namespace, run)
            | {
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": pod.name},
                "subjects": [{"kind": "ServiceAccount", "name": pod.name, "namespace": space}],
            }
        )
    return made


def pod(ref: Ref, task: Task, run: str, where: str, settings: Settings, mode: str) -> Object:
    """The pod: privileged, with the node's network and processes, whose files are those named after the task.

    It is started again when it ends badly: the program then finds what it had changed, and reverts.
    """
    _, own = task.pod
    command = ["python3", "-m", PACKAGE, f"{FOLDER}/task.json", "--mode", mode]
    paths = [{"key": f, "path": f"{PACKAGE.replace('.', '/')}/{f}"} for f in sorted(program_files())]
    items = [*paths, {"key": "task.json", "path": "task.json"}]
    container = {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": command,
        "env": [
            {"name": "PYTHONPATH", "value": FOLDER},
            {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        "securityContext": {"privileged": True, "runAsUser": 0},
        "volumeMounts": [{"name": "program", "mountPath": FOLDER, "readOnly": True}],
    }
    meta = _object("v1", "Pod", ref.name, ref.namespace or "", run)
    meta["metadata"]["annotations"] = {"gameday.dev/task": f"{mode}: {task.action} on {where}"}
    return meta | {
        "spec": {
            "nodeName": where,
            "serviceAccountName": own,
            "hostNetwork": True,
            "hostPID": True,
            "restartPolicy": "OnFailure",
            "terminationGracePeriodSeconds": GRACE,
            "tolerations": list(settings.tolerations),
            "imagePullSecrets": [{"name": name} for name in settings.pull_secrets],
            "containers": [container],
            "volumes": [{"name": "program", "configMap": {"name": own, "items": items}}],
        }
    }


def _object(api_version: str, kind: str, name: str, namespace: str, run: str) -> Object:
    labels = {RUN_LABEL: run, "app.kubernetes.io/name": "gameday-node"}
    meta = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta}
