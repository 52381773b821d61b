"""A simulated slurmctld: the GPU nodes of the cluster in one partition, and the training job on them.

It keeps what an admin sets (flags, reasons, the partition's state); all else it reads off the cluster: a node
without power doesn't respond, the job runs where its pods are. A requeue ends the pods, and the cluster makes
new ones, as a training operator would.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gameday.platform.errors import PlatformError
from gameday.platform.objects import Object, is_ready
from gameday.sandbox.cache import Cache
from gameday.sandbox.facts import deleting, gpus
from gameday.sandbox.fleet.model import WORKERS
from gameday.sandbox.fleet.nodes import GPUS, is_simulated
from gameday.sandbox.fleet.state import TRAINER, pods_of

PARTITION = "gpu"
BEGIN = 1.0  # seconds that a requeued job waits before it may start; Slurm's default is two minutes
TRAINING, WAITING = 1001, 1002  # the jobs' numbers: the one that trains, and one that never gets enough nodes
_WHY = {"DOWN": "PartitionDown", "INACTIVE": "PartitionInactive", "DRAIN": "PartitionDown"}


class Refusal(Exception):
    """Slurm's no. `number` is Slurm's own for it."""

    def __init__(self, number: int, text: str) -> None:
        self.number, self.text = number, text
        super().__init__(text)


@dataclass
class Admin:
    """What was set on a node by hand or by the glue."""

    flags: set[str] = field(default_factory=set)  # DRAIN, DOWN
    reason: str = ""
    at: float = 0.0  # Unix time of the reason


class Controller:
    """The cluster's state and what can be done to it. `listeners` hear the name of each node that changed."""

    def __init__(self, cache: Cache, lives: Callable[[str], bool]) -> None:
        self._cache, self._lives = cache, lives
        self.on = True  # switched off, it answers nobody
        self.partition = "UP"
        self.listeners: list[Callable[[str], None]] = []
        self._admin: dict[str, Admin] = {}
        self._restarts = 0
        self._running_on: tuple[str, ...] = ()  # () while the training job waits
        self._begins = 0.0
        cache.listen("Pod", self._pod_changed)

    # -- the state -----------------------------------------------------------------------------

    def admin(self, node: str) -> Admin:
        return self._admin.setdefault(node, Admin())

    def names(self) -> list[str]:
        nodes = [n for n in self._cache.all("Node") if is_simulated(n) and gpus(n)]
        return sorted(n["metadata"]["name"] for n in nodes)

    def states(self, node: str) -> list[str]:
        """A node's base state and its flags, as the API lists them."""
        flags = self.admin(node).flags
        if not self._lives(node):
            return ["DOWN", *sorted(flags - {"DOWN"}), "NOT_RESPONDING"]
        base = "DOWN" if "DOWN" in flags else "MIXED" if node in self._running_on else "IDLE"
        return [base, *sorted(flags - {"DOWN"})]

    def running_on(self) -> tuple[str, ...]:
        """The nodes of the training job; () while it waits."""
        self._look()
        return self._running_on

    def nodes(self) -> list[Object]:
        self._look()
        return [self._node(name) for name in self.names()]

    def partitions(self) -> list[Object]:
        names = ",".join(self.names())
        return [{"name": PARTITION, "partition": {"state": [self.partition]}, "nodes": {"configured": names}}]

    def jobs(self) -> list[Object]:
        self._look()
        running = self._running_on
        why = _WHY.get(self.partition) or ("BeginTime" if time.time() < self._begins else "Resources")
        trainer = _job(TRAINING, "trainer", running, why) | {"restart_cnt": self._restarts}
        waiting = _job(WAITING, "pretrain", (), _WHY.get(self.partition, "Resources"))
        return [*([trainer] if self._workers() or self._restarts else []), waiting]

    def _node(self, name: str) -> Object:
        admin = self.admin(name)
        busy = GPUS // 2 if name in self._running_on else 0
        return {
            "name": name,
            "hostname": name,
            "state": self.states(name),
            "reason": admin.reason,
            "reason_set_by_user": "slurm" if admin.reason else "",
            "reason_changed_at": {"set": True, "infinite": False, "number": int(admin.at)},
            "partitions": [PARTITION],
            "gres": f"gpu:h100:{GPUS}",
            "gres_used": f"gpu:h100:{busy}",
            "cpus": 128,
        }

    # -- what an admin can do ------------------------------------------------------------------

    def update_node(self, name: str, state: str, reason: str) -> None:
        if name not in self.names():
            raise Refusal(2018, "Invalid node name specified")
        admin = self.admin(name)
        if state in ("DRAIN", "DOWN"):
            if not reason and not admin.reason:
                raise Refusal(
                    2032, "Invalid node state specified"
                )  # Slurm wants a reason, and says just this
            admin.flags.add(state)
        elif state in ("RESUME", "UNDRAIN", "IDLE"):
            if not admin.flags and state == "RESUME":
                raise Refusal(2032, "Invalid node state specified")
            admin.flags -= {"DRAIN"} if state == "UNDRAIN" else {"DRAIN", "DOWN"}
        elif state:
            raise Refusal(2032, "Invalid node state specified")
        admin.reason = (reason or admin.reason) if admin.flags else ""
        admin.at = time.time()
        self._tell(name)

    def update_partition(self, name: str, state: str) -> None:
        if name != PARTITION:
            raise Refusal(2000, "Invalid partition name specified")
        if state not in ("UP", "DOWN", "DRAIN", "INACTIVE"):
            raise Refusal(2039, "Invalid partition state specified")
        self.partition = state

    async def requeue(self, number: int) -> None:
        """End the job's pods; the job starts again when all are back."""
        if number not in (TRAINING, WAITING):
            raise Refusal(2017, "Invalid job id specified")
        if number == WAITING or not self.running_on():
            raise Refusal(2021, "Job is pending execution")
        self._wait(BEGIN)
        await asyncio.gather(*(self._end(p) for p in self._workers()))

    async def _end(self, pod: Object) -> None:
        try:
            await self._cache.delete(pod)
        except PlatformError:
            return  # it is gone, or the API is away: then the pod stays, and so does the job

    # -- the training job ----------------------------------------------------------------------

    def _workers(self) -> list[Object]:
        return [p for p in pods_of(self._cache, TRAINER) if is_ready(p) and not deleting(p)]

    def _pod_changed(self, new: Object | None, old: Object | None) -> None:
        pod = new or old
        if pod is not None and pod["metadata"]["namespace"] == TRAINER[0]:
            self._look()

    def _look(self) -> None:
        """Follow the pods: the job runs when all of them do, and is requeued when one of them is lost."""
        nodes = tuple(sorted(p["spec"]["nodeName"] for p in self._workers()))
        if self._running_on and len(nodes) < WORKERS:
            self._wait(0.0)
        elif len(nodes) >= WORKERS and (self._running_on or self._may_begin()):
            changed = set(nodes) ^ set(self._running_on)
            self._running_on = nodes
            for name in changed:
                self._tell(name)

    def _may_begin(self) -> bool:
        return self.partition == "UP" and time.time() >= self._begins

    def _wait(self, seconds: float) -> None:
        self._restarts += 1
        self._begins = time.time() + seconds
        before, self._running_on = self._running_on, ()
        for name in before:
            self._tell(name)

    def _tell(self, node: str) -> None:
        for listener in self.listeners:
            listener(node)


def _job(number: int, name: str, nodes: tuple[str, ...], why: str) -> dict[str, Any]:
    return {
        "job_id": number,
        "name": name,
        "job_state": ["RUNNING" if nodes else "PENDING"],
        "state_reason": "None" if nodes else why,
        "nodes": ",".join(nodes),
        "node_count": {"set": True, "infinite": False, "number": WORKERS},
        "partition": PARTITION,
        "restart_cnt": 0,
        "requeue": True,
        "tres_alloc_str": f"gres/gpu={WORKERS * GPUS // 2}" if nodes else "",
        "tres_req_str": f"gres/gpu={WORKERS * GPUS // 2}",
        "user_name": "trainee",
    }
