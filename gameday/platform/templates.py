"""Pod templates of workloads, which are not always written where the workload is.

An Argo Rollout may take its template from another workload of its namespace (`spec.workloadRef`): from a
Deployment, a ReplicaSet or a PodTemplate, as github.com/argoproj/argo-rollouts 1.9, rollout/templateref.go.
A template that can't be read is an error: counted as one without GPUs it would pass any limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gameday.platform.errors import ApiError, PlatformError
from gameday.platform.objects import Object, Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

# Where the template is, by group and kind of the workload that is referred to.
_REFERRED = {
    ("apps", "Deployment"): ("spec", "template"),
    ("apps", "ReplicaSet"): ("spec", "template"),
    ("", "PodTemplate"): ("template",),
}


class NoTemplate(PlatformError):
    """The template of a workload's pods can't be read, so neither can what its pods hold."""


async def pod_template(kube: Kube, workload: Object) -> Object:
    """The template that a workload makes its pods of. Raises NoTemplate, PlatformError."""
    spec = workload.get("spec") or {}
    if reference := spec.get("workloadRef"):
        return await _referred(kube, Ref.of(workload), reference)
    if not spec.get("template"):
        raise NoTemplate(f"{Ref.of(workload)} has no pod template")
    return dict(spec["template"])


async def _referred(kube: Kube, workload: Ref, reference: Object) -> Object:
    api_version, kind = str(reference.get("apiVersion", "")), str(reference.get("kind", ""))
    where = f"{workload} takes its template from {kind} {reference.get('name')} (spec.workloadRef)"
    path = _REFERRED.get((api_version.rpartition("/")[0], kind))
    if path is None:
        raise NoTemplate(f"{where}, and no template can be read from that kind ({api_version})")
    ref = Ref(api_version, kind, str(reference.get("name", "")), workload.namespace)
    try:
        found = await kube.find(ref)
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        raise NoTemplate(f"{where}, which can't be read: {error}") from error
    for part in path:
        found = (found or {}).get(part)
    if not found:
        raise NoTemplate(f"{where}, which " + ("has no pod template" if found == {} else "is not there"))
    return dict(found)
