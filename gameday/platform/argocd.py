"""Reads Argo CD's Applications: what was deployed, what is under way, and which of them owns an object.

Field names and meanings are those of github.com/argoproj/argo-cd 3.5, pkg/apis/application/v1alpha1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gameday.platform.errors import ApiError, PlatformError
from gameday.platform.objects import Object, Ref, Resource, annotations_of, labels_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gameday.platform.kube import Kube

API_VERSION = "argoproj.io/v1alpha1"
APPLICATIONS = Resource(API_VERSION, "Application", "applications")
NAMESPACE = "argocd"  # where Argo CD's manifests and its Helm chart put it
TRACKING = "argocd.argoproj.io/tracking-id"  # APPLICATION:GROUP/KIND:NAMESPACE/NAME; the default since 3.0
INSTANCE = "app.kubernetes.io/instance"  # the label that was the default before
IN_CLUSTER_SERVER, IN_CLUSTER_NAME = "https://kubernetes.default.svc", "in-cluster"
MARK = "gameday.dev/run"  # the name of the entry in an operation's `info` that says it is ours


class NoArgoCD(PlatformError):
    """The cluster serves no Applications."""


def application_ref(name: str, namespace: str) -> Ref:
    return Ref(API_VERSION, "Application", name, namespace)


async def application(kube: Kube, name: str, namespace: str) -> Object | None:
    """One Application. Raises NoArgoCD where there is no such kind."""
    await _served(kube)
    return await kube.find(application_ref(name, namespace))


async def applications(kube: Kube, namespace: str = NAMESPACE) -> list[Object]:
    """All Applications, or where only that is allowed those of a namespace. Raises NoArgoCD."""
    await _served(kube)
    try:
        return await kube.list(APPLICATIONS)
    except ApiError as error:
        if error.status != 403:
            raise
        return await kube.list(APPLICATIONS, namespace)


async def _served(kube: Kube) -> None:
    try:
        await kube.resource(API_VERSION, "Application")
    except ApiError as error:
        if error.status != 404:
            raise
        text = f"the cluster serves no Applications ({API_VERSION}): is Argo CD installed?"
        raise NoArgoCD(text) from error


def status_of(application: Object) -> Object:
    return application.get("status") or {}


def history(application: Object) -> list[Object]:
    """The deployments, oldest first; the last is the one of now."""
    return list(status_of(application).get("history") or ())


def revision_of(deployed: Object) -> str:
    """A deployment's revision; of one from several sources all of them, as Argo CD joins them."""
    return ",".join(deployed.get("revisions") or ()) or str(deployed.get("revision") or "")


def short(revision: str) -> str:
    """Revisions as people write them: seven characters of a SHA."""
    return ",".join(
        r[:7] if len(r) == 40 and all(c in "0123456789abcdef" for c in r) else r for r in revision.split(",")
    )


def source_of(deployed: Object) -> object:
    return deployed.get("sources") or deployed.get("source")


def same_deployment(a: Object, b: Object) -> bool:
    """Whether two entries of the history deployed the same thing."""
    return revision_of(a) == revision_of(b) and source_of(a) == source_of(b)


def describe(deployed: Object) -> str:
    """An entry of the history in words, as `12 (c81a5d0, deployed 2026-08-11T13:40:33Z)`."""
    return (
        f"{deployed.get('id')} ({short(revision_of(deployed))}, deployed {deployed.get('deployedAt', '?')})"
    )


def elsewhere(application: Object) -> str:
    """Which other cluster an Application deploys to, "" where it deploys to the one that it is in.

    Argo CD knows its own cluster by one address and by one name (pkg/apis/application/v1alpha1,
    KubernetesInternalAPIServerAddr and KubernetesInClusterName). Whatever else a destination names may be
    this cluster under another name; who can't tell must take it for another one.
    """
    destination = (application.get("spec") or {}).get("destination") or {}
    for key, own in (("server", IN_CLUSTER_SERVER), ("name", IN_CLUSTER_NAME)):
        named = str(destination.get(key) or "").rstrip("/")
        if named and named != own:
            return named
    return ""


def automated(application: Object) -> Object | None:
    """The policy of automated sync, None where there is none in force (`enabled: false` is since 3.1)."""
    policy = sync_policy(application).get("automated")
    return None if policy is None or policy.get("enabled") is False else dict(policy)


def sync_policy(application: Object) -> Object:
    return (application.get("spec") or {}).get("syncPolicy") or {}


def operation_state(application: Object) -> Object:
    return status_of(application).get("operationState") or {}


def applied(state: Object) -> list[Object]:
    """The objects that an operation has applied so far, by its state."""
    return list((state.get("syncResult") or {}).get("resources") or ())


def under_way(application: Object) -> Object | None:
    """The operation that waits to be taken up or runs, None without one."""
    state = operation_state(application)
    if state.get("phase") in ("Running", "Terminating"):
        return dict(state["operation"])
    operation = application.get("operation")
    return dict(operation) if operation else None


def initiator(operation: Object) -> str:
    """Who started an operation, or a deployment of the history."""
    by = operation.get("initiatedBy") or {}
    return "automated sync" if by.get("automated") else str(by.get("username") or "somebody")


def mark_of(operation: Object | None) -> str:
    """Our own mark on an operation, "" on one of somebody else's."""
    entries = (operation or {}).get("info") or ()
    return next((str(i.get("value")) for i in entries if i and i.get("name") == MARK), "")


def owner_in(obj: Object, known: Iterable[Object]) -> Object | None:
    """The Application that deploys an object: by its tracking annotation, else by what Applications list.

    The annotation names its own object too: a copy of it on another one (a pod template's, say) is none.
    The label is trusted only where an Application also lists the object, since Helm charts set it as well.
    Applications of other clusters own nothing here, though they may list an object of the same name there.
    """
    known = [a for a in known if not elsewhere(a)]
    tracking = annotations_of(obj).get(TRACKING, "")
    listing = [a for a in known if lists(a, obj)]
    named, _, rest = tracking.partition(":")
    if named and rest == _tracked_as(obj):
        # In another namespace than Argo CD's, an Application's name there is NAMESPACE_NAME.
        space, _, name = named.rpartition("_")
        for each in known:
            own = each["metadata"]
            if own["name"] == name and (not space or own.get("namespace") == space):
                return each
    label = labels_of(obj).get(INSTANCE)
    return next((a for a in listing if a["metadata"]["name"] == label), listing[0] if listing else None)


def _tracked_as(obj: Object) -> str:
    meta, group = obj["metadata"], obj["apiVersion"].rpartition("/")[0]
    return f"{group}/{obj['kind']}:{meta.get('namespace', '')}/{meta['name']}"


def lists(application: Object, obj: Object) -> bool:
    """Whether an Application says that it deploys an object."""
    meta, group = obj["metadata"], obj["apiVersion"].rpartition("/")[0]
    wanted = (group, obj["kind"], meta.get("namespace", ""), meta["name"])
    return any(identity(r) == wanted for r in status_of(application).get("resources") or ())


def identity(resource: Object) -> tuple[str, str, str, str]:
    """Group, kind, namespace and name of an entry of status.resources."""
    return (
        resource.get("group", ""),
        resource.get("kind", ""),
        resource.get("namespace", ""),
        resource.get("name", ""),
    )
