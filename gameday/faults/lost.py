"""What is lost for good with what ends: found in one place, by the effects, whichever fault they are of.

Nothing makes a pod again that has no controller, or one that is gone or goes, or a Job that fails for good
when the pod ends. A Job that has a controller of its own is left to that one: a JobSet makes its Jobs anew
while restarts are left. Controllers of other kinds are taken to make their pods again. Pods and claims that
are owned by what ends go with it, and a claim's data with the claim.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from gameday.experiment.text import plural, some
from gameday.extend import PlanError
from gameday.platform import jobs
from gameday.platform.dependents import (
    CLAIMS,
    Owned,
    claims_between,
    going_with,
    owned_in,
    pods_of,
    scaled_away,
)
from gameday.platform.effect import Effect, Kind, of_pod
from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, controller, is_finished, owner_ref
from gameday.platform.world import World

ALONE = "no controller makes it again"
WITH_OWNER = "deleted with the pod that owns it"
SCALED = "deleted by its StatefulSet, whose whenScaled is Delete"
DATA = "and its data with it"


async def with_dependents(
    effects: Sequence[Effect], world: World
) -> tuple[tuple[Effect, ...], tuple[str, ...]]:
    """The effects, and one more for each pod or claim that goes with what ends; and what can't be seen.

    Where nobody knows which pods of a workload go, it is those that are owned by any of them.
    """
    ending = [e for e in effects if _takes_along(e)]
    spaces = sorted({e.ref.namespace for e in ending if e.ref.namespace})
    unread: list[str] = []
    more: list[Effect] = []
    for space in spaces:
        owned: Owned = await world.once(("owned", space), lambda space=space: owned_in(world.kube, space))  # type: ignore[misc]
        unread += [
            f"which {plural} go with pods in {space} could not be seen: allow `list {plural} {space}`"
            for plural in owned.unread
        ]
        if owned.objects:
            gone = await _uids(space, ending, world.kube)
            along = await going_with(gone, owned.objects, world.kube)
            more += [_along(o) for o in along if not _is_over(o)]
    known = {e.ref for e in effects if e.ends}
    return (*effects, *(e for e in more if e.ref not in known)), tuple(unread)


async def claims_scaled_away(workload: Object, replicas: int, kube: Kube) -> tuple[Effect, ...]:
    """The claims, of those there are, that a StatefulSet deletes when it is scaled down, or back down."""
    space = workload["metadata"]["namespace"]
    names = scaled_away(workload, replicas)
    found = [c for c in await kube.list(CLAIMS, space) if c["metadata"]["name"] in names] if names else []
    return tuple(_of_claim(c, SCALED) for c in found)


def claims_left(workload: Object, replicas: int) -> tuple[str, ...]:
    """A sentence on the claims that a StatefulSet makes when it is scaled up, and keeps afterwards."""
    more = replicas > int(workload["spec"].get("replicas", 1))
    names = claims_between(workload, replicas) - scaled_away(workload, replicas) if more else set()
    text = "claims that its new pods get stay behind when it is scaled back, unless they are there already"
    return (f"{Ref.of(workload)}: {text}: {some(sorted(names))}",) if names else ()


async def with_losses(effects: Sequence[Effect], kube: Kube) -> tuple[tuple[Effect, ...], tuple[str, ...]]:
    """The effects, with the reason where a pod is lost for good, and one more for each pod that goes with it.

    And a sentence on each owner that can't be read.
    """
    ending: dict[Ref | None, list[Effect]] = {}
    going = {e.ref.uid for e in effects if e.kind is Kind.POD and e.ends}
    for effect in effects:
        if effect.kind is Kind.POD and effect.ends:
            ending.setdefault(effect.owner, []).append(effect)
    unread: list[str] = []
    parts = await asyncio.gather(*(_lost(owner, pods, going, kube, unread) for owner, pods in ending.items()))
    lost = {e.ref: e for part in parts for e in part}
    found = [lost.pop(e.ref, e) if e.ends else e for e in effects]
    return (*found, *lost.values()), tuple(unread)


def not_restored(effects: Iterable[Effect]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sentences on what is lost for good, and on the pods that end and are made again."""
    ended = [e for e in effects if e.ends]
    lost: dict[tuple[str, str], list[str]] = {}
    for effect in ended:
        if effect.lost:
            what = "pod" if effect.kind is Kind.POD else effect.ref.kind
            lost.setdefault((what, effect.lost), []).append(_name(effect))
    again = sum(e.kind is Kind.POD and not e.lost for e in ended)
    many = f"{plural(again, 'pod')}: replaced by controllers, not restored"
    return (
        tuple(f"{what} {some(names)}: lost for good, {why}" for (what, why), names in lost.items()),
        (many,) if again else (),
    )


def check_losses(effects: Iterable[Effect], option: str) -> None:
    """Raises PlanError where something is lost for good; `option` is what would allow that in the file."""
    lost, _ = not_restored(effects)
    if lost:
        raise PlanError(f"{'; '.join(lost)} ({option}: true allows it)")


async def _uids(space: str, ending: Sequence[Effect], kube: Kube) -> set[str]:
    """The UIDs of the pods of a namespace that end."""
    here = [e for e in ending if e.ref.namespace == space]
    uids = {e.ref.uid for e in here if e.kind is Kind.POD}
    parts = await asyncio.gather(*(pods_of(kube, e.ref) for e in here if e.kind is Kind.WORKLOAD))
    return {uid for uid in uids if uid} | {p["metadata"]["uid"] for pods in parts for p in pods}


def _takes_along(effect: Effect) -> bool:
    """Whether it deletes pods; a drain deletes those that are over, too, with which nothing else ends."""
    pod = effect.kind is Kind.POD and (effect.ends or effect.comes)
    return pod or (effect.kind is Kind.WORKLOAD and effect.ends and effect.pods > 0)


def _along(obj: Object) -> Effect:
    """The effect on an object that goes with its owner."""
    if obj["kind"] == "Pod":
        return replace(of_pod(obj, WITH_OWNER, ends=True), lost=WITH_OWNER)
    return _of_claim(obj, WITH_OWNER)


def _is_over(obj: Object) -> bool:
    """Whether it is on its way out already, or is a pod that has come to its end and holds nothing."""
    return "deletionTimestamp" in obj["metadata"] or is_finished(obj)


def _of_claim(claim: Object, why: str) -> Effect:
    return Effect(Kind.CLAIM, Ref.of(claim), why, ends=True, lost=f"{why}, {DATA}")


async def _lost(
    owner: Ref | None, pods: list[Effect], going: Collection[str | None], kube: Kube, unread: list[str]
) -> list[Effect]:
    """Pods of one owner that are lost, and why; `going` are the UIDs of the pods that end."""
    if owner is None:
        return _for(ALONE, pods)
    if owner.uid in going:
        return _for(WITH_OWNER, pods)
    try:
        await kube.resource(owner.api_version, owner.kind)  # a kind that is not served says nothing
        found = await kube.find(owner)
        if found is None or "deletionTimestamp" in found["metadata"]:
            return _for(f"{owner} is gone, which made it", pods)
        if owner.kind == "Job" and owner.api_version.startswith("batch/"):
            return await _lost_of_job(owner, found, pods, kube)
    except PlatformError as error:
        unread.append(f"whether {owner} makes its pods again could not be seen: {error}")
    return []


def _for(why: str, pods: Iterable[Effect]) -> list[Effect]:
    return [replace(p, lost=why) for p in pods]


async def _lost_of_job(owner: Ref, job: Object, pods: list[Effect], kube: Kube) -> list[Effect]:
    """A pod that comes with its node is evicted from there, by a drain or a taint; others are deleted."""
    evicted = all(p.comes for p in pods)
    if await _made_anew(job, owner.namespace, kube):
        return []
    if why := jobs.fails_for_good(job, (p.times for p in pods), evicted=evicted):
        return await _with_the_rest(owner, pods, why, kube)
    action = jobs.at_end(job["spec"], evicted=evicted)
    if action == "Ignore" or job["spec"].get("backoffLimitPerIndex") is None:
        return []
    why = f"no failure is left to its index of {owner}"
    if action == "FailIndex":
        lost, why = pods, f"the podFailurePolicy of {owner} fails its index"
    else:
        found = zip(pods, await asyncio.gather(*(kube.find(p.ref) for p in pods)), strict=True)
        lost = [p for p, pod in found if pod and jobs.past_index_limit(job, pod, p.times)]
    if jobs.past_failed_indexes(job, len(lost)):
        limit = f"no failure is left of its maxFailedIndexes {job['spec']['maxFailedIndexes']}"
        return await _with_the_rest(owner, pods, limit, kube)
    return _for(why, lost)


async def _with_the_rest(owner: Ref, pods: list[Effect], why: str, kube: Kube) -> list[Effect]:
    """All pods of a Job that fails for good: its controller ends those that the fault does not."""
    known = {p.ref for p in pods}
    theirs = (p for p in await pods_of(kube, owner) if (controller(p) or {}).get("uid") == owner.uid)
    there = (of_pod(p, "ended by its Job", ends=True) for p in theirs if not _is_over(p))
    rest = [e for e in there if e.ref not in known]
    return _for(f"{owner} fails with it and ends all its pods: {why}", [*pods, *rest])


async def _made_anew(job: Object, namespace: str | None, kube: Kube) -> bool:
    """Whether a Job that fails has a controller that goes on."""
    above = owner_ref(controller(job), namespace)
    if above is None or above.kind != "JobSet":
        return above is not None
    found = await kube.find(above)
    rules = ((found or {}).get("spec") or {}).get("failurePolicy", {}).get("rules")
    return found is not None and bool(rules or jobs.restarts_left(found) > 0)


def _name(effect: Effect) -> str:
    return f"{effect.ref.namespace}/{effect.ref.name}"
