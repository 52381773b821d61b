"""Server-side printing: the columns and cells that kubectl get shows, for the kinds people look at.

A custom resource is printed by its additionalPrinterColumns; every other kind by its name and age.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from gameday.sandbox.apiserver.resources import Resource

Json = dict[str, Any]
Cells = Callable[[Json], list[Any]]


def table(resource: Resource, objects: list[Json]) -> tuple[list[Json], list[list[Any]]]:
    """Column definitions, and the cells of each object."""
    if resource.custom is not None and resource.custom.get("additionalPrinterColumns"):
        names, cells = _custom(resource.custom["additionalPrinterColumns"])
    else:
        headers, cells = _KINDS.get(resource.plural, ("", _nothing))
        names = [h for h in headers.split(",") if h]
        if not {"Age", "Created At", "Last Seen"} & set(names):
            at = next((i for i, h in enumerate(names) if h.endswith("+")), len(names))
            names.insert(at, "Age")
            cells = _with_age(cells, at)
    if resource.plural == "events":  # the one kind whose name comes last
        return [_column(n) for n in names], [cells(o) for o in objects]
    rows = [[o["metadata"]["name"], *cells(o)] for o in objects]
    return [_column(n) for n in ["Name", *names]], rows


def _column(name: str) -> Json:
    """A name that ends in + is shown by -o wide only."""
    form = "name" if name == "Name" else ""
    wide = int(name.endswith("+"))
    return {
        "name": name.rstrip("+"),
        "type": "string",
        "format": form,
        "description": "",
        "priority": wide,
    }


def _with_age(cells: Cells, at: int) -> Cells:
    def with_age(obj: Json) -> list[Any]:
        row = cells(obj)
        return [*row[:at], since(obj["metadata"].get("creationTimestamp")), *row[at:]]

    return with_age


def _nothing(_: Json) -> list[Any]:
    return []


def since(moment: str | None) -> str:
    """The time passed, as kubectl words it: 5s, 3m20s, 2h, 4d."""
    if not moment:
        return "<unknown>"
    passed = int((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())
    seconds, minutes, hours, days = passed, passed // 60, passed // 3600, passed // 86400
    if seconds < 120:
        return f"{max(seconds, 0)}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    return f"{days}d"


# -- custom resources ----------------------------------------------------------------------------------


def _custom(columns: list[Json]) -> tuple[list[str], Cells]:
    names = [c["name"] + ("+" if c.get("priority") else "") for c in columns]
    return names, lambda obj: [_date(c, _at(obj, c["jsonPath"])) for c in columns]


def _date(column: Json, value: Any) -> Any:
    return since(value) if column["type"] == "date" and value else value


def _at(value: Any, path: str) -> Any:
    """A simple JSONPath: names, quoted names and indexes."""
    for step in path.replace("[", ".[").strip(".").split("."):
        step = step.strip("[]'\"")
        if isinstance(value, list):
            value = value[int(step)] if step.isdigit() and int(step) < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


# -- built-in kinds --------------------------------------------------------------------------------------


def _status(obj: Json) -> Json:
    status: Json = obj.get("status") or {}
    return status


def _pod(pod: Json) -> list[Any]:
    status, spec, metadata = _status(pod), pod["spec"], pod["metadata"]
    containers = status.get("containerStatuses") or []
    ready = sum(bool(c.get("ready")) for c in containers)
    restarts = sum(int(c.get("restartCount", 0)) for c in containers)
    readiness = f"{ready}/{len(spec.get('containers') or ())}"
    node = spec.get("nodeName") or "<none>"
    state = "Terminating" if "deletionTimestamp" in metadata else _pod_state(status, containers)
    return [
        readiness,
        state,
        restarts,
        since(metadata.get("creationTimestamp")),
        status.get("podIP") or "<none>",
        node,
        status.get("nominatedNodeName") or "<none>",
        "<none>",
    ]


def _pod_state(status: Json, containers: list[Json]) -> str:
    for container in containers:
        state = container.get("state") or {}
        reason = (state.get("waiting") or state.get("terminated") or {}).get("reason")
        if reason:
            return str(reason)
    return str(status.get("reason") or status.get("phase") or "Unknown")


def _node(node: Json) -> list[Any]:
    labels, info = node["metadata"].get("labels") or {}, _status(node).get("nodeInfo") or {}
    ready = next((c["status"] for c in _status(node).get("conditions") or () if c["type"] == "Ready"), "")
    state = {"True": "Ready", "False": "NotReady"}.get(ready, "NotReady" if ready else "Unknown")
    if node["spec"].get("unschedulable"):
        state += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    roles = ",".join(sorted(k[len(prefix) :] for k in labels if k.startswith(prefix))) or "<none>"
    addresses = {a["type"]: a["address"] for a in _status(node).get("addresses") or ()}
    return [
        state,
        roles,
        since(node["metadata"].get("creationTimestamp")),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", "<none>"),
        addresses.get("ExternalIP", "<none>"),
        info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


def _template(obj: Json) -> list[Any]:
    """Containers, images and selector, for -o wide."""
    containers = obj["spec"].get("template", {}).get("spec", {}).get("containers") or []
    labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
    selector = ",".join(f"{k}={v}" for k, v in sorted(labels.items())) or "<none>"
    return [
        ",".join(c["name"] for c in containers),
        ",".join(c.get("image", "") for c in containers),
        selector,
    ]


def _counts(obj: Json, *names: str) -> list[Any]:
    return [_status(obj).get(n, 0) for n in names]


def _deployment(obj: Json) -> list[Any]:
    ready = f"{_status(obj).get('readyReplicas', 0)}/{obj['spec'].get('replicas', 0)}"
    return [ready, *_counts(obj, "updatedReplicas", "availableReplicas"), *_template(obj)]


def _replica_set(obj: Json) -> list[Any]:
    return [obj["spec"].get("replicas", 0), *_counts(obj, "replicas", "readyReplicas"), *_template(obj)]


def _stateful_set(obj: Json) -> list[Any]:
    ready = f"{_status(obj).get('readyReplicas', 0)}/{obj['spec'].get('replicas', 0)}"
    return [ready, *_template(obj)[:2]]


def _daemon_set(obj: Json) -> list[Any]:
    names = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    chosen = obj["spec"].get("template", {}).get("spec", {}).get("nodeSelector") or {}
    selector = ",".join(f"{k}={v}" for k, v in sorted(chosen.items())) or "<none>"
    return [*_counts(obj, *names), selector, *_template(obj)]


def _job(obj: Json) -> list[Any]:
    conditions = {c["type"] for c in _status(obj).get("conditions") or () if c["status"] == "True"}
    state = next((s for s in ("Complete", "Failed", "Suspended") if s in conditions), "Running")
    wanted = obj["spec"].get("completions", obj["spec"].get("parallelism", 1))
    start, end = _status(obj).get("startTime"), _status(obj).get("completionTime")
    seconds = (
        int((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds())
        if start and end
        else 0
    )
    duration = f"{seconds}s" if end else (since(start) if start else "")
    return [state, f"{_status(obj).get('succeeded', 0)}/{wanted}", duration, *_template(obj)]


def _budget(obj: Json) -> list[Any]:
    least, most = obj["spec"].get("minAvailable", "N/A"), obj["spec"].get("maxUnavailable", "N/A")
    return [str(least), str(most), *_counts(obj, "disruptionsAllowed")]


def _event(event: Json) -> list[Any]:
    about = event.get("involvedObject") or {}
    seen = event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp")
    name = f"{about.get('kind', '').lower()}/{about.get('name', '')}"
    source = (event.get("source") or {}).get("component") or event.get("reportingComponent", "")
    first = since(event.get("firstTimestamp") or event.get("eventTime"))
    message = (event.get("message") or "").strip()
    last = [message, first, event.get("count") or 1, event["metadata"]["name"]]
    what = [event.get("type", ""), event.get("reason", ""), name]
    return [since(seen), *what, about.get("fieldPath", ""), source, *last]


def _service(obj: Json) -> list[Any]:
    spec = obj["spec"]
    ports = ",".join(f"{p['port']}/{p.get('protocol', 'TCP')}" for p in spec.get("ports") or ()) or "<none>"
    selector = ",".join(f"{k}={v}" for k, v in sorted((spec.get("selector") or {}).items())) or "<none>"
    return [spec.get("type", ""), spec.get("clusterIP", "<none>"), "<none>", ports, selector]


def _lease(obj: Json) -> list[Any]:
    return [(obj.get("spec") or {}).get("holderIdentity", "")]


def _cron_job(obj: Json) -> list[Any]:
    spec, status = obj["spec"], _status(obj)
    last = status.get("lastScheduleTime")
    zone = spec.get("timeZone") or "<none>"
    active = len(status.get("active") or ())
    return [
        spec.get("schedule", ""),
        zone,
        spec.get("suspend", False),
        active,
        since(last) if last else "<none>",
    ]


def _created(obj: Json) -> list[Any]:
    return [obj["metadata"]["creationTimestamp"]]


def _binding(obj: Json) -> list[Any]:
    role = obj.get("roleRef") or {}
    return [f"{role.get('kind', '')}/{role.get('name', '')}"]


_WIDE = "Containers+,Images+,Selector+"
_KINDS: dict[str, tuple[str, Cells]] = {
    "pods": ("Ready,Status,Restarts,Age,IP+,Node+,Nominated Node+,Readiness Gates+", _pod),
    "nodes": (
        "Status,Roles,Age,Version,Internal-IP+,External-IP+,OS-Image+,Kernel-Version+,Container-Runtime+",
        _node,
    ),
    "namespaces": ("Status", lambda o: [_status(o).get("phase", "")]),
    "deployments": ("Ready,Up-to-date,Available," + _WIDE, _deployment),
    "replicasets": ("Desired,Current,Ready," + _WIDE, _replica_set),
    "statefulsets": ("Ready,Containers+,Images+", _stateful_set),
    "daemonsets": ("Desired,Current,Ready,Up-to-date,Available,Node Selector," + _WIDE, _daemon_set),
    "jobs": ("Status,Completions,Duration," + _WIDE, _job),
    "poddisruptionbudgets": ("Min Available,Max Unavailable,Allowed Disruptions", _budget),
    "configmaps": ("Data", lambda o: [len(o.get("data") or {}) + len(o.get("binaryData") or {})]),
    "secrets": ("Type,Data", lambda o: [o.get("type", ""), len(o.get("data") or {})]),
    "services": ("Type,Cluster-IP,External-IP,Port(s),Selector+", _service),
    "events": ("Last Seen,Type,Reason,Object,Subobject+,Source+,Message,First Seen+,Count+,Name+", _event),
    "leases": ("Holder", _lease),
    "replicationcontrollers": ("Desired,Current,Ready," + _WIDE, _replica_set),
    "cronjobs": ("Schedule,Timezone,Suspend,Active,Last Schedule", _cron_job),
    "priorityclasses": ("Value,Global-Default", lambda o: [o.get("value", 0), o.get("globalDefault", False)]),
    "roles": ("Created At", _created),
    "clusterroles": ("Created At", _created),
    "rolebindings": ("Role", _binding),
    "clusterrolebindings": ("Role", _binding),
    "customresourcedefinitions": ("Created At", _created),
}
