"""The world as it is: every object of the API, and the state of the simulated fleet by its own switches.

Shares nothing with the ledger: its own HTTP, its own idea of what belongs together, and every kind that the
API server serves. What is left out is in the lists below, each with its reason: nothing else is.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import yaml

Object = dict[str, Any]
Snapshot = dict[str, Any]  # what identifies a thing -> what must not change of it

# Kinds that Kubernetes or a controller makes anew by itself.
IGNORED_KINDS = {
    "events": "what was said; they come and go",
    "endpoints": "follow from pods",
    "endpointslices": "follow from pods",
    "componentstatuses": "are not stored",
    "controllerrevisions": "history that controllers keep of templates",
    "apiservices": "of which the API server itself writes the health",
    "flowschemas": "whose status the API server writes",
    "prioritylevelconfigurations": "whose status the API server writes",
    "podhttpchaos": "Chaos Mesh's bookkeeping, one per pod that was ever hit; stays upstream too",
    "podiochaos": "the same",
    "podnetworkchaos": "the same",
    "machines": "a deleted Machine is replaced under another name: counted by their sets",
}
# Namespaces whose objects are renewed all the time.
IGNORED_NAMESPACES = {"kube-node-lease": "heartbeats of kubelets"}
IGNORED_NAMES = {
    "Lease apiserver-": "an API server's own, made anew when it starts",
    "ConfigMap gameday-restored": "who restored which run: stays on purpose, as docs/safety.md says",
}
IGNORED_ANNOTATIONS = {
    "deployment.kubernetes.io/revision": "counts on, also when an old template comes back",
    "deployment.kubernetes.io/revision-history": "the same",
    "deployment.kubernetes.io/desired-replicas": "of a ReplicaSet, as its Deployment's",
    "deployment.kubernetes.io/max-replicas": "the same",
    "deprecated.daemonset.template.generation": "the same",
    "rollout.argoproj.io/revision": "the same, of Argo Rollouts",
}
IGNORED_METADATA = {
    "resourceVersion": "counts writes",
    "managedFields": "history of writers",
    "generation": "counts changes",
}
# What of a status is compared: the rest is the work of controllers, and follows.
STATUS = {
    "Node": ("conditions", "allocatable", "capacity"),
    "SriovNetworkNodeState": ("interfaces", "syncStatus"),
    "Deployment": ("readyReplicas",),
    "DaemonSet": ("numberReady",),
    "StatefulSet": ("readyReplicas",),
    "Application": ("sync", "health"),
    "Rollout": ("abort", "pauseConditions", "phase", "readyReplicas"),
    "ResourceQuota": ("hard",),
    "PodDisruptionBudget": ("disruptionsAllowed", "expectedPods"),
    "Pod": ("phase", "ready"),
}
# A node that its MachineSet replaces is another one of the same make.
REPLACED = "cluster.x-k8s.io/owner-name"
NODES_OWN = {"name", "uid", "creationTimestamp", "providerID", "kubernetes.io/hostname", "machine", "podCIDR"}
NODES_OWN |= {"podCIDRs", "cluster.x-k8s.io/machine"}
# Of a pod, what its own life gives it and no template.
PODS_OWN = ("nodeName", "hostname")
PODS_LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")  # those of its node
# When something was last so is not how it is.
TIMES = {
    "lastTransitionTime",
    "startTime",
    "lastHeartbeatTime",
    "lastUpdateTime",
    "lastProbeTime",
    "observedGeneration",
}
PATIENCE = 60.0  # seconds
METRICS = (  # of the fleet's pages: what a fault sets, and not what load moves
    "DCGM_FI_DEV_XID_ERRORS",
    "DCGM_FI_DEV_POWER_MGMT_LIMIT",
    "node_network_up",
    "node_network_mtu_bytes",
    "node_network_speed_bytes",
    "node_infiniband_state_id",
    "node_infiniband_physical_state_id",
)


@dataclass
class World:
    """A platform, read from outside. `take` may be called any number of times."""

    kubeconfig: Path
    control_url: str = ""
    slurm_url: str = ""
    slurm_token: str = ""
    _kinds: list[tuple[str, str, str]] = field(default_factory=list)  # path, plural, kind
    _local: threading.local = field(default_factory=threading.local)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(6))

    def __post_init__(self) -> None:
        config = yaml.safe_load(self.kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self._server = urlsplit(cluster["server"])
        user = config["users"][0]["user"] if config.get("users") else {}
        self._headers = {"Accept": "application/json"}
        if "token" in user:
            self._headers["Authorization"] = f"Bearer {user['token']}"
        self._tls = None
        if self._server.scheme == "https":
            authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
            self._tls = ssl.create_default_context(cadata=authority)

    # -- Kubernetes ---------------------------------------------------------------------------------

    def get(self, path: str) -> Object:
        """An answer's JSON; {} where there is none. Raises OSError for every other failure."""
        return self.ask("GET", path)

    def ask(self, method: str, path: str, body: Any = None, content: str = "application/json") -> Object:
        """One request. 404 and 405 are {}. A server that is away or busy is waited for."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                code, text = self._request(method, path, body, content)
            except (http.client.HTTPException, OSError):
                self._local.connection = None
                if time.monotonic() > deadline:
                    raise
                code, text = 503, b""
            if code in (404, 405):
                return {}
            if code < 400:
                found: Object = json.loads(text or b"{}")
                return found
            if (code not in (409, 429) and code < 500) or time.monotonic() > deadline:
                raise OSError(f"{method} {path}: {code} {text[:500].decode(errors='replace')}")
            time.sleep(0.2)

    def _request(self, method: str, path: str, body: Any, content: str) -> tuple[int, bytes]:
        connection = self._connection()
        headers = {**self._headers, "Content-Type": content}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def _connection(self) -> http.client.HTTPConnection:
        made: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if made is None:
            host, port = self._server.hostname or "127.0.0.1", self._server.port
            if self._tls is not None:
                made = http.client.HTTPSConnection(host, port, timeout=30, context=self._tls)
            else:
                made = http.client.HTTPConnection(host, port, timeout=30)
            self._local.connection = made
        return made

    def kinds(self) -> list[tuple[str, str, str]]:
        """Everything that can be listed: (path of the collection, plural, kind); a version of each group."""
        if not self._kinds:
            roots = ["/api/v1"]
            for group in self.get("/apis")["groups"]:
                roots.append("/apis/" + group["preferredVersion"]["groupVersion"])
            for root in roots:
                for entry in self.get(root).get("resources") or ():
                    listed = "list" in entry["verbs"] and "/" not in entry["name"]
                    if listed and entry["name"] not in IGNORED_KINDS:
                        self._kinds.append((f"{root}/{entry['name']}", entry["name"], entry["kind"]))
        return self._kinds

    def objects(self) -> Iterator[Object]:
        """Every object, as the API gives it, `kind` included."""
        kinds = self.kinds()
        for (path, _, kind), answer in zip(kinds, self._pool.map(self._list, kinds), strict=True):
            group = path.removeprefix("/apis/").removeprefix("/api/").rpartition("/")[0]
            for obj in answer:
                meta = obj["metadata"]
                named = f"{kind} {meta['name']}".startswith(tuple(IGNORED_NAMES))
                if meta.get("namespace") not in IGNORED_NAMESPACES and not named:
                    yield {"apiVersion": group, "kind": kind, **obj}

    def _list(self, kind: tuple[str, str, str]) -> list[Object]:
        return list(self.get(kind[0]).get("items") or ())

    # -- the fleet ----------------------------------------------------------------------------------

    def _url(self, url: str, headers: dict[str, str] | None = None) -> bytes:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=20) as answer:
            body: bytes = answer.read()
            return body

    def fleet(self) -> Snapshot:
        """Links, GPUs, GPUd and Slurm: what they say of themselves."""
        found: Snapshot = {}
        if self.control_url:
            base = self.control_url.rsplit("/", 1)[0]
            for line in self._url(f"{base}/metrics").decode().splitlines():
                name, _, rest = line.partition("{")
                if name in METRICS:
                    labels, _, value = rest.rpartition("} ")
                    stable = [
                        pair for pair in labels.split(",") if not pair.startswith(("namespace=", "pod="))
                    ]
                    found[f"metric {name} {','.join(stable)}"] = value
            for node in self.get("/api/v1/nodes")["items"]:
                name = node["metadata"]["name"]
                if name.startswith("gpu-"):
                    states = json.loads(self._url(f"{base}/gpud/{name}/v1/states"))
                    found[f"GPUd {name}"] = {s["component"]: s["states"][0]["health"] for s in states}
        if self.slurm_url:
            headers = {"X-SLURM-USER-TOKEN": self.slurm_token, "X-SLURM-USER-NAME": "root"}
            for what, keys in (("nodes", ("state", "reason")), ("partitions", ("state", "partition"))):
                answer = json.loads(self._url(f"{self.slurm_url}/slurm/v0.0.44/{what}/", headers))
                for each in answer[what]:
                    found[f"Slurm {what} {each['name']}"] = _slurm(each, keys)
        return found

    def take(self) -> Snapshot:
        """All that must not change."""
        found = self.fleet()
        several: dict[str, list[str]] = {}
        for obj in self.objects():
            name, group = identity(obj)
            if group:
                several.setdefault(name, []).append(json.dumps(lasting(obj), sort_keys=True))
            else:
                found[name] = lasting(obj)
        found |= {name: [json.loads(text) for text in sorted(texts)] for name, texts in several.items()}
        return {name: value for name, value in found.items() if value is not None}


def _slurm(each: Object, keys: tuple[str, ...]) -> Object:
    """Slurm's idea of a node or a partition; whether jobs run on a node is the scheduler's business."""
    kept = {key: each.get(key) for key in keys}
    state = each.get("state")
    if isinstance(state, list):
        kept["state"] = sorted({*state} - {"IDLE", "ALLOCATED", "MIXED", "COMPLETING"})
    return kept


def identity(obj: Object) -> tuple[str, bool]:
    """A name that outlives a controller's replacements, and whether several things share it."""
    meta = obj["metadata"]
    kind, namespace = obj["kind"], meta.get("namespace", "")
    owner = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
    if machine_set := (meta.get("annotations") or {}).get(REPLACED):
        return f"{kind} of MachineSet {machine_set}", True
    if owner and kind in ("Pod", "Job"):
        return f"{kind} {namespace}/of {owner['kind']} {_stem(owner)}", True
    return f"{kind} {namespace + '/' if namespace else ''}{meta['name']} ({obj['apiVersion']})", False


def _stem(owner: Object) -> str:
    """Jobs of a JobSet or a CronJob, and a gang's, are numbered anew."""
    return str(owner["name"])


def lasting(obj: Object) -> Object | None:
    """What of an object must not change; None for one that may come and go."""
    kind, meta = obj["kind"], obj["metadata"]
    spec = obj.get("spec") or {}
    if kind == "ReplicaSet" and not spec.get("replicas"):
        return None  # an old template, which its Deployment keeps for going back
    if kind == "Pod" and (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return None  # has ended, and waits to be collected
    body = {k: v for k, v in obj.items() if k not in ("status", "metadata", "apiVersion", "kind")}
    kept = {k: v for k, v in meta.items() if k not in IGNORED_METADATA}
    if notes := kept.pop("annotations", None):
        rest = {k: v for k, v in notes.items() if k not in IGNORED_ANNOTATIONS}
        if rest:
            kept["annotations"] = rest
    body |= {"metadata": kept} | _status(obj)
    if kind == "Pod":
        return _pod(body)
    if kind == "CustomResourceDefinition":
        body.pop("spec", None)  # large, and no fault's business
    if kind == "Lease":
        body.pop("spec", None)  # who renews it and when; whether it is there is what counts
    return _node(body) if kind == "Node" else body


def _status(obj: Object) -> Object:
    keys = STATUS.get(obj["kind"], ())
    status = {k: v for k, v in (obj.get("status") or {}).items() if k in keys}
    conditions: list[Object] = (obj.get("status") or {}).get("conditions") or []
    if "conditions" in status:
        status["conditions"] = {c["type"]: c["status"] for c in conditions}
    if obj["kind"] == "Pod":
        ready = next((c["status"] for c in conditions if c["type"] == "Ready"), "False")
        status["ready"] = ready
    return {"status": _without(status, TIMES)} if status else {}


def _pod(body: Object) -> Object:
    """As its template made it, wherever it runs: a pod that was replaced may be on another node."""
    owned = bool(body["metadata"].get("ownerReferences"))
    if not owned:
        return body
    meta = {k: body["metadata"].get(k) for k in ("deletionTimestamp", "finalizers")}
    meta["labels"] = {k: v for k, v in (body["metadata"].get("labels") or {}).items() if k not in PODS_LABELS}
    spec = {k: v for k, v in (body.get("spec") or {}).items() if k not in PODS_OWN}
    spec["volumes"] = [v for v in spec.get("volumes") or () if not v["name"].startswith("kube-api-access-")]
    spec["affinity"] = None  # a DaemonSet's names the node
    for container in spec.get("containers") or ():
        mounts = container.get("volumeMounts") or ()
        container["volumeMounts"] = [m for m in mounts if not m["name"].startswith("kube-api-access-")]
    return {"metadata": meta, "spec": spec, "status": body.get("status")}


def _node(body: Object) -> Object:
    for taint in body["spec"].get("taints") or ():
        if taint["key"].startswith("node.kubernetes.io/"):  # the control plane's own, by what it follows
            taint.pop("timeAdded", None)
    if REPLACED not in (body["metadata"].get("annotations") or {}):
        return body
    without: Object = _without(body, NODES_OWN)
    return without


def _without(value: Any, keys: set[str]) -> Any:
    if isinstance(value, dict):
        return {k: _without(v, keys) for k, v in value.items() if k not in keys}
    if isinstance(value, list):
        return [_without(v, keys) for v in value]
    return value


# -- comparing --------------------------------------------------------------------------------------


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """One line for each field that is not as it was; empty when the world is unchanged."""
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            lines.append(f"{name}: gone")
        elif name not in before:
            lines.append(f"{name}: left behind")
        else:
            lines += [f"{name}: {change}" for change in _changes(before[name], after[name])]
    return lines


def _changes(before: Any, after: Any, at: str = "") -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _changes(before.get(key), after.get(key), f"{at}.{key}" if at else str(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _changes(one, other, f"{at}[{number}]")
    else:
        yield f"{at} was {_short(before)}, is {_short(after)}"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} of them" if len(value) > 3 else json.dumps(value)[:200]
    return "absent" if value is None else json.dumps(value)[:200]


# -- mending, so that one case that failed does not spoil the next ------------------------------------


OURS = "gameday"  # the namespace of records and Leases
BY_CONTROLLERS = ("Pod", "ReplicaSet", "Job", "Lease", "Machine")


def mend(world: World, before: dict[str, Object]) -> None:
    """Put every object back by force, from copies: spec, data, labels, annotations; delete what is new."""
    now = {key(obj): obj for obj in world.objects()}
    for name, obj in now.items():
        ours = obj["metadata"].get("namespace") == OURS
        replaced = REPLACED in (obj["metadata"].get("annotations") or {})
        if name not in before and (replaced or obj["kind"] in BY_CONTROLLERS) and not ours:
            continue
        path = path_of(world, obj)
        if name not in before:
            world.ask("PATCH", path, {"metadata": {"finalizers": None}}, "application/merge-patch+json")
            world.ask("DELETE", path)
            continue
        patch = _patch(before[name], obj)
        if patch and obj["kind"] not in BY_CONTROLLERS:
            world.ask("PATCH", path, patch, "application/merge-patch+json")


def copies(world: World) -> dict[str, Object]:
    """Every object as it is, for `mend`."""
    return {key(obj): obj for obj in world.objects()}


def key(obj: Object) -> str:
    meta = obj["metadata"]
    return f"{obj['apiVersion']} {obj['kind']} {meta.get('namespace', '')}/{meta['name']}"


def path_of(world: World, obj: Object) -> str:
    root = next(p for p, _, k in world.kinds() if k == obj["kind"] and _group(p) == obj["apiVersion"])
    base, _, plural = root.rpartition("/")
    namespace = obj["metadata"].get("namespace")
    where = f"namespaces/{namespace}/" if namespace else ""
    return f"{base}/{where}{plural}/{quote(obj['metadata']['name'], safe='')}"


def _group(path: str) -> str:
    return path.removeprefix("/apis/").removeprefix("/api/").rpartition("/")[0]


def _patch(wanted: Object, now: Object) -> Object:
    patch: Object = {}
    for part in ("spec", "data", "binaryData", "rules", "subjects"):
        if part in wanted or part in now:
            change = _merge(wanted.get(part), now.get(part))
            if change is not _SAME:
                patch[part] = change
    for part in ("labels", "annotations", "finalizers"):
        change = _merge(wanted["metadata"].get(part), now["metadata"].get(part))
        if change is not _SAME:
            patch.setdefault("metadata", {})[part] = change
    return patch


_SAME = object()


def _merge(wanted: Any, now: Any) -> Any:
    if wanted == now:
        return _SAME
    if isinstance(wanted, dict) and isinstance(now, dict):
        changes = {k: _merge(wanted.get(k), now.get(k)) for k in wanted.keys() | now.keys()}
        return {k: v for k, v in changes.items() if v is not _SAME}
    return wanted
