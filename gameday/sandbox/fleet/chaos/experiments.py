"""One experiment's life: selected, injected, recovered; what upstream's common controllers do."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from gameday.experiment.quantity import parse_duration
from gameday.platform.errors import ApiError
from gameday.platform.objects import Object, Ref
from gameday.sandbox.cache import Cache, Key, key_of
from gameday.sandbox.facts import annotations_of, deleting, now, seconds_of
from gameday.sandbox.fleet.chaos.books import Books
from gameday.sandbox.fleet.chaos.targets import SelectionError, daemon_missing, select
from gameday.sandbox.recorder import Recorder

FINALIZER = "chaos-mesh/records"
PAUSE = "experiment.chaos-mesh.org/pause"
CLEAN = "chaos-mesh.chaos-mesh.org/cleanFinalizer"
STUCK = "sandbox.gameday.dev/stuck"  # on an experiment: its recovery fails for as long as this is "true"
PAUSE_IMAGE = "gcr.io/google-containers/pause:latest"
RETRY = 2.0  # seconds
MOST_EVENTS = 100  # kept for each record; upstream's default
NOT_INJECTED, INJECTED = "Not Injected", "Injected"
_THROUGH_OBJECT = (
    "NetworkChaos",
    "IOChaos",
    "HTTPChaos",
)  # upstream hands these on and waits: the "/Wait" phases
_OF_CONTAINERS = ("StressChaos", "TimeChaos", "IOChaos", "DNSChaos")


Restart = Callable[[Key, str], Awaitable[None]]  # a pod's container starts anew, as after a crash


class Failed(Exception):
    """An injection or a recovery did not work; the text goes to the record's events."""


class Experiments:
    """Reconciles experiments of every kind; effects are read from their records by the workloads' model."""

    def __init__(self, cache: Cache, recorder: Recorder, restart: Restart) -> None:
        self._cache = cache
        self._restart = restart
        self._recorder = recorder
        self.books = Books(cache)

    async def reconcile(self, chaos: Object) -> float | None:
        """One pass. What was selected is written down before anything is done to it."""
        experiment: Object = (chaos.get("status") or {}).get("experiment") or {}
        phase, left = self._desired(chaos, experiment)
        chaos = await self._begin(chaos)
        records = experiment.get("containerRecords")
        failed = False
        if records is None:
            await self._write(chaos, phase, self._select(chaos))
        else:
            records = [dict(r) for r in records]
            for record in records:
                failed |= not await self._step(chaos, record, phase)
            await self._write(chaos, phase, records)
        await self._finish(chaos, records)
        return RETRY if failed else left

    def _desired(self, chaos: Object, experiment: Object) -> tuple[str, float | None]:
        """Run or Stop, and the seconds until the duration is over."""
        before = experiment.get("desiredPhase")
        if deleting(chaos):
            return self._turn(chaos, before, "Stop", "Deleted", "Experiment has been deleted"), None
        if one_shot(chaos):
            return "Run", None
        left: float | None = None
        if chaos["spec"].get("duration"):
            ends = seconds_of(chaos["metadata"]["creationTimestamp"]) + parse_duration(
                chaos["spec"]["duration"]
            )
            left = ends - time.time()
            if left <= 0:
                text = "Time up according to the duration"
                return self._turn(chaos, before, "Stop", "TimeUp", text), None
        if annotations_of(chaos).get(PAUSE) == "true":
            return self._turn(chaos, before, "Stop", "Paused", "Experiment has been paused"), left
        return self._turn(chaos, before, "Run", "Started", "Experiment has started"), left

    def _turn(self, chaos: Object, before: str | None, phase: str, reason: str, message: str) -> str:
        if before != phase:
            self._say(chaos, reason, message)
        return phase

    def _select(self, chaos: Object) -> list[Object] | None:
        """The first records; None when the selection failed, which upstream doesn't try again by itself."""
        namespace, spec = chaos["metadata"]["namespace"], chaos["spec"]
        records = []
        try:
            groups = {".": spec} | (
                {".Target": spec["target"]} if isinstance(spec.get("target"), dict) else {}
            )
            for selector_key, group in groups.items():
                for pod in select(self._cache, namespace, group):
                    for identity in _identities(chaos, pod):
                        records.append(
                            {
                                "id": identity,
                                "selectorKey": selector_key,
                                "phase": NOT_INJECTED,
                                "injectedCount": 0,
                                "recoveredCount": 0,
                            }
                        )
        except SelectionError as error:
            self._say(chaos, "Failed", f"Failed to select targets: {error}", warning=True)
            return None
        return records

    async def _step(self, chaos: Object, record: Object, phase: str) -> bool:
        """Bring one record nearer to the desired phase; False when that failed and must be tried again."""
        wanted = INJECTED if phase == "Run" else NOT_INJECTED
        while record["phase"] != wanted:
            apply = record["phase"].startswith(NOT_INJECTED)
            operation = "Apply" if apply else "Recover"
            try:
                await (self._apply(chaos, record) if apply else self._recover(chaos, record))
            except Failed as error:
                if chaos["kind"] in _THROUGH_OBJECT:
                    record["phase"] = f"{NOT_INJECTED if apply else INJECTED}/Wait"
                _note(record, "Failed", operation, str(error))
                self._say(chaos, "Failed", f"Failed to {operation.lower()} chaos: {error}", warning=True)
                return False
            record["phase"] = INJECTED if apply else NOT_INJECTED
            record["injectedCount" if apply else "recoveredCount"] += 1
            _note(record, "Succeeded", operation)
            done = "Applied" if apply else "Recovered"
            self._say(chaos, done, f"Successfully {operation.lower()} chaos for {record['id']}")
        return True

    async def _begin(self, chaos: Object) -> Object:
        have = list(chaos["metadata"].get("finalizers") or ())
        if deleting(chaos) or FINALIZER in have:
            return chaos
        self._say(chaos, "FinalizerInited", "Finalizer has been inited")
        return await self._set_finalizers(chaos, [*have, FINALIZER])

    async def _finish(self, chaos: Object, records: list[Object] | None) -> None:
        """Let a deleted experiment go when everything is recovered, or when somebody forces it."""
        recovered = all(r["phase"] == NOT_INJECTED for r in records or ())
        forced = annotations_of(chaos).get(CLEAN) == "forced"
        if deleting(chaos) and chaos["metadata"].get("finalizers") and (recovered or forced):
            self._say(chaos, "FinalizerInited", "Finalizer has been removed")  # the reason is upstream's slip
            await self._set_finalizers(chaos, [])

    async def _set_finalizers(self, chaos: Object, finalizers: list[str]) -> Object:
        return await self._patch(chaos, {"metadata": {"finalizers": finalizers}})

    async def _write(self, chaos: Object, phase: str, records: list[Object] | None) -> None:
        experiment: Object = {"desiredPhase": phase}
        if records is not None:
            experiment["containerRecords"] = records
        status = {"conditions": _conditions(chaos, records), "experiment": experiment}
        if status != chaos.get("status"):
            await self._patch(chaos, {"status": status})

    async def _patch(self, chaos: Object, body: Object) -> Object:
        """Nobody else writes these fields, so nothing is compared before."""
        try:
            written = await self._cache.kube.patch(Ref.of(chaos), body, "merge")
        except ApiError as error:
            if error.status == 404:
                self._cache.drop(chaos)
                return chaos
            raise
        if written["metadata"].get("finalizers") or not deleting(written):
            self._cache.put(written)
        return written

    # -- effects -------------------------------------------------------------------------------

    async def _apply(self, chaos: Object, record: Object) -> None:
        pod = self._pod(record)
        if pod is None:
            raise Failed(_not_found(record))
        action = chaos["spec"].get("action")
        if chaos["kind"] == "PodChaos" and action == "pod-kill":
            if not await self._cache.delete(pod, grace=chaos["spec"].get("gracePeriod", 0)):
                raise Failed(_not_found(record))
        elif chaos["kind"] == "PodChaos" and action == "pod-failure":
            await self._swap_images(chaos, pod)
        elif chaos["kind"] == "NetworkChaos":
            if pod["spec"].get("hostNetwork"):
                where = "/".join(key_of(pod))
                raise Failed(f"It's dangerous to inject network chaos on a pod({where}) with `hostNetwork`")
            if record["phase"] == NOT_INJECTED:  # else it is entered, and waited for
                await self.books.enter(chaos, pod)
            self._fail_with(self.books.failure(pod))
        elif missing := daemon_missing(self._cache, pod):
            raise Failed(missing)
        elif action == "container-kill" and pod["spec"].get("restartPolicy") == "Never":
            await self._cache.delete(pod, grace=0)  # it would end for good, and its controller replace it
        elif action == "container-kill":
            await self._restart(key_of(pod), record["id"].split("/")[2])

    async def _recover(self, chaos: Object, record: Object) -> None:
        if annotations_of(chaos).get(STUCK) == "true":
            raise Failed("rpc error: code = Unknown desc = unable to flush tc qdisc: exit status 2")
        pod = self._pod(record)
        if pod is None or one_shot(chaos):
            return
        if chaos["kind"] == "PodChaos":
            await self._restore_images(chaos, pod)
        elif chaos["kind"] == "NetworkChaos":
            await self.books.take_out(chaos, pod)
            self._fail_with(self.books.failure(pod))
        else:
            self._fail_with(daemon_missing(self._cache, pod))

    def _fail_with(self, why: str) -> None:
        if why:
            raise Failed(why)

    def _pod(self, record: Object) -> Object | None:
        namespace, name = record["id"].split("/")[:2]
        return self._cache.get("Pod", (namespace, name))

    async def _swap_images(self, chaos: Object, pod: Object) -> None:
        notes, containers = {}, []
        for container in pod["spec"]["containers"]:
            key = _image_key(chaos, container)
            if key not in annotations_of(pod):
                notes[key] = container["image"]
            containers.append({"name": container["name"], "image": PAUSE_IMAGE})
        await self._set_images(pod, notes, containers)

    async def _restore_images(self, chaos: Object, pod: Object) -> None:
        notes: dict[str, None] = {}
        containers = []
        for container in pod["spec"]["containers"]:
            key = _image_key(chaos, container)
            image = annotations_of(pod).get(key)
            if image:
                notes[key] = None
                containers.append({"name": container["name"], "image": image})
        if containers:
            await self._set_images(pod, notes, containers)

    async def _set_images(self, pod: Object, notes: Any, containers: list[Object]) -> None:
        body = {"metadata": {"annotations": notes}, "spec": {"containers": containers}}
        try:
            self._cache.put(await self._cache.kube.patch(Ref.of(pod), body, "strategic"))
        except ApiError as error:
            raise Failed(error.message) from error

    def _say(self, chaos: Object, reason: str, message: str, *, warning: bool = False) -> None:
        component = "finalizers" if "Finalizer" in reason else "records"
        self._recorder.event(chaos, component, reason, message, warning=warning)


def one_shot(chaos: Object) -> bool:
    return chaos["kind"] == "PodChaos" and chaos["spec"].get("action") in ("pod-kill", "container-kill")


def injected(chaos: Object) -> list[Object]:
    """The records that are in force."""
    records = ((chaos.get("status") or {}).get("experiment") or {}).get("containerRecords") or ()
    return [r for r in records if r["phase"].startswith(INJECTED)]


def finished(chaos: Object) -> bool:
    """Whether a child of a Schedule has run its course."""
    status = chaos.get("status") or {}
    kinds = {c["type"]: c["status"] for c in status.get("conditions") or ()}
    if chaos["kind"] == "Workflow":
        return kinds.get("Accomplished") == "True"
    stopped = (status.get("experiment") or {}).get("desiredPhase") == "Stop"
    return (one_shot(chaos) and kinds.get("AllInjected") == "True") or (
        stopped and kinds.get("AllRecovered") == "True"
    )


def _conditions(chaos: Object, records: list[Object] | None) -> list[Object]:
    def every(phase: str) -> bool:
        return records is not None and all(r["phase"] == phase for r in records)

    truths = {
        "Selected": records is not None,
        "AllInjected": every(INJECTED),
        "AllRecovered": every(NOT_INJECTED),
        "Paused": annotations_of(chaos).get(PAUSE) == "true",
    }
    return [{"type": kind, "status": str(truth)} for kind, truth in truths.items()]


def _identities(chaos: Object, pod: Object) -> list[str]:
    """The records' ids that a selected pod makes: of the pod, or of each of its containers that is meant."""
    base = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    if chaos["kind"] not in _OF_CONTAINERS and chaos["spec"].get("action") != "container-kill":
        return [base]
    names = [c["name"] for c in pod["spec"]["containers"]]
    wanted = chaos["spec"].get("containerNames") or names[:1]
    return [f"{base}/{name}" for name in names if name in wanted]


def _note(record: Object, kind: str, operation: str, message: str = "") -> None:
    entry = {"type": kind, "operation": operation, "timestamp": now()} | (
        {"message": message} if message else {}
    )
    record["events"] = [*(record.get("events") or ()), entry][-MOST_EVENTS:]


def _not_found(record: Object) -> str:
    return f'Pod "{record["id"].split("/")[1]}" not found'


def _image_key(chaos: Object, container: Object) -> str:
    """The annotation that keeps a container's own image; too long a name leaves the container's alone."""
    key = f"chaos-mesh-{chaos['metadata']['name']}-pod-failure-{container['name']}-normal-image"
    return key if len(key) <= 63 else f"{container['name']}-normal"
