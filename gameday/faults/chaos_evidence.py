"""What the target pods show of a fault of Chaos Mesh, whose own word comes before they are hit.

Seen on its controllers: pod-failure is AllInjected two seconds before its pods stop being Ready, since it
only writes another image into each pod (podfailure/impl.go); without a readiness probe a pod is then Ready
again on that image. So the containers are compared with those that ran before. Of faults that leave no trace
in a pod's status (traffic, stress) the records of Chaos Mesh are all that the API server knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from gameday.extend import Evidence
from gameday.ledger.chaos_mesh import ABORT, SCHEDULE_LABEL
from gameday.platform.chaos_mesh import complaints, is_paused, progress, records, started
from gameday.platform.objects import Object, Ref, annotations_of, is_ready, labels_of

if TYPE_CHECKING:
    from gameday.platform.world import World

MOST_NAMED = 5


def containers_of(pod: Object) -> dict[str, list[str]]:
    """Each container's ID and its image's, by name, as the kubelet reports them."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return {s["name"]: [str(s.get("containerID", "")), str(s.get("imageID", ""))] for s in statuses}


@dataclass(frozen=True)
class Pods:
    """The targets that were ready before, and the containers that ran in them then, by UID."""

    refs: tuple[Ref, ...]
    before: Mapping[str, Mapping[str, Sequence[str]]]

    @classmethod
    def of(cls, recorded: Mapping[str, Any]) -> Self:
        return cls(tuple(map(Ref.from_data, recorded["pods"])), recorded.get("containers") or {})

    async def hit(self, obj: Object, world: World) -> Evidence:
        """In once an experiment says so, and its pods show it where the fault is of a kind that they show."""
        if not started(obj):
            said = f"{Ref.of(obj)}: {progress(obj)}"
            return Evidence("partial", (said, *complaints(obj)[:MOST_NAMED]))
        said = f"{Ref.of(obj)}: AllInjected, {progress(obj)}"
        shows = _SHOWN.get((obj["kind"], str(obj["spec"].get("action"))))
        if shows is None:
            return Evidence("in", (said,))
        meant = {"/".join(str(r.get("id")).split("/")[:2]) for r in records(obj)}
        refs = [ref for ref in self.refs if f"{ref.namespace}/{ref.name}" in meant]
        pairs = zip(refs, await _read(refs, world), strict=True)
        missing = [ref for ref, pod in pairs if not shows(pod, self.before.get(str(ref.uid)) or {})]
        if missing:
            facts = tuple(f"{ref} does not show it yet" for ref in missing[:MOST_NAMED])
            return Evidence("partial", (said, *facts))
        return Evidence("in", (said, *([f"{len(refs)} target pods show it"] if refs else [])))

    async def made(self, obj: Object, experiments: Sequence[Object], world: World) -> Evidence:
        """A Schedule is in once something that it made is; a Workflow, once all that runs of it is.

        Chaos Mesh calls an experiment active, or injected, once its object exists: also one that it can't
        carry out. Of what a Workflow's Schedule made, one that is in will do as well.
        """
        said = f"{Ref.of(obj)}: {progress(obj)}"
        if is_paused(obj):
            return Evidence("partial", (said,))
        groups: dict[str, list[Evidence]] = {}
        for each in experiments:
            maker = labels_of(each).get(SCHEDULE_LABEL) or Ref.of(each).name
            group = groups.setdefault("" if obj["kind"] == "Schedule" else maker, [])
            group.append(await self.hit(each, world))
        best = [next((e for e in group if e.state == "in"), group[-1]) for group in groups.values()]
        facts = [fact for evidence in best for fact in evidence.facts]
        is_in = bool(best) and all(evidence.state == "in" for evidence in best)
        return Evidence("in" if is_in else "partial", (said, *facts[:MOST_NAMED]))

    async def out(self, ref: Ref, left: str, world: World) -> Evidence:
        """Out once nothing is left of what was made, and the targets that still exist are as before."""
        if left:
            return Evidence("partial", (f"{ref} is gone", left))
        return await self._as_before("out", f"{ref} is gone", world)

    async def over(self, obj: Object, world: World) -> Evidence:
        """Over once Chaos Mesh has recovered the targets, and those that still exist are as before.

        Out where somebody aborted a Workflow: only that one wanted it so.
        """
        if obj["kind"] != "Workflow":
            how = f"Chaos Mesh ended it, by its duration of {obj['spec'].get('duration')}"
        elif annotations_of(obj).get(ABORT) == "true":
            return await self._as_before("out", f"{Ref.of(obj)}: it was aborted", world)
        else:
            how = f"Chaos Mesh ended it, by the deadlines of its templates, {obj['status'].get('endTime')}"
        return await self._as_before("over", f"{Ref.of(obj)}: {how}", world)

    async def _as_before(self, state: str, said: str, world: World) -> Evidence:
        found = [pod for pod in await _read(self.refs, world) if pod is not None]
        if unwell := [why for pod in found if (why := self._unwell(pod))]:
            return Evidence("partial", (said, *unwell[:MOST_NAMED]))
        return Evidence(state, (said, f"{len(found)} target pods are as before"))

    def _unwell(self, pod: Object) -> str:
        if not is_ready(pod):
            return f"{Ref.of(pod)} was ready before and is not ready yet"
        before = self.before.get(pod["metadata"]["uid"]) or {}
        if _images(containers_of(pod)) != _images(before):
            return f"{Ref.of(pod)} does not run the images that it ran before"
        return ""


async def _read(refs: Sequence[Ref], world: World) -> list[Object | None]:
    return list(await asyncio.gather(*map(world.kube.find, refs)))


def _images(containers: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {name: image for name, (_, image) in containers.items()}


def _ids(containers: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {name: identity for name, (identity, _) in containers.items()}


def _fails(pod: Object | None, before: Mapping[str, Sequence[str]]) -> bool:
    return pod is None or not is_ready(pod) or _images(containers_of(pod)) != _images(before)


def _is_killed(pod: Object | None, before: Mapping[str, Sequence[str]]) -> bool:
    return pod is None or "deletionTimestamp" in pod["metadata"]


def _is_restarted(pod: Object | None, before: Mapping[str, Sequence[str]]) -> bool:
    return _is_killed(pod, before) or (pod is not None and _ids(containers_of(pod)) != _ids(before))


_SHOWN = {
    ("PodChaos", "pod-kill"): _is_killed,
    ("PodChaos", "pod-failure"): _fails,
    ("PodChaos", "container-kill"): _is_restarted,
}
