"""Keeps what tells of a target's end, since clusters forget it soon: owners, conditions, events, logs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gameday.aside import aside
from gameday.events import Emit, Evidence, Warn
from gameday.experiment.selector import Selector
from gameday.extend import FaultPlan
from gameday.faults.pods import pod_victim
from gameday.masking import clip, mask, mask_beginning, mask_text
from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, controller
from gameday.platform.owners import owners
from gameday.platform.resources import EVENTS, PODS
from gameday.platform.world import Victim, World

MOST_TARGETS = 50
MOST_BEFORE = 20  # of those that a fault ends: it waits for them
MOST_EVENTS = 50  # of one target, the newest
MOST_PODS = 3  # of a workload, whose logs are kept
MOST_CONTAINERS = 10  # of a pod
LINES, LINE_LENGTH = 50, 1_000  # of a container's log
LOG_BYTES = 64 * 2**10  # of a container's log
ALL_LOG_BYTES = 5 * 2**20  # of all logs together
WITHIN = 30.0  # seconds for everything
BEFORE_WITHIN = 5.0  # seconds that a fault waits for it
AT_ONCE = 8

_UNSHOWN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\n\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd]")


async def collect(
    world: World,
    victims: Iterable[Victim],
    folder: Path,
    emit: Emit,
    *,
    when: str = "",
    within: float = WITHIN,
    most: int = MOST_TARGETS,
) -> None:
    """Write a file for each target into `folder`, secrets masked; never raises but for a cancellation.

    `when` is part of the files' names, `within` the seconds for all of it, `most` how many targets.
    """
    targets = list({(v.ref.kind, v.ref.namespace, v.ref.name): v for v in victims}.values())
    if len(targets) > most:
        emit(_warn(f"kept {when or 'afterwards'} for {most} of {len(targets)} targets"))
    logs, limit = _Logs(world.kube), asyncio.Semaphore(AT_ONCE)

    async def one(target: Victim) -> None:
        async with limit:
            await _keep(world.kube, target, folder, logs, emit, when)

    try:
        async with asyncio.timeout(within), asyncio.TaskGroup() as group:
            for target in targets[:most]:
                group.create_task(one(target))
    except TimeoutError:
        emit(_warn(f"not all of it could be had within {within:.0f} s"))


async def keep_before(world: World, plan: FaultPlan[Any], folder: Path, emit: Emit) -> None:
    """As `collect`, of the pods that a fault is about to end: their logs go with them."""
    ending = [v for v in plan.victims if v.role == "workload" and v.pods]
    if plan.ends_pods:
        ending += [v for v in plan.victims if v.role == "pod"]
        names = [v.ref.name for v in plan.victims if v.role == "node"]
        try:
            listed = await asyncio.gather(*(_pods_of(world.kube, n) for n in names))
        except PlatformError as error:
            emit(_warn(f"no logs are kept of {', '.join(names)}: {error}"))
        else:
            ending += [pod_victim(p) for pods in listed for p in pods]
    if ending:
        await collect(world, ending, folder, emit, when="before", within=BEFORE_WITHIN, most=MOST_BEFORE)


async def _pods_of(kube: Kube, node: str) -> list[Object]:
    """The pods that go with a node; those of its own (a DaemonSet's, static ones) stay or mean nothing."""
    found = await kube.list(PODS, fields={"spec.nodeName": node})
    return [p for p in found if (controller(p) or {}).get("kind") not in ("DaemonSet", "Node")]


async def _keep(kube: Kube, target: Victim, folder: Path, logs: _Logs, emit: Emit, when: str) -> None:
    try:
        found = await _gather(kube, target, logs)
        parts = (target.ref.kind.lower(), target.ref.namespace, target.ref.name, when)
        name = re.sub(r"[^\w.-]", "_", "-".join(p for p in parts if p)) + ".yaml"
        await aside(_write, folder / name, _text(mask(found)))
    except Exception as error:  # whatever it is, a run does not fail for its souvenirs
        emit(_warn(f"nothing is kept of {target}: {error or type(error).__name__}"))
    else:
        emit(Evidence(object=str(target), path=f"{folder.name}/{name}"))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


async def _gather(kube: Kube, target: Victim, logs: _Logs) -> dict[str, Any]:
    found: dict[str, Any] = {"target": str(target), "role": target.role, "apiVersion": target.ref.api_version}
    events = await _events(kube, target.ref)
    obj = await kube.find(target.ref)
    if obj is None:
        return found | {"gone": True, "events": events}
    obj.setdefault("apiVersion", target.ref.api_version)
    obj.setdefault("kind", target.ref.kind)
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    found |= {
        "uid": meta.get("uid"),
        "created": meta.get("creationTimestamp"),
        "node": spec.get("nodeName"),
        "phase": status.get("phase"),
        "taints": spec.get("taints"),
        "owners": [_owner(owner) for owner in await owners(kube, obj, [])],
        "conditions": status.get("conditions"),
        "containers": [_container(c) for c in status.get("containerStatuses") or ()],
        "events": events,
        "logs": await logs.of(obj),
    }
    return {key: value for key, value in found.items() if value not in (None, [], {})}


def _owner(owner: Object) -> dict[str, Any]:
    kept = {"object": str(Ref.of(owner)), "conditions": (owner.get("status") or {}).get("conditions")}
    return {key: value for key, value in kept.items() if value}


def _container(status: Object) -> dict[str, Any]:
    keys = ("name", "ready", "restartCount", "state", "lastState")
    return {key: status[key] for key in keys if status.get(key) not in (None, {})}


async def _events(kube: Kube, ref: Ref) -> list[dict[str, Any]]:
    """The newest events about an object, oldest first."""
    about = {"involvedObject.kind": ref.kind, "involvedObject.name": ref.name}
    try:
        found = await kube.list(EVENTS, ref.namespace or "default", fields=about)
    except PlatformError as error:
        return [{"missing": str(error)}]
    kept = [
        {
            "at": event.get("lastTimestamp")
            or event.get("eventTime")
            or event["metadata"]["creationTimestamp"],
            "type": event.get("type"),
            "reason": event.get("reason"),
            "message": event.get("message"),
            "count": event.get("count") or 1,
        }
        for event in found
    ]
    return sorted(kept, key=lambda event: str(event["at"]))[-MOST_EVENTS:]


@dataclass
class _Logs:
    """The last lines that containers wrote, as long as there is room for them."""

    kube: Kube
    room: int = ALL_LOG_BYTES

    async def of(self, obj: Object) -> list[dict[str, str]]:
        """Of a pod its containers', of a workload those of some of its pods."""
        return [log for pod in await self._pods(obj) for log in await self._of_pod(pod)]

    async def _pods(self, obj: Object) -> list[Object]:
        if obj["kind"] == "Pod":
            return [obj]
        selector = (obj.get("spec") or {}).get("selector")
        if not isinstance(selector, dict) or not selector.keys() & {"matchLabels", "matchExpressions"}:
            return []
        labels = str(Selector.from_object(selector))
        pods: list[Object] = []
        async for pod in self.kube.each(PODS, obj["metadata"].get("namespace"), labels=labels):
            pods.append(pod)
            if len(pods) == MOST_PODS:
                break
        return pods

    async def _of_pod(self, pod: Object) -> list[dict[str, str]]:
        ref, spec = Ref.of(pod), pod.get("spec") or {}
        containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        return [await self._of_container(ref, c["name"]) for c in containers[:MOST_CONTAINERS]]

    async def _of_container(self, ref: Ref, container: str) -> dict[str, str]:
        about = {"pod": ref.name, "container": container}
        if (limit := min(LOG_BYTES, self.room)) <= 0:
            return about | {"missing": f"{ALL_LOG_BYTES >> 20} MiB of logs are kept already"}
        self.room -= limit  # before asking: others ask at the same time
        try:
            text = await self.kube.logs(ref, container, LINES, limit)
        except PlatformError as error:
            text = ""
            about["missing"] = str(error)
        if len(raw := text.encode()) >= limit:
            text = mask_beginning(raw[:limit].decode(errors="ignore"))
        self.room += max(0, limit - len(raw))
        return about | ({"text": _readable(text)} if text else {})


def _readable(text: str) -> str:
    """Lines that a person can read and YAML can show as they are: no colours, no endless lines."""
    lines = _UNSHOWN.sub("", mask_text(text).expandtabs(4)).splitlines()[-LINES:]
    return "".join(f"{clip(line, LINE_LENGTH).rstrip()}\n" for line in lines)


class _Dumper(yaml.CSafeDumper):
    """Shows texts of several lines as such."""


def _represent(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent)


def _text(data: Any) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _warn(message: str) -> Warn:
    return Warn(source="evidence", message=f"evidence: {message}")
