"""A stand-in for Argo Rollouts' controller: canaries by steps of weight and pause, over real ReplicaSets.

Small, but true to the status fields that people and programs act on (argo-rollouts 1.9, rollout/canary.go
and utils/rollout/rolloututil.go there): an abort, a promotion and a template that comes back do what they do
upstream. Traffic routing, analysis and blue-green are left out.
"""

from __future__ import annotations

import copy
import math
import time
from typing import Any

from gameday.experiment.quantity import parse_duration
from gameday.platform.objects import Object, Ref
from gameday.sandbox.cache import Cache, Key, key_of
from gameday.sandbox.controllers.base import Controller
from gameday.sandbox.facts import (
    annotations_of,
    deleting,
    digest,
    labels_of,
    now,
    owner_reference,
    seconds_of,
)
from gameday.sandbox.fleet.argocd.comparison import covers
from gameday.sandbox.recorder import Recorder

HASH = "rollouts-pod-template-hash"
REVISION = "rollout.argoproj.io/revision"
PAUSE = "CanaryPauseStep"
PREVIOUS_IMAGE = "sandbox.gameday.dev/previous-image"  # what a new Rollout ran before, so that it has a past


class Rollouts(Controller):
    kind = "Rollout"
    component = "rollouts-controller"

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        super().__init__(cache, recorder)
        cache.listen("ReplicaSet", self.owner_changed)
        cache.listen("Deployment", self._referred_changed)

    def _referred_changed(self, new: Object | None, old: Object | None) -> None:
        meta = (new or old or {})["metadata"]
        for rollout in self.cache.all(self.kind, meta["namespace"]):
            if (rollout["spec"].get("workloadRef") or {}).get("name") == meta["name"]:
                self.work.add(key_of(rollout))

    async def reconcile(self, key: Key) -> float | None:
        rollout = self.cache.get(self.kind, key)
        if rollout is None or deleting(rollout):
            return None
        rollout = self._resolved(rollout)
        if not rollout["spec"].get("template"):
            return None  # upstream says InvalidSpec
        sets = sorted(self.cache.owned(rollout, "ReplicaSet"), key=revision_of, reverse=True)
        template = rollout["spec"]["template"]
        new = next((s for s in sets if covers(s["spec"]["template"], template)), None)
        if new is None:
            if not sets and (image := annotations_of(rollout).get(PREVIOUS_IMAGE)):
                sets.append(await self._create(_with_image(rollout, image), sets))
            new = await self._create(rollout, sets)
            sets.insert(0, new)
        elif revision_of(new) < revision_of(sets[0]):  # an older template came back
            body = {"metadata": {"annotations": {REVISION: str(revision_of(sets[0]) + 1)}}}
            self.cache.put(await self.kube.patch(Ref.of(new), body, "merge"))
        if revision_of(rollout) != revision_of(new):
            body = {"metadata": {"annotations": {REVISION: str(revision_of(new))}}}
            noted = await self.kube.patch(Ref.of(rollout), body, "merge")
            self.cache.put(noted)
            rollout = self._resolved(noted)
        status = advance(rollout, _hash(new), _available(new))
        canary = wanted(rollout, status)
        for each in sets:
            count = canary if each is new else 0
            if each is not new and _hash(each) == status["stableRS"]:
                count = _replicas(rollout) - min(canary, _available(new))
            if each["spec"].get("replicas") != count:
                self.cache.put(await self.kube.patch(Ref.of(each), {"spec": {"replicas": count}}, "merge"))
        await self._write(rollout, status, new, sets)
        return _look(rollout, status)

    def _resolved(self, rollout: Object) -> Object:
        """The Rollout with template and selector of the Deployment that it refers to, where it does."""
        spec, meta = rollout["spec"], rollout["metadata"]
        if not (reference := spec.get("workloadRef")):
            return rollout
        found = self.cache.get("Deployment", (meta["namespace"], reference["name"])) or {"spec": {}}
        taken = {k: found["spec"][k] for k in ("template", "selector") if k in found["spec"]}
        return rollout | {"spec": taken | spec}

    async def _create(self, rollout: Object, sets: list[Object]) -> Object:
        template = rollout["spec"]["template"]
        hashed = digest(template)
        labels = {**(template["metadata"].get("labels") or {}), HASH: hashed}
        match = {**rollout["spec"]["selector"]["matchLabels"], HASH: hashed}
        number = 1 + max(map(revision_of, sets), default=0)
        meta = rollout["metadata"]
        created = await self.kube.create(
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {
                    "name": f"{meta['name']}-{hashed}",
                    "namespace": meta["namespace"],
                    "labels": labels,
                    "annotations": {REVISION: str(number)},
                    "ownerReferences": [owner_reference(rollout)],
                },
                "spec": {
                    "replicas": 0,
                    "selector": {"matchLabels": match},
                    "template": template | {"metadata": template["metadata"] | {"labels": labels}},
                },
            }
        )
        self.cache.put(created)
        return created

    async def _write(self, rollout: Object, status: Object, new: Object, sets: list[Object]) -> None:
        counts = {
            "replicas": sum(_count(s, "replicas") for s in sets),
            "updatedReplicas": _count(new, "replicas"),
            "readyReplicas": sum(_count(s, "readyReplicas") for s in sets),
            "availableReplicas": sum(map(_available, sets)),
        }
        phase, message = _phase(rollout, status | counts)
        if phase != (rollout.get("status") or {}).get("phase"):
            self.say(rollout, f"Rollout{phase}", message or f"Rollout is {phase}")
        seen = str(rollout["metadata"].get("generation", 1))
        told = {"observedGeneration": seen, "phase": phase, "message": message or None}
        await self.write_status(rollout, status | counts | told)


def advance(rollout: Object, current: str, available: int) -> Object:
    """One step on: the status fields that say where the update is; None takes one away."""
    spec, before = rollout["spec"], rollout.get("status") or {}
    steps = _steps(rollout)
    stable = before.get("stableRS") or current
    cleared: dict[str, Any] = dict.fromkeys(
        ("pauseConditions", "controllerPause", "abort", "abortedAt", "promoteFull")
    )
    status = {"currentPodHash": current, "stableRS": stable}
    if before.get("currentPodHash") != current:
        return cleared | status | {"currentStepIndex": len(steps) if stable == current else 0}
    index = before.get("currentStepIndex", len(steps))
    if before.get("abort"):
        aborted = {"abort": True, "abortedAt": before.get("abortedAt") or now()}
        return cleared | status | aborted | {"currentStepIndex": 0}
    kept = {k: before.get(k) for k in cleared} | {"abortedAt": None}
    if before.get("promoteFull"):
        index, kept = len(steps), cleared | {"promoteFull": True}
    if spec.get("paused"):
        return kept | status | {"currentStepIndex": index}
    if index < len(steps):
        index, paused = _step(rollout, index, before, available)
        return kept | status | paused | {"currentStepIndex": index}
    if available >= _replicas(rollout):
        return cleared | status | {"stableRS": current, "currentStepIndex": index}
    return kept | status | {"currentStepIndex": index}


def _step(rollout: Object, index: int, before: Object, available: int) -> tuple[int, Object]:
    """The index of the step that is now, and whether it is a pause."""
    step, over = _steps(rollout)[index], {"pauseConditions": None, "controllerPause": None}
    if "pause" not in step:
        return index + (available >= _canary(rollout, index)), over
    conditions = before.get("pauseConditions")
    if not conditions and before.get("controllerPause"):
        return index + 1, over  # somebody promoted it
    if not conditions:
        return index, {"pauseConditions": [{"reason": PAUSE, "startTime": now()}], "controllerPause": True}
    return (index + 1, over) if _pause_left(step, conditions) == 0 else (index, {})


def _pause_left(step: Object, conditions: list[Object]) -> float | None:
    """Seconds until a pause is over; None for one that only a person ends."""
    duration = (step.get("pause") or {}).get("duration")
    if duration is None:
        return None
    seconds = float(duration) if str(duration).isdigit() else parse_duration(duration)
    return max(0.0, seconds_of(conditions[0]["startTime"]) + seconds - time.time())


def _look(rollout: Object, status: Object) -> float | None:
    steps, index = _steps(rollout), status["currentStepIndex"]
    if status.get("pauseConditions") and index < len(steps):
        left = _pause_left(steps[index], status["pauseConditions"])
        return None if left is None else left + 0.05
    return None


def wanted(rollout: Object, status: Object) -> int:
    """Replicas that the newest template is to have."""
    if status["currentPodHash"] == status["stableRS"]:
        return _replicas(rollout)
    return 0 if status.get("abort") else _canary(rollout, status["currentStepIndex"])


def _canary(rollout: Object, index: int) -> int:
    steps = _steps(rollout)
    if index >= len(steps):
        return _replicas(rollout)
    weights = [s["setWeight"] for s in steps[: index + 1] if "setWeight" in s]
    return math.ceil(_replicas(rollout) * (weights[-1] if weights else 0) / 100)


def _phase(rollout: Object, status: Object) -> tuple[str, str]:
    if status.get("abort"):
        return "Degraded", "RolloutAborted: Rollout aborted update"
    if rollout["spec"].get("paused"):
        return "Paused", "manually paused"
    if status.get("pauseConditions"):
        return "Paused", str(status["pauseConditions"][0]["reason"])
    if status["updatedReplicas"] < _replicas(rollout):
        return "Progressing", "more replicas need to be updated"
    if status["availableReplicas"] < status["updatedReplicas"]:
        return "Progressing", "updated replicas are still becoming available"
    if status["replicas"] > status["updatedReplicas"]:
        return "Progressing", "old replicas are pending termination"
    if status["stableRS"] != status["currentPodHash"]:
        return "Progressing", "waiting for all steps to complete"
    return "Healthy", ""


def _with_image(rollout: Object, image: str) -> Object:
    """The Rollout as it was with another image."""
    found = copy.deepcopy(rollout)
    found["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return found


def revision_of(obj: Object) -> int:
    """A ReplicaSet's revision, and a Rollout's, which is its newest one's (upstream's rollout/sync.go)."""
    return int(annotations_of(obj).get(REVISION, 0))


def _steps(rollout: Object) -> list[Object]:
    return (rollout["spec"]["strategy"].get("canary") or {}).get("steps") or []


def _hash(replica_set: Object) -> str:
    return labels_of(replica_set)[HASH]


def _replicas(rollout: Object) -> int:
    return int(rollout["spec"].get("replicas", 1))


def _count(replica_set: Object, key: str) -> int:
    return int((replica_set.get("status") or {}).get(key) or 0)


def _available(replica_set: Object) -> int:
    return _count(replica_set, "availableReplicas")
