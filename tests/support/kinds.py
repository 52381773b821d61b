"""Kinds of other people's systems, served for a test as their CRDs would, without their controllers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from gameday.platform.errors import ApiError, WrongAnswer
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, Resource, is_true
from tests.support.polling import eventually


@dataclass(frozen=True)
class Served:
    """One kind, with its short names; `fields` may be named by a field selector, as `spec.nodeName`."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True
    fields: tuple[str, ...] = ()
    short: tuple[str, ...] = ()

    @property
    def resource(self) -> Resource:
        return Resource(self.api_version, self.kind, self.plural, self.namespaced)


@asynccontextmanager
async def serving(kube: Kube, kinds: Sequence[Served]) -> AsyncIterator[None]:
    """These kinds are served; those that were not are gone again afterwards, with their objects."""
    made = [_crd(kind) for kind in kinds if not await _is_served(kube, kind)]
    try:
        for crd in made:
            ref = Ref.of(await kube.create(crd))
            await eventually(lambda ref=ref: kube.get(ref), lambda obj: is_true(obj, "Established"))  # type: ignore[misc]
        for kind in kinds:
            await eventually(lambda kind=kind: _is_served(kube, kind))  # type: ignore[misc]
        yield
    finally:
        for crd in made:
            await kube.delete(Ref.of(crd))


async def create(kube: Kube, obj: Object, **status: object) -> Ref:
    """An object, with that status, as its controller would write it."""
    ref = Ref.of(await kube.create(obj))
    if status:
        await kube.patch(ref, {"status": status}, "merge", subresource="status")
    return ref


async def _is_served(kube: Kube, kind: Served) -> bool:
    try:
        await kube.list(kind.resource)
    except ApiError as error:
        if error.status == 404:
            return False
        raise
    except WrongAnswer:  # it comes to be served, or goes, at this moment
        return False
    return True


def _crd(kind: Served) -> Object:
    group, _, version = kind.api_version.partition("/")
    schema: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    properties: Object = {}
    for field in kind.fields:
        outer, inner = field.split(".")
        part = properties.setdefault(outer, {"type": "object", "x-kubernetes-preserve-unknown-fields": True})
        part.setdefault("properties", {})[inner] = {"type": "string"}
    if properties:
        schema["properties"] = properties
    served: Object = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    if kind.fields:
        served["selectableFields"] = [{"jsonPath": f".{field}"} for field in kind.fields]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "kind": kind.kind,
                "shortNames": list(kind.short),
            },
            "versions": [served],
        },
    }
