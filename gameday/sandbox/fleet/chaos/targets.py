"""Which pods an experiment selects, and whether the node of a target has its chaos-daemon."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from gameday.platform.objects import Object, is_ready
from gameday.sandbox.apiserver.selectors import labels_match, parse_expressions, parse_values
from gameday.sandbox.apiserver.status import Refused
from gameday.sandbox.cache import Cache
from gameday.sandbox.facts import annotations_of, labels_of

DAEMON = {"app.kubernetes.io/component": "chaos-daemon"}
NAMESPACE = "chaos-mesh"


class SelectionError(Exception):
    """Nothing was selected, or the selection can't be made; upstream's words."""


def select(cache: Cache, namespace: str, spec: Mapping[str, Any]) -> list[Object]:
    """The pods of a `selector` with its `mode` and `value`."""
    pods = sorted(_matching(cache, namespace, spec["selector"]), key=lambda p: str(p["metadata"]["name"]))
    if not pods:
        raise SelectionError("no pod is selected")
    mode, value = spec["mode"], spec.get("value", "")
    if mode == "all":
        return pods
    if mode == "one":
        return [random.choice(pods)]
    try:
        number = float(value)
    except ValueError:
        raise SelectionError(f"cannot parse the value {value!r} of mode {mode}") from None
    if mode == "fixed":
        count = int(number)
    elif mode == "fixed-percent":
        count = math.ceil(len(pods) * number / 100)
    else:
        count = math.ceil(len(pods) * random.randint(0, int(number)) / 100)
    if count <= 0:
        raise SelectionError("cannot select any pod")
    return random.sample(pods, min(count, len(pods)))


def _matching(cache: Cache, namespace: str, selector: Mapping[str, Any]) -> list[Object]:
    if selector.get("pods"):
        named = [(ns, n) for ns, names in selector["pods"].items() for n in names]
        return [p for p in (cache.get("Pod", k) for k in named) if p is not None]
    spaces = selector.get("namespaces") or [namespace]
    labels = parse_values(selector.get("labelSelectors"))
    try:
        labels += parse_expressions(selector.get("expressionSelectors"))
    except Refused as error:
        raise SelectionError(str(error)) from None
    return [
        pod
        for space in spaces
        for pod in cache.all("Pod", space)
        if labels_match(labels, labels_of(pod)) and _fits(cache, pod, selector)
    ]


def _fits(cache: Cache, pod: Object, selector: Mapping[str, Any]) -> bool:
    wanted = selector.get("annotationSelectors") or {}
    if any(annotations_of(pod).get(k) != v for k, v in wanted.items()):
        return False
    phase = (pod.get("status") or {}).get("phase")
    phases = selector.get("podPhaseSelectors") or []
    included = [p for p in phases if not p.startswith("!")]
    if (included and phase not in included) or f"!{phase}" in phases:
        return False
    name = pod["spec"].get("nodeName")
    if not _on_wanted_node(cache, name, selector):
        return False
    fields = {"metadata.name": pod["metadata"]["name"], "spec.nodeName": name, "status.phase": phase}
    return all(fields.get(k) == v for k, v in (selector.get("fieldSelectors") or {}).items())


def _on_wanted_node(cache: Cache, name: str | None, selector: Mapping[str, Any]) -> bool:
    """Nodes by name and nodes by label add up (upstream's pkg/selector/pod/node_selector.go)."""
    names, labels = selector.get("nodes") or (), selector.get("nodeSelectors") or {}
    if not names and not labels:
        return True
    node = cache.get("Node", ("", name)) if name else None
    by_label = bool(labels) and node is not None and labels.items() <= labels_of(node).items()
    return name in names or by_label


def daemon_missing(cache: Cache, pod: Object) -> str:
    """Upstream's complaint when no chaos-daemon serves the pod's node; empty when one does."""
    name = pod["spec"].get("nodeName") or ""
    for other in cache.pods_on(name):
        daemon = labels_of(other).items() >= DAEMON.items() and other["metadata"]["namespace"] == NAMESPACE
        if daemon and is_ready(other):
            return ""
    return f"cannot find daemonIP on node {name}"
