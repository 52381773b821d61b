"""Programs on simulated nodes: the real `gameday.node`, in a thread, over the node's simulated tools.

Each gets what a kubelet gives to a container: its files from the ConfigMap, an account with a token, signals,
a log, and a place for its last words.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gameday.node.__main__ import message
from gameday.node.deadman import Api, DeadMan
from gameday.node.program import Program
from gameday.node.task import TERMINATED, Task
from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_finished
from gameday.sandbox.cache import Key, key_of
from gameday.sandbox.facts import deleting, new_condition, now, with_conditions
from gameday.sandbox.fleet.host import Hosts, SimulatedHost, SimulatedMemory

MODULE = ["python3", "-m", "gameday.node"]  # how the command of such a container begins
BACKOFF = 2.0  # seconds before a container that ended badly is started again (upstream: 10)
POLL = 0.1


class Killed(BaseException):
    """The program's process is no more."""


class Running:
    """One container: the program's thread, its log, and how it ended."""

    def __init__(self, task: Task, host: SimulatedHost, memory: SimulatedMemory, api: Api) -> None:
        self.lines: list[str] = []
        self.code: int | None = None
        self.said = ""
        self.started = now()
        self._host = host
        self._switch = DeadMan(task, api)
        self._program = Program(task, host, memory, self._switch, self._hear)

    def start(self, name: str, ended: Callable[[], None]) -> None:
        threading.Thread(target=self._run, args=(ended,), name=name, daemon=True).start()

    def _hear(self, line: dict[str, Any]) -> None:
        self.lines.append(json.dumps(line))

    def _run(self, ended: Callable[[], None]) -> None:
        try:
            last = self._program.run()
            self.said, self.code = message(last), 0 if last["event"] == "out" else 1
        except Killed:
            self.code = 137
        except Exception as error:  # what an interpreter does with it
            self.lines.append(f"{type(error).__name__}: {error}")
            self.code = 1
        ended()

    def terminate(self) -> None:
        """SIGTERM."""
        self._switch.tell(TERMINATED)

    def kill(self) -> None:
        """SIGKILL, or a power cut: nothing is reverted."""
        self._host.cut(Killed())
        self._switch.tell("killed")


@dataclass
class Programs:
    """All programs of the fleet. `wake` is called with a pod's key when its program has ended."""

    kube: Kube
    hosts: Hosts
    wake: Callable[[Key], None]
    _running: dict[str, Running] = field(default_factory=dict)  # by the pod's uid
    _again: dict[str, float] = field(default_factory=dict)  # uid: monotonic time of the next start

    def log(self, pod: Object) -> str:
        running = self._running.get(pod["metadata"]["uid"])
        return "".join(f"{line}\n" for line in running.lines) if running else ""

    def gone(self, pod: Object) -> None:
        """The pod vanished from the API: a kubelet ends its containers then."""
        if running := self._running.pop(pod["metadata"]["uid"], None):
            running.terminate()

    def power_cut(self, pod: Object) -> None:
        if running := self._running.pop(pod["metadata"]["uid"], None):
            running.kill()

    async def step(self, pod: Object) -> tuple[Object | None, float | None]:
        """The status to write, if any, and when to look again, in seconds."""
        uid = pod["metadata"]["uid"]
        running = self._running.get(uid)
        if running is None:
            if is_finished(pod) or deleting(pod):
                return None, None
            wait = self._again.get(uid, 0.0) - time.monotonic()
            return (None, wait) if wait > 0 else (_up(pod, await self._start(pod)), None)
        if running.code is None:
            if deleting(pod):
                running.terminate()
            return None, POLL if deleting(pod) else None
        if running.code == 0 or deleting(pod):
            return (None if is_finished(pod) else _over(pod, running)), None
        del self._running[uid]
        self._again[uid] = time.monotonic() + BACKOFF
        return _broken(pod, running), BACKOFF

    async def _start(self, pod: Object) -> Running:
        """Raises ApiError while the ConfigMap or the account is not there."""
        meta, spec = pod["metadata"], pod["spec"]
        space = meta["namespace"]
        volume = next(v["configMap"]["name"] for v in spec["volumes"] if "configMap" in v)
        files = await self.kube.get(Ref("v1", "ConfigMap", volume, space))
        command = spec["containers"][0]["command"]
        mode = command[command.index("--mode") + 1] if "--mode" in command else None
        task = Task.read(files["data"]["task.json"], mode)
        account = await self._account(space, spec["serviceAccountName"])
        loop = asyncio.get_running_loop()
        host = SimulatedHost(spec["nodeName"], self.hosts, loop)
        memory = SimulatedMemory(spec["nodeName"], task.id, self.hosts)
        running = Running(task, host, memory, Api(task.api_server or self.kube.server, account.name))
        self._running[meta["uid"]] = running

        def ended() -> None:
            account.cleanup()
            loop.call_soon_threadsafe(self.wake, key_of(pod))

        running.start(meta["name"], ended)
        return running

    async def _account(self, space: str, name: str) -> tempfile.TemporaryDirectory[str]:
        """The folder that a kubelet mounts: the account's token, and the certificate to know the API by."""
        path = f"/api/v1/namespaces/{space}/serviceaccounts/{name}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        told = json.loads(await self.kube.request("POST", path, verb="create", what="a token", body=body))
        folder: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory(prefix="gameday-account-")
        Path(folder.name, "token").write_text(told["status"]["token"])
        try:
            root = await self.kube.get(Ref("v1", "ConfigMap", "kube-root-ca.crt", space))
            Path(folder.name, "ca.crt").write_text(root["data"]["ca.crt"])
        except ApiError as error:
            if error.status != 404:  # the embedded API has none, and speaks plain HTTP
                raise
        return folder


def is_program(pod: Object) -> bool:
    """Whether a pod runs the node's program."""
    return bool(pod["spec"]["containers"][0].get("command", [])[: len(MODULE)] == MODULE)


# -- statuses --------------------------------------------------------------------------------------


def _up(pod: Object, running: Running) -> Object:
    old = ((pod.get("status") or {}).get("containerStatuses") or [{}])[0]
    state = {"running": {"startedAt": running.started}}
    count = old.get("restartCount", 0) + ("restartCount" in old)
    past = old.get("lastState") or {}
    if not past and "running" in (old.get("state") or {}):  # whoever knew how it ended is gone
        past = {"terminated": {"exitCode": 137, "reason": "Unknown"}}
    return _status(pod, "Running", state, past, ready=True, restarts=count)


def not_pulled(pod: Object) -> Object:
    """The status of a pod whose image nobody has: no host's name ends in .invalid (RFC 2606)."""
    image = pod["spec"]["containers"][0]["image"]
    why = f'failed to pull image "{image}": dial tcp: lookup {image.partition("/")[0]}: no such host'
    return _status(pod, "Pending", {"waiting": {"reason": "ErrImagePull", "message": why}}, {})


def _over(pod: Object, running: Running) -> Object:
    phase = "Failed" if running.code else "Succeeded"
    return _status(pod, phase, {"terminated": _terminated(running)}, {}, restarts=_restarts(pod))


def _broken(pod: Object, running: Running) -> Object:
    waiting = {"reason": "CrashLoopBackOff", "message": f"back-off {BACKOFF:g}s restarting failed container"}
    past = {"terminated": _terminated(running)}
    return _status(pod, "Running", {"waiting": waiting}, past, restarts=_restarts(pod))


def _restarts(pod: Object) -> int:
    states = (pod.get("status") or {}).get("containerStatuses") or [{}]
    return int(states[0].get("restartCount", 0))


def _terminated(running: Running) -> Object:
    ended = {"exitCode": running.code, "reason": "Error" if running.code else "Completed"}
    times = {"startedAt": running.started, "finishedAt": now()}
    return ended | times | ({"message": running.said} if running.said else {})


def _status(
    pod: Object, phase: str, state: Object, past: Object, *, ready: bool = False, restarts: int = 0
) -> Object:
    container = pod["spec"]["containers"][0]
    name, image = container["name"], container["image"]
    entry = {
        "name": name,
        "image": image,
        "imageID": f"sha256:{zlib.crc32(image.encode()):064x}",
        "ready": ready,
        "started": ready,
        "restartCount": restarts,
        "state": state,
        "lastState": past,
    }
    entries = [new_condition(pod, k, True) for k in ("PodScheduled", "Initialized")]
    entries += [new_condition(pod, k, ready) for k in ("ContainersReady", "Ready")]
    begun = (pod.get("status") or {}).get("startTime") or now()
    conditions = with_conditions(pod, entries)
    return {"phase": phase, "startTime": begun, "conditions": conditions, "containerStatuses": [entry]}
