"""The objects that a program on a node is made of: its account with two permissions, its files, its pod."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from gameday import node
from gameday.ledger.operations import RUN_LABEL
from gameday.node.task import Task
from gameday.platform.objects import Object, Ref, labels_of

CONTAINER = "program"
FOLDER = "/opt/gameday"  # in the container
PACKAGE = "gameday.node"
REVERTING = 600  # seconds that a program may try to revert, over all its starts
AGAIN = "-revert"  # after the name of a pod: the second program, which reverts what the first one left
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


def files_name(pod: Ref, task: Task) -> str:
    """The ConfigMap's name, which says what is in it: nobody's other version of it is taken for ours."""
    return f"{pod.name}-{sha256(json.dumps(_files(task)).encode()).hexdigest()[:12]}"


def _files(task: Task) -> dict[str, str]:
    return {**program_files(), "task.json": json.dumps(task.to_data(), indent=1)}


def helpers(pod: Ref, task: Task, run: str, files: str) -> list[Object]:
    """Objects that come before the pod: all under the pod's name, so that none serves another one.

    `files` is the ConfigMap's name; nobody can edit it once it is there.
    The account may get the run's Lease and this very pod, and nothing else.
    """
    space = pod.namespace or ""
    lease_space, lease = task.lease
    lease_rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [lease]}
    pod_rule = {"apiGroups": [""], "resources": ["pods"], "resourceNames": [pod.name]}
    rules: dict[str, list[Object]] = {space: [pod_rule | {"verbs": ["get"]}]}
    rules.setdefault(lease_space, []).append(lease_rule | {"verbs": ["get"]})
    made = [_object("v1", "ServiceAccount", pod.name, space, run)]
    made.append(_object("v1", "ConfigMap", files, space, run) | {"immutable": True, "data": _files(task)})
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


def pod(ref: Ref, task: Task, run: str, where: str, settings: Settings, mode: str, files: str) -> Object:
    """The pod: privileged, with the node's network and processes, whose files are those named after the task.

    It is started again when it ends badly: the program then finds what it had changed, and reverts. Its time
    is limited from when the kubelet takes it, so that one whose image comes late never begins.
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
            "activeDeadlineSeconds": math.ceil(task.begin_within + task.seconds + REVERTING),
            "terminationGracePeriodSeconds": GRACE,
            "tolerations": list(settings.tolerations),
            "imagePullSecrets": [{"name": name} for name in settings.pull_secrets],
            "containers": [container],
            "volumes": [{"name": "program", "configMap": {"name": files, "items": items}}],
        }
    }


def run_of(pod: Object, namespace: str) -> str:
    """The run whose program on a node a pod is, "" for every other pod.

    Anybody may put the label on a pod of their own. A program is in the namespace of such programs, and has
    the account that was made for it alone, with its own name.
    """
    meta, account = pod["metadata"], pod["spec"].get("serviceAccountName")
    if meta["namespace"] != namespace or meta["name"] not in (account, f"{account}{AGAIN}"):
        return ""
    return str(labels_of(pod).get(RUN_LABEL) or "")


def _object(api_version: str, kind: str, name: str, namespace: str, run: str) -> Object:
    labels = {RUN_LABEL: run, "app.kubernetes.io/name": "gameday-node"}
    meta = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta}
