"""Kinds by the names people type: `deploy`, `pods`, `certificates.cert-manager.io`, as kubectl takes them."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from gameday.experiment.names import path_segment
from gameday.experiment.text import describe
from gameday.platform import answers
from gameday.platform.errors import ApiError, PlatformError
from gameday.platform.objects import Object, Resource, url_path, version_path

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

# (version, kind, plural, short names); the cluster is asked only for kinds outside this list.
_NAMESPACED = (
    ("v1", "Pod", "pods", ("po",)),
    ("v1", "Service", "services", ("svc",)),
    ("v1", "Endpoints", "endpoints", ("ep",)),
    ("v1", "ConfigMap", "configmaps", ("cm",)),
    ("v1", "Secret", "secrets", ()),
    ("v1", "ServiceAccount", "serviceaccounts", ("sa",)),
    ("v1", "PersistentVolumeClaim", "persistentvolumeclaims", ("pvc",)),
    ("v1", "ReplicationController", "replicationcontrollers", ("rc",)),
    ("v1", "ResourceQuota", "resourcequotas", ("quota",)),
    ("v1", "Event", "events", ("ev",)),
    ("apps/v1", "Deployment", "deployments", ("deploy",)),
    ("apps/v1", "StatefulSet", "statefulsets", ("sts",)),
    ("apps/v1", "DaemonSet", "daemonsets", ("ds",)),
    ("apps/v1", "ReplicaSet", "replicasets", ("rs",)),
    ("batch/v1", "Job", "jobs", ()),
    ("batch/v1", "CronJob", "cronjobs", ("cj",)),
    ("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", ("hpa",)),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", ("pdb",)),
    ("networking.k8s.io/v1", "Ingress", "ingresses", ("ing",)),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", ("netpol",)),
    ("coordination.k8s.io/v1", "Lease", "leases", ()),
)
_CLUSTER_WIDE = (
    ("v1", "Node", "nodes", ("no",)),
    ("v1", "Namespace", "namespaces", ("ns",)),
    ("v1", "PersistentVolume", "persistentvolumes", ("pv",)),
    ("storage.k8s.io/v1", "StorageClass", "storageclasses", ("sc",)),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", ("crd", "crds")),
)
_VERSIONED = re.compile(r"(v\d+(?:(?:alpha|beta)\d+)?)\.(.+)")  # deployments.v1.apps

_found: WeakKeyDictionary[Kube, dict[str, Resource]] = WeakKeyDictionary()


@cache
def known() -> dict[str, Resource]:
    """The kinds that every cluster has, by each of their names in lower case."""
    kinds: dict[str, Resource] = {}
    for namespaced, listed in ((True, _NAMESPACED), (False, _CLUSTER_WIDE)):
        for version, kind, plural, short in listed:
            resource = Resource(version, kind, plural, namespaced)
            names = [kind.lower(), plural, *short]
            names += [f"{name}.{resource.group}" for name in (kind.lower(), plural) if resource.group]
            kinds |= dict.fromkeys(names, resource)
    return kinds


def check(name: str) -> None:
    """Raises ValueError when no cluster could know a kind of that name."""
    if name.lower() not in known() and not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", name.lower()):
        raise ValueError(
            f"`{name}` is not a kind known here; others need their API group, as certificates.cert-manager.io"
        )


def check_object(text: str) -> None:
    """Raises ValueError for what is not KIND/NAME, with a name that an object of some kind can have."""
    kind, slash, name = text.partition("/")
    check(kind)
    if not slash:
        raise ValueError(f"expected KIND/NAME, as deployment/inference, found {describe(text)}")
    path_segment(name)


class NoSuchKind(PlatformError):
    """The cluster serves no kind of that name."""


async def find_resource(kube: Kube, name: str) -> Resource:
    """The kind of that name. Raises NoSuchKind when the cluster serves none."""
    word = name.lower()
    if resource := known().get(word):
        return resource
    cached = _found.setdefault(kube, {})
    if word not in cached:
        cached[word] = await _discover(kube, word)
    return cached[word]


async def _discover(kube: Kube, word: str) -> Resource:
    noun, _, group = word.partition(".")
    if match := _VERSIONED.fullmatch(group):
        version = f"{match[2]}/{match[1]}"
    else:
        found = await _ask(kube, url_path("apis", group), word)
        version = answers.text(found, "preferredVersion.groupVersion", kube.asked("discover", word))
    listed = await _ask(kube, version_path(version), word)
    for entry in answers.resources(listed, kube.asked("discover", word)):
        short = entry.get("shortNames") or ()
        if noun in (entry["name"], entry["kind"].lower(), entry.get("singularName"), *short):
            return Resource(version, entry["kind"], entry["name"], entry["namespaced"])
    raise NoSuchKind(f"the cluster serves no {noun} in {version}: is its CRD installed?")


async def _ask(kube: Kube, path: str, word: str) -> Object:
    try:
        return await kube.ask("GET", path, verb="discover", what=word)
    except ApiError as error:
        if error.status != 404:
            raise
        raise NoSuchKind(f"the cluster serves no {word}: is its CRD installed?") from error
