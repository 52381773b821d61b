"""The defaults that the API server fills in on creation, for the kinds whose readers rely on them."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]


def _pod_spec(spec: Json) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        container.setdefault("resources", {})
        container.setdefault("imagePullPolicy", "IfNotPresent")
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        for port in container.get("ports") or ():
            port.setdefault("protocol", "TCP")
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            _probe(container.get(probe))
        limits = container["resources"].get("limits")
        if limits:
            container["resources"]["requests"] = {**limits, **(container["resources"].get("requests") or {})}


def _probe(probe: Json | None) -> None:
    if not probe:
        return
    usual = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    for key, value in usual.items():
        probe.setdefault(key, value)
    if probe.get("httpGet"):
        probe["httpGet"].setdefault("path", "/")
        probe["httpGet"].setdefault("scheme", "HTTP")


def _pod(obj: Json) -> None:
    spec = obj["spec"]
    _pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("serviceAccountName", "default")
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    spec.setdefault("priority", 0)
    # what the DefaultTolerationSeconds admission plugin adds
    tolerations = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        tolerated = any(
            t.get("key") in (key, None, "") and t.get("effect") in ("NoExecute", None, "")
            for t in tolerations
        )
        if not tolerated:
            tolerations.append(
                {"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300}
            )
    status = obj.setdefault("status", {})
    status.setdefault("phase", "Pending")
    status.setdefault("qosClass", quality(spec))


def quality(spec: Json) -> str:
    """The quality-of-service class, from cpu and memory."""
    wanted: list[tuple[Json, Json]] = []
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        resources = container.get("resources") or {}
        wanted.append((resources.get("requests") or {}, resources.get("limits") or {}))
    named = ("cpu", "memory")
    if not any(n in r or n in lim for r, lim in wanted for n in named):
        return "BestEffort"
    same = all(n in lim and r.get(n, lim[n]) == lim[n] for r, lim in wanted for n in named)
    return "Guaranteed" if same else "Burstable"


def _template(obj: Json) -> None:
    template = obj["spec"].setdefault("template", {})
    template.setdefault("metadata", {})
    _pod_spec(template.setdefault("spec", {}))


def _deployment(obj: Json) -> None:
    spec = obj["spec"]
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    _template(obj)


def _replicas(obj: Json) -> None:
    obj["spec"].setdefault("replicas", 1)
    _template(obj)


def _stateful_set(obj: Json) -> None:
    obj["spec"].setdefault("podManagementPolicy", "OrderedReady")
    obj["spec"].setdefault("updateStrategy", {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    obj["spec"].setdefault("revisionHistoryLimit", 10)
    _replicas(obj)


def _daemon_set(obj: Json) -> None:
    rolling = {"maxUnavailable": 1, "maxSurge": 0}
    obj["spec"].setdefault("updateStrategy", {"type": "RollingUpdate", "rollingUpdate": rolling})
    obj["spec"].setdefault("revisionHistoryLimit", 10)
    _template(obj)


def _job(obj: Json) -> None:
    spec = obj["spec"]
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    if not spec.get("manualSelector"):
        uid = obj["metadata"]["uid"]
        names = {"batch.kubernetes.io/controller-uid": uid, "controller-uid": uid}
        spec.setdefault("selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
        template = spec.setdefault("template", {}).setdefault("metadata", {})
        name = obj["metadata"]["name"]
        template["labels"] = {
            **(template.get("labels") or {}),
            **names,
            "batch.kubernetes.io/job-name": name,
            "job-name": name,
        }
    _template(obj)


def _cron_job(obj: Json) -> None:
    obj["spec"].setdefault("concurrencyPolicy", "Allow")
    obj["spec"].setdefault("suspend", False)
    obj["spec"].setdefault("successfulJobsHistoryLimit", 3)
    obj["spec"].setdefault("failedJobsHistoryLimit", 1)


def _namespace(obj: Json) -> None:
    obj["spec"].setdefault("finalizers", ["kubernetes"])
    obj["status"] = {"phase": "Active"}
    labels = obj["metadata"].setdefault("labels", {})
    labels["kubernetes.io/metadata.name"] = obj["metadata"]["name"]


def _service(obj: Json) -> None:
    spec = obj["spec"]
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["type"] != "ExternalName":
        spec.setdefault("clusterIP", f"10.96.{random.randrange(256)}.{random.randrange(1, 255)}")
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port.get("port"))
    obj.setdefault("status", {"loadBalancer": {}})


def _secret(obj: Json) -> None:
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None)
    if plain:
        data = obj.setdefault("data", {})
        data.update({k: base64.b64encode(v.encode()).decode() for k, v in plain.items()})


_BY_KIND: dict[tuple[str, str], Callable[[Json], None]] = {
    ("", "pods"): _pod,
    ("", "namespaces"): _namespace,
    ("", "services"): _service,
    ("", "secrets"): _secret,
    ("", "replicationcontrollers"): _replicas,
    ("apps", "deployments"): _deployment,
    ("apps", "replicasets"): _replicas,
    ("apps", "statefulsets"): _stateful_set,
    ("apps", "daemonsets"): _daemon_set,
    ("batch", "jobs"): _job,
    ("batch", "cronjobs"): _cron_job,
}
_NO_SPEC = {
    "configmaps",
    "secrets",
    "events",
    "endpoints",
    "endpointslices",
    "serviceaccounts",
    "controllerrevisions",
    "roles",
    "rolebindings",
    "clusterroles",
    "clusterrolebindings",
    "priorityclasses",
    "storageclasses",
}


def fill_in(collection: tuple[str, str], obj: Json) -> None:
    """Set what a new or changed built-in object left out, in place."""
    if collection[1] in _NO_SPEC and collection[1] != "secrets":
        return
    if collection[1] not in _NO_SPEC:
        obj["spec"] = obj.get("spec") or {}
    rule = _BY_KIND.get(collection)
    if rule:
        rule(obj)
