"""The simulated kubelets, all in one: bound pods run, deleted pods end, changed images restart containers."""

from __future__ import annotations

import asyncio
import time
import zlib
from typing import Any

from gameday.platform.errors import ApiError
from gameday.platform.objects import MIRROR_POD, Object, Ref, is_finished, is_true
from gameday.sandbox.cache import Cache, Key, key_of
from gameday.sandbox.facts import annotations_of, deleting, new_condition, now, seconds_of, with_conditions
from gameday.sandbox.fleet import resizing
from gameday.sandbox.fleet.host import Hosts
from gameday.sandbox.fleet.mirror import mirror_pod
from gameday.sandbox.fleet.nodes import address_of, is_simulated
from gameday.sandbox.fleet.programs import Programs, is_program, not_pulled
from gameday.sandbox.recorder import Recorder
from gameday.sandbox.work import Work

START = "sandbox.gameday.dev/start-seconds"  # on a pod: from started to Ready
STOP = "sandbox.gameday.dev/stop-seconds"  # on a pod: how long its program takes to end when told to
NO_BACKOFF = "sandbox.gameday.dev/no-backoff"  # on a Job's pod: see _forget
STATIC = "sandbox.gameday.dev/static-pods"  # on a node: names of pods that its kubelet runs from files
JOB_TRACKING = "batch.kubernetes.io/job-tracking"  # the finalizer that makes a Job count a pod
PAUSE = "gcr.io/google-containers/pause"  # what Chaos Mesh's pod-failure puts in place of the images
TERMINATED = 143  # the exit code of a program that ended on SIGTERM


class Kubelets:
    """One work queue over the pods of all simulated nodes."""

    def __init__(self, cache: Cache, recorder: Recorder, longest_stop: float, hosts: Hosts) -> None:
        self._cache = cache
        self._kube = cache.kube
        self._recorder = recorder
        self._longest_stop = longest_stop
        self._work: Work[Key] = Work("kubelet", self._reconcile, workers=32)
        self._nodes: Work[Key] = Work("kubelet static pods", self._static_pods, workers=2)
        self._ending: dict[str, float] = {}  # pod's uid: loop time at which its program has ended
        self._programs = Programs(cache.kube, hosts, self._work.add)
        self.dead: set[str] = set()  # nodes without power
        self.stopped: set[str] = set()  # nodes on which only the kubelet does not run
        cache.listen("Pod", self._pod_changed)
        cache.listen("Node", self._node_changed)

    async def run(self) -> None:
        for node in self._cache.all("Node"):
            self._node_changed(node, None)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._work.run())
            group.create_task(self._nodes.run())

    def lives(self, node: str) -> bool:
        """Whether a node has power, so that what runs there goes on running."""
        return node not in self.dead

    def works(self, node: str) -> bool:
        """Whether a node's kubelet does anything."""
        return self.lives(node) and node not in self.stopped

    def switch(self, node: str, *, on: bool) -> None:
        """Take a node's power away (it keeps quiet, its programs are no more) or give it back."""
        (self.dead.discard if on else self.dead.add)(node)
        self.stopped.discard(node)  # a machine that starts starts its kubelet
        for pod in self._cache.pods_on(node):
            if not on:
                self._programs.power_cut(pod)
            self._work.add(key_of(pod))

    def stop(self, node: str, *, stopped: bool) -> None:
        """Let a node's kubelet stop, or run again, while its pods go on running."""
        (self.stopped.add if stopped else self.stopped.discard)(node)
        for pod in self._cache.pods_on(node):
            self._work.add(key_of(pod))

    def log(self, pod: Object) -> str:
        """A container's log: only the nodes' programs have one."""
        return self._programs.log(pod) or f"{pod['metadata']['name']}: the sandbox keeps no logs\n"

    async def restart(self, key: Key, container: str = "") -> None:
        """Restart a pod's containers, or the one, in place, as after a crash."""
        pod = self._cache.get("Pod", key)
        if pod is not None and self._is_mine(pod):
            await self._run(pod, restarted=True, only=container)

    # -- watching ------------------------------------------------------------------------------

    def _pod_changed(self, new: Object | None, old: Object | None) -> None:
        pod = new or old
        if pod is None or not pod["spec"].get("nodeName"):
            return
        if new is None:
            self._ending.pop(pod["metadata"]["uid"], None)
            self._programs.gone(pod)
            if MIRROR_POD in annotations_of(pod):
                self._nodes.add(("", pod["spec"]["nodeName"]))
        else:
            self._work.add(key_of(new))

    def _node_changed(self, new: Object | None, old: Object | None) -> None:
        if new is None or (old is not None and annotations_of(new) == annotations_of(old)):
            return
        if is_simulated(new) and STATIC in annotations_of(new):
            self._nodes.add(key_of(new))
        if old is None:
            for pod in self._cache.pods_on(new["metadata"]["name"]):
                self._work.add(key_of(pod))

    def _is_mine(self, pod: Object) -> bool:
        name = pod["spec"].get("nodeName")
        node = self._cache.get("Node", ("", name)) if name else None
        return node is not None and is_simulated(node) and self.works(name)

    # -- pods ----------------------------------------------------------------------------------

    async def _reconcile(self, key: Key) -> float | None:
        pod = self._cache.get("Pod", key)
        if pod is None or not self._is_mine(pod):
            return None
        try:
            if is_program(pod):
                return await self._program(pod)
            if deleting(pod):
                return await self._end(pod)
            if is_finished(pod):
                return None
            return await self._start(pod)
        except ApiError as error:
            if error.status == 404:
                return None  # it went away meanwhile; the watch will tell
            raise

    async def _start(self, pod: Object) -> float | None:
        """Waiting, then running, then ready."""
        status = pod.get("status") or {}
        states = status.get("containerStatuses") or ()
        images = {c["name"]: c["image"] for c in pod["spec"]["containers"]}
        if not states:
            await self._run(pod)
        elif any(images[s["name"]] != s.get("image") for s in states if s["name"] in images):
            await self._run(pod, restarted=True)
        elif resizing.differs(pod):
            return await self._resize(pod)
        elif not is_true(pod, "Ready") and not _paused(pod):
            left = _left(pod)
            if left > 0:
                return left
            await self._ready(pod)
        return None

    async def _run(self, pod: Object, *, restarted: bool = False, only: str = "") -> None:
        old = {s["name"]: s for s in (pod.get("status") or {}).get("containerStatuses") or ()}
        ready = not _paused(pod) and _start_seconds(pod) <= 0
        meant = [c for c in pod["spec"]["containers"] if only in ("", c["name"])]
        for container in meant:
            if old.get(container["name"], container)["image"] != container["image"]:
                text = f"Container {container['name']} definition changed, will be restarted"
                self._say(pod, "Killing", text)
            self._say(pod, "Started", f"Started container {container['name']}")
        states = {c["name"]: _running(c, old.get(c["name"]), ready, restarted) for c in meant}
        kinds = {"PodReadyToStartContainers": True, "Initialized": True, "PodScheduled": True}
        kinds |= {"ContainersReady": ready, "Ready": ready}
        address = pod_address(pod)
        status: dict[str, Any] = {
            "phase": "Running",
            "conditions": with_conditions(pod, [_condition(pod, k, v) for k, v in kinds.items()]),
            "containerStatuses": [
                states.get(n) or old[n] for n in (c["name"] for c in pod["spec"]["containers"])
            ],
            "hostIP": address_of(pod["spec"]["nodeName"]),
            "hostIPs": [{"ip": address_of(pod["spec"]["nodeName"])}],
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": (pod.get("status") or {}).get("startTime") or now(),
        }
        await self._write(pod, status)

    async def _program(self, pod: Object) -> float | None:
        """A pod with the node's own program, which says itself when it has ended."""
        image = pod["spec"]["containers"][0]["image"]
        if image.partition("/")[0].endswith(".invalid") and not deleting(pod):
            await self._write(pod, not_pulled(pod))
            return None
        status, wait = await self._programs.step(pod)
        if status is not None:
            await self._write(pod, status)
        if deleting(pod) and wait is None:
            await self._cache.delete(pod, grace=0)
        return wait

    async def _resize(self, pod: Object) -> float | None:
        node = self._cache.get("Node", ("", pod["spec"]["nodeName"]))
        assert node is not None, "only pods of the fleet's nodes come here"
        status, wait = resizing.step(pod, node, self._cache.pods_on(node["metadata"]["name"]))
        if status is not None:
            await self._write(pod, status)
        return wait

    async def _ready(self, pod: Object) -> None:
        states = [s | {"ready": True, "started": True} for s in pod["status"]["containerStatuses"]]
        entries = [_condition(pod, k, True) for k in ("ContainersReady", "Ready")]
        await self._write(pod, {"conditions": with_conditions(pod, entries), "containerStatuses": states})

    async def _end(self, pod: Object) -> float | None:
        """Tell the program to stop, wait for it, report its end where somebody counts it, forget the pod."""
        uid = pod["metadata"]["uid"]
        clock = asyncio.get_running_loop().time()
        if uid not in self._ending:
            grace = float(pod["metadata"].get("deletionGracePeriodSeconds") or 0)
            stop = float(annotations_of(pod).get(STOP, 0))
            self._ending[uid] = clock + min(grace, stop, self._longest_stop)
            for container in pod["spec"]["containers"]:
                self._say(pod, "Killing", f"Stopping container {container['name']}")
        if self._ending[uid] > clock:
            return self._ending[uid] - clock
        if annotations_of(pod).get(NO_BACKOFF) == "true":
            pod = await self._forget(pod)
        elif pod["spec"].get("restartPolicy") != "Always" and not is_finished(pod):
            await self._write(pod, _ended(pod))
        await self._cache.delete(pod, grace=0)
        return None

    async def _forget(self, pod: Object) -> Object:
        """Keep a pod's end from its Job, which would wait longer after each one before it replaces it.

        The Job controller doubles that wait even for failures that a podFailurePolicy ignores, up to ten
        minutes; the training operators that the sandbox's trainer stands for don't.
        """
        kept = [f for f in pod["metadata"].get("finalizers") or () if f != JOB_TRACKING]
        if kept == (pod["metadata"].get("finalizers") or []):
            return pod
        changed = await self._kube.patch(Ref.of(pod), {"metadata": {"finalizers": kept}}, "merge")
        self._cache.put(changed)
        return changed

    async def _write(self, pod: Object, status: Object) -> None:
        self._cache.put(
            await self._kube.patch(Ref.of(pod), {"status": status}, "merge", subresource="status")
        )

    def _say(self, pod: Object, reason: str, message: str) -> None:
        self._recorder.event(pod, "kubelet", reason, message)

    # -- static pods ---------------------------------------------------------------------------

    async def _static_pods(self, key: Key) -> float | None:
        """Mirror pods for a node's static pods; one that was deleted comes back, as with a real kubelet."""
        node = self._cache.get("Node", key)
        if node is None or not self.works(key[1]):
            return None
        for name in annotations_of(node).get(STATIC, "").split(","):
            full = f"{name.strip()}-{key[1]}"
            if name.strip() and self._cache.get("Pod", ("kube-system", full)) is None:
                self._cache.put(await self._kube.create(mirror_pod(node, name.strip(), full)))
        return None


def pod_address(pod: Object) -> str:
    """A stable address from RFC 6598's shared block."""
    number = zlib.crc32(pod["metadata"]["uid"].encode())
    return f"100.{64 + number % 64}.{number >> 8 & 255}.{(number >> 16) % 254 + 1}"


def _paused(pod: Object) -> bool:
    return any(c["image"].startswith(PAUSE) for c in pod["spec"]["containers"])


def _start_seconds(pod: Object) -> float:
    return float(annotations_of(pod).get(START, 0))


def _left(pod: Object) -> float:
    """Seconds until a pod that was started is Ready."""
    started = max(seconds_of(s["state"]["running"]["startedAt"]) for s in pod["status"]["containerStatuses"])
    return started + _start_seconds(pod) - time.time()


def _condition(pod: Object, kind: str, status: bool) -> Object:
    reason = "" if status or kind not in ("Ready", "ContainersReady") else "ContainersNotReady"
    return new_condition(pod, kind, status, reason)


def _running(container: Object, old: Object | None, ready: bool, restarted: bool) -> Object:
    state: dict[str, Any] = {
        "name": container["name"],
        "image": container["image"],
        "imageID": f"sha256:{zlib.crc32(container['image'].encode()):064x}",
        "containerID": f"containerd://{zlib.crc32(now(micro=True).encode()):064x}",
        "ready": ready,
        "started": ready,
        "restartCount": 0,
        "state": {"running": {"startedAt": now()}},
        "lastState": {},
        **resizing.reported(container),
    }
    if old:
        state["restartCount"] = old.get("restartCount", 0) + restarted
        since = (old.get("state") or {}).get("running", {}).get("startedAt")
        ended = {"exitCode": TERMINATED, "reason": "Error", "startedAt": since, "finishedAt": now()}
        state["lastState"] = {"terminated": ended | {"containerID": old.get("containerID")}}
    return state


def _ended(pod: Object) -> Object:
    """The last status of a pod whose program was told to stop."""
    states = []
    for old in (pod.get("status") or {}).get("containerStatuses") or ():
        since = (old.get("state") or {}).get("running", {}).get("startedAt")
        ended = {"exitCode": TERMINATED, "reason": "Error", "startedAt": since, "finishedAt": now()}
        states.append(old | {"ready": False, "started": False, "state": {"terminated": ended}})
    entries = [_condition(pod, k, False) for k in ("ContainersReady", "Ready")]
    return {"phase": "Failed", "conditions": with_conditions(pod, entries), "containerStatuses": states}
