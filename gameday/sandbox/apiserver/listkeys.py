"""Which lists merge by key: the facts that strategic merge patch and server-side apply share.

From the patchMergeKey and listMapKey marks of Kubernetes' own types, for the lists that users of the sandbox
touch. A list that is not here is replaced as a whole.
"""

from __future__ import annotations

from typing import Any

_CONTAINERS = ("name",)
# the last two steps of the path (indexes left out) -> the item's keys; "*" stands for any parent
_KEYS: dict[tuple[str, str], tuple[str, ...]] = {
    ("*", "containers"): _CONTAINERS,
    ("*", "initContainers"): _CONTAINERS,
    ("*", "ephemeralContainers"): _CONTAINERS,
    ("*", "env"): ("name",),
    ("containers", "ports"): ("containerPort", "protocol"),
    ("initContainers", "ports"): ("containerPort", "protocol"),
    ("spec", "ports"): ("port", "protocol"),
    ("*", "volumeMounts"): ("mountPath",),
    ("*", "volumeDevices"): ("devicePath",),
    ("spec", "volumes"): ("name",),
    ("*", "imagePullSecrets"): ("name",),
    ("*", "hostAliases"): ("ip",),
    ("*", "topologySpreadConstraints"): ("topologyKey", "whenUnsatisfiable"),
    ("spec", "schedulingGates"): ("name",),
    ("spec", "resourceClaims"): ("name",),
    ("status", "conditions"): ("type",),
    ("status", "addresses"): ("type",),
    ("status", "podIPs"): ("ip",),
    ("metadata", "ownerReferences"): ("uid",),
}
_SETS = {("metadata", "finalizers"), ("spec", "podCIDRs"), ("spec", "finalizers")}
_DEFAULTS = {"protocol": "TCP"}  # a key that may be left out


def merge_keys(path: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of a list of objects at that path of field names; () when it does not merge by key."""
    parent, last = (path[-2] if len(path) > 1 else ""), path[-1]
    return _KEYS.get((parent, last)) or _KEYS.get(("*", last), ())


def is_set(path: tuple[str, ...]) -> bool:
    """Whether a list of plain values merges as a set."""
    return path[-2:] in _SETS


def key_of(item: dict[str, Any], keys: tuple[str, ...]) -> tuple[Any, ...]:
    """An item's identity within its list."""
    return tuple(item.get(key, _DEFAULTS.get(key)) for key in keys)
