"""Effects with the GPUs that are held by claims: added in one place, whichever fault the effects are of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from gameday.platform import claims
from gameday.platform.claims import Devices
from gameday.platform.devices import gpus
from gameday.platform.effect import Effect, Kind, named
from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object
from gameday.platform.templates import NoTemplate, pod_template

DEVICES = "Devices"  # the kind under which what can't be counted is named


async def with_claims(effects: Sequence[Effect], kube: Kube) -> tuple[Effect, ...]:
    """The same effects with all their GPUs, and one more for each name of what can't be counted."""
    pods = {e.ref.namespace for e in effects if e.kind is Kind.POD and e.ref.namespace}
    nodes = {e.ref.name for e in effects if e.kind is Kind.NODE}
    workloads = [e for e in effects if e.kind is Kind.WORKLOAD and e.pods]
    held, published, asked = await asyncio.gather(
        claims.held(kube, pods) if pods else _nothing(),
        claims.on_nodes(kube, nodes),
        asyncio.gather(*(_of_workload(kube, e) for e in workloads)),
    )
    each = dict(zip(map(id, workloads), asked, strict=True))
    found: list[Effect] = []
    unknown: dict[str, Effect] = {}
    for effect in effects:
        devices, gpus = Devices(), effect.gpus
        if effect.kind is Kind.POD:
            devices = held.get(effect.ref.uid or "", devices)
            gpus += devices.gpus
        elif effect.kind is Kind.NODE:
            devices = published.get(effect.ref.name, devices)
            gpus = max(gpus, devices.gpus)
        elif id(effect) in each:
            devices = each[id(effect)]
            gpus += devices.gpus * effect.pods
        found.append(replace(effect, gpus=gpus))
        for name in devices.unknown:
            text = f"{effect.ref} holds them by claims, and nobody can say how many of them are GPUs"
            unknown.setdefault(name, named(Kind.OTHER, name, text, what=DEVICES))
    return (*found, *unknown.values())


async def of_nodes(kube: Kube, nodes: Iterable[Object]) -> dict[str, int]:
    """The GPUs of nodes, by node: those of the device plugin, or those that a driver publishes."""
    counted = {n["metadata"]["name"]: gpus(n) for n in nodes}
    published = await claims.on_nodes(kube, counted)
    return {name: max(n, published.get(name, Devices()).gpus) for name, n in counted.items()}


async def _of_workload(kube: Kube, effect: Effect) -> Devices:
    try:
        obj = await kube.find(effect.ref.named)
        if obj is None:
            return Devices()
        template = await pod_template(kube, obj)
    except (NoTemplate, ApiError) as error:
        if isinstance(error, ApiError) and error.status != 403:
            raise
        return Devices(unknown=(f"{effect.ref.kind}/{effect.ref.name}",))
    return await claims.asked(kube, effect.ref.namespace or "", template)


async def _nothing() -> dict[str, Devices]:
    return {}
