"""Deployments: one ReplicaSet for each version of the template, rolled from the old to the new."""

from __future__ import annotations

import math
import time
from typing import Any

from gameday.platform.objects import Object, Ref, condition
from gameday.sandbox.cache import Cache, Key, key_of
from gameday.sandbox.controllers.base import Controller
from gameday.sandbox.facts import (
    annotations_of,
    deleting,
    digest,
    new_condition,
    now,
    owner_reference,
    seconds_of,
    with_conditions,
)
from gameday.sandbox.recorder import Recorder

REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"


class Deployments(Controller):
    kind = "Deployment"
    component = "deployment-controller"

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        super().__init__(cache, recorder)
        cache.listen("ReplicaSet", self.owner_changed)

    async def reconcile(self, key: Key) -> float | None:
        deployment = self.cache.get(self.kind, key)
        if deployment is None or deleting(deployment):
            return None
        sets = [s for s in self.cache.owned(deployment, "ReplicaSet") if not deleting(s)]
        new = next((s for s in sets if _same_template(s, deployment)), None)
        old = [s for s in sets if s is not new]
        if not deployment["spec"].get("paused"):
            if new is None:
                new = await self._create(deployment, old)
            await self._roll(deployment, new, old)
            await self._forget_history(deployment, old)
        return await self._status(key)

    async def _create(self, deployment: Object, old: list[Object]) -> Object:
        template = deployment["spec"]["template"]
        hashed = digest(template)
        labels = {**(template["metadata"].get("labels") or {}), HASH: hashed}
        selector = deployment["spec"]["selector"]
        match = {**(selector.get("matchLabels") or {}), HASH: hashed}
        revision = str(1 + max((int(annotations_of(s).get(REVISION, 0)) for s in old), default=0))
        spec: dict[str, Any] = {
            "replicas": 0,
            "selector": {**selector, "matchLabels": match},
            "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
        }
        if deployment["spec"].get("minReadySeconds"):
            spec["minReadySeconds"] = deployment["spec"]["minReadySeconds"]
        created = await self.kube.create(
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {
                    "name": f"{deployment['metadata']['name']}-{hashed}",
                    "namespace": deployment["metadata"]["namespace"],
                    "labels": labels,
                    "annotations": {REVISION: revision},
                    "ownerReferences": [owner_reference(deployment)],
                },
                "spec": spec,
            }
        )
        self.cache.put(created)
        await self._note_revision(deployment, created)
        return created

    async def _note_revision(self, deployment: Object, new: Object) -> None:
        revision = annotations_of(new)[REVISION]
        if annotations_of(deployment).get(REVISION) != revision:
            body = {"metadata": {"annotations": {REVISION: revision}}}
            self.cache.put(await self.kube.patch(Ref.of(deployment), body, "merge"))

    async def _roll(self, deployment: Object, new: Object, old: list[Object]) -> None:
        """One step: the new set up as the surge allows, the old ones down as availability does."""
        wanted = deployment["spec"].get("replicas", 1)
        strategy = deployment["spec"].get("strategy") or {}
        if not any(_replicas(s) for s in old) and new:
            await self._scale(deployment, new, wanted)
            return
        if old and int(annotations_of(new).get(REVISION, 0)) < max(
            int(annotations_of(s).get(REVISION, 0)) for s in old
        ):
            await self._take_over(deployment, new, old)  # an older template came back: a rollback
        if strategy.get("type") == "Recreate":
            for each in old:
                await self._scale(deployment, each, 0)
            if not any(s.get("status", {}).get("replicas") for s in old):
                await self._scale(deployment, new, wanted)
            return
        rolling = strategy.get("rollingUpdate") or {}
        surge = _amount(rolling.get("maxSurge", "25%"), wanted, up=True)
        unavailable = _amount(rolling.get("maxUnavailable", "25%"), wanted, up=False)
        if not surge and not unavailable:
            unavailable = 1
        total = sum(_replicas(s) for s in [new, *old])
        room = max(0, wanted + surge - total)
        await self._scale(deployment, new, min(wanted, _replicas(new) + room))
        await self._shrink(deployment, new, old, wanted - unavailable)

    async def _shrink(self, deployment: Object, new: Object, old: list[Object], least: int) -> None:
        """Old sets give up what isn't available first, then as much as keeps `least` pods available."""
        new = self.cache.get("ReplicaSet", key_of(new)) or new
        spare = sum(_available(s) for s in [new, *old]) - least
        for each in sorted(old, key=lambda s: str(s["metadata"]["creationTimestamp"])):
            broken = _replicas(each) - _available(each)
            cut = min(_replicas(each), max(0, broken) + max(0, min(spare, _available(each))))
            spare -= cut - max(0, broken)
            if cut > 0:
                await self._scale(deployment, each, _replicas(each) - cut)

    async def _take_over(self, deployment: Object, new: Object, old: list[Object]) -> None:
        revision = str(1 + max(int(annotations_of(s).get(REVISION, 0)) for s in old))
        body = {"metadata": {"annotations": {REVISION: revision}}}
        new = await self.kube.patch(Ref.of(new), body, "merge")
        self.cache.put(new)
        await self._note_revision(deployment, new)

    async def _scale(self, deployment: Object, replica_set: Object, count: int) -> None:
        before = _replicas(replica_set)
        if before == count:
            return
        self.cache.put(await self.kube.patch(Ref.of(replica_set), {"spec": {"replicas": count}}, "merge"))
        name = replica_set["metadata"]["name"]
        way = "up" if count > before else "down"
        text = f"Scaled {way} replica set {name} from {before} to {count}"
        self.say(deployment, "ScalingReplicaSet", text)

    async def _forget_history(self, deployment: Object, old: list[Object]) -> None:
        idle = [s for s in old if not _replicas(s) and not s.get("status", {}).get("replicas")]
        idle.sort(key=lambda s: int(annotations_of(s).get(REVISION, 0)))
        for each in idle[: max(0, len(idle) - deployment["spec"].get("revisionHistoryLimit", 10))]:
            await self.kube.delete(Ref.of(each))

    async def _status(self, key: Key) -> float | None:
        deployment = self.cache.get(self.kind, key)
        if deployment is None:
            return None
        sets = [s for s in self.cache.owned(deployment, "ReplicaSet") if not deleting(s)]
        new = next((s for s in sets if _same_template(s, deployment)), None)
        wanted = deployment["spec"].get("replicas", 1)
        total, ready, good = (_sum(sets, k) for k in ("replicas", "readyReplicas", "availableReplicas"))
        updated = _sum([new], "replicas") if new else 0
        rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
        least = wanted - _amount(rolling.get("maxUnavailable", 0), wanted, up=False)
        enough = new_condition(
            deployment,
            "Available",
            good >= least,
            "MinimumReplicasAvailable" if good >= least else "MinimumReplicasUnavailable",
            f"Deployment {'has' if good >= least else 'does not have'} minimum availability.",
        )
        done = updated == total == good == wanted
        progress, look = _progress(deployment, new, done)
        await self.write_status(
            deployment,
            {
                "observedGeneration": deployment["metadata"].get("generation", 1),
                "replicas": total or None,
                "updatedReplicas": updated or None,
                "readyReplicas": ready or None,
                "availableReplicas": good or None,
                "unavailableReplicas": max(0, wanted - good) or None,
                "conditions": with_conditions(deployment, [enough, progress]),
            },
        )
        return look


def _progress(deployment: Object, new: Object | None, done: bool) -> tuple[Object, float | None]:
    """The Progressing condition, and when to look whether its deadline has passed.

    As upstream: pods lost after a rollout is complete don't make it progress again.
    """
    old = condition(deployment, "Progressing")
    name = new["metadata"]["name"] if new else ""
    deadline = deployment["spec"].get("progressDeadlineSeconds", 600)
    observed = (deployment.get("status") or {}).get("observedGeneration")
    same_rollout = observed == deployment["metadata"].get("generation", 1)
    if done or (old.get("reason") == "NewReplicaSetAvailable" and f'"{name}"' in old.get("message", "")):
        text = f'ReplicaSet "{name}" has successfully progressed.'
        return new_condition(deployment, "Progressing", True, "NewReplicaSetAvailable", text) | {
            "lastUpdateTime": old.get("lastUpdateTime") or now()
        }, None
    since = (
        old.get("lastUpdateTime") if same_rollout and old.get("reason") != "NewReplicaSetAvailable" else None
    )
    waited = time.time() - seconds_of(since) if since else 0.0
    if waited > deadline:
        text = f'ReplicaSet "{name}" has timed out progressing.'
        entry = new_condition(deployment, "Progressing", False, "ProgressDeadlineExceeded", text)
        return entry | {"lastUpdateTime": since}, None
    text = f'ReplicaSet "{name}" is progressing.'
    entry = new_condition(deployment, "Progressing", True, "ReplicaSetUpdated", text)
    return entry | {"lastUpdateTime": since or now()}, deadline - waited + 1


def _same_template(replica_set: Object, deployment: Object) -> bool:
    template = replica_set["spec"]["template"]
    labels = {k: v for k, v in (template["metadata"].get("labels") or {}).items() if k != HASH}
    wanted = deployment["spec"]["template"]
    return bool(
        labels == (wanted["metadata"].get("labels") or {})
        and template["spec"] == wanted["spec"]
        and (template["metadata"].get("annotations") or {}) == (wanted["metadata"].get("annotations") or {})
    )


def _replicas(replica_set: Object) -> int:
    return int(replica_set["spec"].get("replicas", 1))


def _available(replica_set: Object) -> int:
    """No more than the set is to have: its status may be older than the last scaling down."""
    return min(_replicas(replica_set), int((replica_set.get("status") or {}).get("availableReplicas") or 0))


def _sum(sets: list[Object], key: str) -> int:
    return sum(int((s.get("status") or {}).get(key) or 0) for s in sets)


def _amount(value: int | str, total: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    share = total * float(value.rstrip("%")) / 100
    return math.ceil(share) if up else math.floor(share)
