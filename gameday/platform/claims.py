"""The GPUs of dynamic resource allocation (DRA), which stand in no pod's limits and in no node's capacity.

Facts from Kubernetes 1.36 (k8s.io/api, resource/v1/types.go): a ResourceClaim's `status.allocation` names
the devices, and `status.reservedFor` the pods that may use them, without which no kubelet starts a pod. A
device that was allocated with `adminAccess` is taken from nobody. A claim that the scheduler makes of a
pod's extended resource is annotated so, and stands in the pod's requests already. A ResourceSlice publishes
the devices of a node; those that draw on one counter set are parts of one GPU. A request of a template says
a number, `All`, which depends on the node, or a list of which the first that is available is taken.

What can't be counted has a name here, under which a blast radius may allow it: a driver or a device class of
which nobody knows whether its devices are GPUs, claims that may not be read, a request for all devices.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gameday.platform.devices import drives_gpus, is_gpu
from gameday.platform.errors import ApiError
from gameday.platform.objects import Object, Ref, Resource, annotations_of, url_path
from gameday.platform.resources import PODS

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

GROUP = "resource.k8s.io"
VERSIONS = ("v1", "v1beta2", "v1beta1", "v1alpha3")  # the first that serves a kind is taken
ONE_LIST_FROM = 20  # nodes: with more, one list of all slices is cheaper than one for each node
_EXTENDED = "resource.kubernetes.io/extended-resource-claim"
_DRIVER = re.compile(r"""device\.driver\s*==\s*["']([^"']+)["']""")  # in a device class's CEL


@dataclass(frozen=True)
class Devices:
    """Devices that somebody holds: those that are GPUs, and the names of what can't be counted."""

    gpus: int = 0
    unknown: tuple[str, ...] = ()

    def __add__(self, other: Devices) -> Devices:
        return Devices(self.gpus + other.gpus, tuple(dict.fromkeys((*self.unknown, *other.unknown))))


def of_drivers(drivers: Iterable[str]) -> Devices:
    """Devices, each given by its driver's name."""
    known = [(driver, drives_gpus(driver)) for driver in drivers]
    unknown = dict.fromkeys(driver for driver, yes in known if yes is None)
    return Devices(sum(yes is True for _, yes in known), tuple(unknown))


async def served(kube: Kube, kind: str) -> Resource | None:
    """How the cluster serves a kind of dynamic resource allocation; None where it does not."""
    try:
        group = await kube.ask("GET", url_path("apis", GROUP), verb="discover", what=GROUP)
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    there = {str(v.get("version")) for v in group.get("versions") or ()}
    for version in VERSIONS:
        try:
            if version in there:
                return await kube.resource(f"{GROUP}/{version}", kind)
        except ApiError as error:
            if error.status != 404:
                raise
    return None


async def held(kube: Kube, namespaces: Iterable[str]) -> dict[str, Devices]:
    """What pods hold by claims, by pod UID. A claim that pods share counts for each of them."""
    resource = await served(kube, "ResourceClaim")
    if resource is None:
        return {}
    parts = await asyncio.gather(*(_held(kube, resource, n) for n in sorted(set(namespaces))))
    return {uid: devices for part in parts for uid, devices in part.items()}


async def _held(kube: Kube, resource: Resource, namespace: str) -> dict[str, Devices]:
    found: dict[str, Devices] = defaultdict(Devices)
    try:
        claims = await kube.list(resource, namespace)
    except ApiError as error:
        if error.status != 403:
            raise
        pods = await kube.list(PODS, namespace)
        claiming = [p["metadata"]["uid"] for p in pods if p["spec"].get("resourceClaims")]
        return dict.fromkeys(claiming, Devices(unknown=(f"{resource.plural}/{namespace}",)))
    for claim in claims:
        if annotations_of(claim).get(_EXTENDED) == "true":
            continue
        status = claim.get("status") or {}
        results = ((status.get("allocation") or {}).get("devices") or {}).get("results") or ()
        devices = of_drivers(r["driver"] for r in results if not r.get("adminAccess"))
        for consumer in status.get("reservedFor") or ():
            found[consumer["uid"]] += devices
    return dict(found)


async def on_nodes(kube: Kube, names: Collection[str]) -> dict[str, Devices]:
    """What is published of these nodes, by node."""
    resource = await served(kube, "ResourceSlice") if names else None
    if resource is None:
        return {}
    try:
        if len(names) > ONE_LIST_FROM:
            slices = await kube.list(resource)
        else:
            by_node = ({"spec.nodeName": name} for name in (*sorted(names), ""))
            parts = await asyncio.gather(*(kube.list(resource, fields=fields) for fields in by_node))
            slices = [s for part in parts for s in part]
    except ApiError as error:
        if error.status != 403:
            raise
        return dict.fromkeys(names, Devices(unknown=(resource.plural,)))
    found: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for spec in newest(s["spec"] for s in slices):
        for node, part in _whole(spec):
            if node in names:
                found[node].add((spec["driver"], spec["pool"]["name"], part))
    return {node: of_drivers(driver for driver, _, _ in devices) for node, devices in found.items()}


def newest(specs: Iterable[Object]) -> list[Object]:
    """The slices of each pool's newest generation; what is older is being replaced."""
    listed = list(specs)
    latest: dict[tuple[str, str], int] = {}
    for spec in listed:
        pool = (spec["driver"], spec["pool"]["name"])
        latest[pool] = max(latest.get(pool, 0), int(spec["pool"]["generation"]))
    return [s for s in listed if int(s["pool"]["generation"]) == latest[s["driver"], s["pool"]["name"]]]


def _whole(spec: Object) -> Iterable[tuple[str, str]]:
    """A slice's nodes, and names that tell their GPUs apart: of a part of one, the counters it draws on.

    A slice of several nodes may say of each device where it is. One that several nodes reach is of none.
    """
    for device in spec.get("devices") or ():
        body = device.get("basic") or device  # so in v1beta1
        node = str(spec.get("nodeName") or body.get("nodeName") or "")
        counters = body.get("consumesCounters") or ()
        yield node, f"counters/{counters[0]['counterSet']}" if counters else f"device/{device['name']}"


async def asked(kube: Kube, namespace: str, template: Object) -> Devices:
    """What one pod of a template asks for by its claims."""
    claims = (template.get("spec") or {}).get("resourceClaims") or ()
    if not claims:
        return Devices()
    parts = await asyncio.gather(*(_of_claim(kube, namespace, claim) for claim in claims))
    return sum(parts, Devices())


async def _of_claim(kube: Kube, namespace: str, claim: Object) -> Devices:
    by_template = claim.get("resourceClaimTemplateName")
    kind = "ResourceClaimTemplate" if by_template else "ResourceClaim"
    name = str(by_template or claim.get("resourceClaimName"))
    resource = await served(kube, kind)
    found = None
    if resource is not None:
        found = await kube.find_readable(Ref(resource.api_version, kind, name, namespace), [])
    if found is None:  # or may not be read
        return Devices(unknown=(f"{kind}/{name}",))
    spec = found["spec"]["spec"] if by_template else found["spec"]
    total = Devices()
    for request in (spec.get("devices") or {}).get("requests") or ():
        options = request.get("firstAvailable") or [request.get("exactly") or request]  # flat in v1beta1
        counted = await asyncio.gather(*(_of_request(kube, o, f"{kind}/{name}") for o in options))
        unknown = tuple(dict.fromkeys(name for c in counted for name in c.unknown))
        total += Devices(max(c.gpus for c in counted), unknown)
    return total


async def _of_request(kube: Kube, request: Object, name: str) -> Devices:
    if request.get("adminAccess"):
        return Devices()
    cls = request["deviceClassName"]
    yes = await _is_gpu_class(kube, cls)
    if not yes:
        return Devices(unknown=() if yes is False else (cls,))
    if request.get("allocationMode") == "All":
        return Devices(unknown=(name,))
    return Devices(int(request.get("count") or 1))


async def _is_gpu_class(kube: Kube, name: str) -> bool | None:
    """Whether a device class is of GPUs: by the drivers that it selects, or by its own name."""
    resource = await served(kube, "DeviceClass")
    ref = Ref(resource.api_version, "DeviceClass", name) if resource else None
    found = await kube.find_readable(ref, []) if ref else None  # then its name decides
    spec = (found or {}).get("spec") or {}
    if is_gpu(spec.get("extendedResourceName") or ""):
        return True
    texts = [(s.get("cel") or {}).get("expression") or "" for s in spec.get("selectors") or ()]
    drivers = {driver for text in texts for driver in _DRIVER.findall(text)}
    verdicts = {drives_gpus(driver) for driver in drivers} or {drives_gpus(name)}
    return True if True in verdicts else None if None in verdicts else False
