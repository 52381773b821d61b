"""Rollback: an Application runs an earlier revision, as `argocd app rollback` does it, then its own again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from gameday.experiment.model import DNSLabel, EndingSpec, Line, ObjectName, PositiveDuration
from gameday.experiment.problems import did_you_mean
from gameday.extend import Evidence, Fault, FaultError, FaultPlan, Injected, PlanError, Step
from gameday.faults.pods import check_namespaces
from gameday.faults.workloads import rolling, workload_victim
from gameday.ledger.edits import Edit
from gameday.ledger.operations import Patch
from gameday.platform.effect import Effect, Kind, of_victim
from gameday.platform.objects import Object, Ref, controller
from gameday.platform.world import Victim, World

if TYPE_CHECKING:
    from gameday.faults.argocd import ArgoCDSpec
    from gameday.ledger import argocd

LOOK = 0.3  # seconds between looks at an operation
ROLLED = ("Deployment", "StatefulSet", "DaemonSet", "Rollout")  # a new revision may replace their pods
CHANGING = ("Progressing", "Missing", "Unknown", None)


class RollbackSpec(EndingSpec):
    """Which Application, and to what."""

    application: ObjectName = Field(description="The Application's name.")
    namespace: DNSLabel = Field("argocd", description="Its own namespace.")
    to: Line | int = Field(
        "previous",
        description="`previous` (what was deployed before and differs), an id of its history, or a revision.",
    )
    prune: bool = Field(False, description="Delete what that revision does not hold, as `--prune` does.")
    settle_within: PositiveDuration = Field(
        300.0, description="How long the operation, and health after it, may take: there, and back."
    )


class Rollback(Fault["ArgoCDSpec"]):
    """An earlier deployment of the history is deployed again; automated sync is paused meanwhile."""

    async def plan(self, spec: ArgoCDSpec, world: World) -> FaultPlan[ArgoCDSpec]:
        from gameday.platform.argocd import (
            automated,
            describe,
            elsewhere,
            history,
            revision_of,
            status_of,
            sync_policy,
            under_way,
        )

        wanted = _wanted(spec)
        application, known = await read(wanted.application, wanted.namespace, world)
        ref = Ref.of(application)
        if place := elsewhere(application):
            raise PlanError(
                f"{ref} deploys to another cluster ({place}), of which this one knows nothing: neither what "
                "would be changed nor how it fares; run the experiment where the Application is in-cluster"
            )
        if under_way(application):
            raise PlanError(f"{ref}: an operation is in progress; wait until it has ended")
        entries = history(application)
        to, before = choose(wanted.to, entries, ref), entries[-1]
        resources = status_of(application).get("resources") or ()
        if not resources:  # Argo CD leaves an empty list out, as one that it does not have yet
            raise PlanError(
                f"{ref} lists no object of its own (status.resources): nobody knows what another revision "
                "would change; have it compared anew (argocd app get --refresh)"
            )
        check_namespaces({r["namespace"] for r in resources if r.get("namespace")}, world)
        policy = automated(application)
        fought = await _who_restores(application, known, world) if policy is not None else []
        workloads = await _workloads(resources, world)
        changes = [f"roll {ref} back from {describe(before)} to {describe(to)}"]
        if policy is not None:
            changes.insert(0, f"pause automated sync of {ref}")
        return FaultPlan(
            spec,
            (Victim(ref, "object"), *workloads),
            changes=tuple(changes),
            needs=(f"patch applications.argoproj.io {wanted.namespace} {wanted.application}",),
            warnings=tuple(fought),
            basis={
                f"{ref}: what is deployed": revision_of(before),
                f"{ref}: what it is rolled back to": revision_of(to),
            },
            data={
                "to": to,
                "before": before,
                "health": (status_of(application).get("health") or {}).get("status"),
                "sync": status_of(application).get("sync") or {},
                # Only where git holds all that is live now, whatever is too much afterwards came by us.
                "pruneBack": not any(r.get("requiresPruning") for r in resources),
                "options": sync_policy(application).get("syncOptions") or [],
            },
        )

    async def effects(self, plan: FaultPlan[ArgoCDSpec], world: World) -> tuple[Effect, ...]:
        """Every object of the Application: another revision may change any of them."""
        from gameday.platform.argocd import status_of

        application = await world.kube.find(plan.victims[0].ref) or {}
        resources = status_of(application).get("resources") or ()
        workloads = await _workloads(resources, world)
        rolled = {(v.ref.kind, v.ref.namespace, v.ref.name) for v in workloads}
        others = [r for r in resources if (r["kind"], r.get("namespace"), r["name"]) not in rolled]
        return (
            *(of_victim(v, ends=True) for v in workloads),
            *(_touched(r) for r in others if r.get("version")),
        )

    async def inject(self, plan: FaultPlan[ArgoCDSpec], step: Step) -> None:
        """Pause automated sync, ask for the rollback, and follow it to its end."""
        from gameday.ledger.argocd import Rollback as RollbackOperation
        from gameday.platform.argocd import automated, mark_of, operation_state

        spec, ref = _wanted(plan.spec), plan.victims[0].ref
        application = await step.kube.get(ref)
        if (policy := automated(application)) is not None:
            await step.ledger.perform([await Patch.of(step.kube, ref, _pause(application, policy))])
        rollback = RollbackOperation(
            ref=ref,
            run=step.world.run,
            to=plan.data["to"],
            before=plan.data["before"],
            prune=spec.prune,
            prune_back=plan.data["pruneBack"],
            options=tuple(plan.data["options"]),
            within=spec.settle_within,
            last=operation_state(application),
        )
        await step.ledger.perform([rollback])
        await _ended(rollback, spec.settle_within, step.world)
        application = await step.kube.get(ref)
        state = operation_state(application)
        if mark_of(state.get("operation")) == rollback.mark and state["phase"] != "Succeeded":
            from gameday.platform.argocd_failure import explain

            why = await explain(step.kube, application) or state.get("message")
            raise FaultError(f"{ref}: the rollback ended in {state['phase']}: {why}")

    def may_lose(self, spec: ArgoCDSpec) -> bool:
        return _wanted(spec).force

    def settle_within(self, spec: ArgoCDSpec) -> float:
        return _wanted(spec).settle_within

    async def settled(self, plan: FaultPlan[ArgoCDSpec], injected: Injected, world: World) -> Evidence:
        """In and out when that revision is deployed, compared since, and its objects have come to rest."""
        from gameday.platform.argocd import (
            applied,
            history,
            operation_state,
            revision_of,
            same_deployment,
            short,
            status_of,
            under_way,
        )
        from gameday.platform.argocd_failure import diagnose

        ref = plan.victims[0].ref
        application = await world.kube.find(ref)
        if application is None:
            return Evidence("out", (f"{ref} is gone",))
        status, now = status_of(application), (history(application) or [{}])[-1]
        health = (status.get("health") or {}).get("status")
        facts = [f"{ref}: {short(revision_of(now))} is deployed, {health}"]
        if health != "Healthy" and (why := diagnose(application)):
            facts.append(str(why))
        last = operation_state(application)
        finished = last.get("finishedAt") or ""
        # Both are UTC, to the second. Where nothing was applied (no manifests could be had) nothing is new,
        # and Argo CD does not compare as long as that lasts.
        seen = not applied(last) or str(status.get("reconciledAt") or "") >= finished
        # A comparison of the same second may be of the moment before: then git differs from what is back.
        seen = seen and not (same_deployment(now, plan.data["before"]) and _lost_sync(status, plan))
        changing = health in CHANGING and health != plan.data["health"]
        if under_way(application) or not seen or changing:
            return Evidence("partial", tuple(facts))
        if health == "Healthy" and (waiting := await rolling(_rolled(plan, status), world)):
            return Evidence("partial", (*facts, *waiting))  # Argo CD's word is of the second before
        if same_deployment(now, plan.data["to"]):
            return Evidence("in", tuple(facts))
        worse = plan.data["health"] == "Healthy" and health != "Healthy"
        return Evidence("partial" if worse else "out", tuple(facts))


def _lost_sync(status: Object, plan: FaultPlan[ArgoCDSpec]) -> bool:
    """Whether what is live differs from the same git that it equalled when the fault was planned."""
    now, then = status.get("sync") or {}, plan.data["sync"]
    same_git = all(now.get(k) == then.get(k) for k in ("revision", "revisions"))
    return same_git and then.get("status") == "Synced" and now.get("status") == "OutOfSync"


def _rolled(plan: FaultPlan[ArgoCDSpec], status: Object) -> set[Ref]:
    """The workloads of before, and those that are listed now: a rollback may bring or replace some."""
    return {v.ref.named for v in plan.victims[1:]} | set(_workload_refs(status.get("resources") or ()))


def _wanted(spec: ArgoCDSpec) -> RollbackSpec:
    assert spec.rollback is not None
    return spec.rollback


async def _ended(rollback: argocd.Rollback, within: float, world: World) -> None:
    """Wait until it is no longer under way. Raises FaultError when that takes too long, or nobody begins."""
    from gameday.ledger.argocd import CONTROLLER_AWAY
    from gameday.platform.argocd import mark_of, operation_state, under_way

    since = time.monotonic()
    while mark_of(under_way(application := await world.kube.get(rollback.ref))) == rollback.mark:
        waited, state = time.monotonic() - since, operation_state(application)
        if not state and waited > CONTROLLER_AWAY:
            raise FaultError(
                f"{rollback.ref}: nobody has taken the rollback up for {waited:.0f} s: is "
                "argocd-application-controller running, and does it look after that namespace?"
            )
        if waited > within:
            said = state.get("message") or state.get("phase")
            raise FaultError(f"{rollback.ref}: no end of the rollback within {within:g} s: {said}")
        await asyncio.sleep(LOOK)


async def read(name: str, namespace: str, world: World) -> tuple[Object, list[Object]]:
    """An Application, and all there are. Raises PlanError without it, with the names that there are."""
    from gameday.platform.argocd import NoArgoCD, application_ref, applications

    try:
        known = await applications(world.kube, namespace)
    except NoArgoCD as error:
        raise PlanError(str(error)) from error
    places = {a["metadata"]["name"]: a["metadata"]["namespace"] for a in known}
    for each in known:
        if (each["metadata"]["name"], each["metadata"]["namespace"]) == (name, namespace):
            return each, known
    ref = application_ref(name, namespace)
    if name in places:
        hint = f"it is in namespace {places[name]}"
    else:
        hint = did_you_mean(name, places) or f"there are: {', '.join(sorted(places)) or 'none'}"
    raise PlanError(f"there is no {ref} in {world.kube.context}: {hint}")


def choose(to: str | int, entries: Sequence[Object], ref: Ref) -> Object:
    """The entry of the history that is meant. Raises PlanError, with what there is to choose from."""
    from gameday.platform.argocd import describe, revision_of, same_deployment, source_of

    if not entries:
        raise PlanError(
            f"{ref} has no history, so there is nothing to roll back to: nothing was deployed yet, or none "
            "is kept (spec.revisionHistoryLimit: 0)"
        )
    now = entries[-1]
    there = "; ".join(describe(e) for e in reversed(entries))
    if to == "previous":
        found = next((e for e in reversed(entries) if not same_deployment(e, now)), None)
        if found is None:
            raise PlanError(f"{ref} has no deployment before this one that differs from it ({there})")
    else:
        word = str(to)
        by_id = [e for e in entries if str(e.get("id")) == word]
        by_revision = [e for e in entries if len(word) >= 4 and revision_of(e).startswith(word)]
        found = next(reversed(by_id or by_revision), None)
        if found is None:
            hint = did_you_mean(word, [revision_of(e) for e in entries]) if len(word) > 6 else None
            hint = f"{hint} There are: {there}" if hint else f"there are: {there}"
            raise PlanError(f"{ref} has no deployment {to} in its history: {hint}")
    if same_deployment(found, now):
        raise PlanError(f"{ref}: {describe(found)} is what is deployed: nothing would change ({there})")
    if not source_of(found):
        raise PlanError(f"{ref}: {describe(found)} was deployed by Argo CD 0.11 or older, and has no source")
    return found


def _pause(application: Object, policy: Object) -> Edit:
    """Take automated sync away; `enabled: false` would do from 3.1 on only.

    Where nothing else is in it, all of `syncPolicy` goes: Argo CD removes an empty one by a patch that names
    no version, which would take away a policy that was put back meanwhile. A policy without options is `{}`,
    which can't be told from an absent one: then the field around it is what changes, too.
    Source: Argo CD 3.5, normalizeApplication in controller/appcontroller.go.
    """
    rest = {k: v for k, v in application["spec"]["syncPolicy"].items() if k != "automated"}
    if policy and rest:
        return Edit(("spec", "syncPolicy", "automated"), None)
    return Edit(("spec", "syncPolicy"), rest or None)


async def _who_restores(application: Object, known: Sequence[Object], world: World) -> list[str]:
    """Who else writes this Application. Raises PlanError where that one would switch it on again at once."""
    from gameday.platform.argocd import API_VERSION, automated, owner_in

    ref = Ref.of(application)
    owner = controller(application) or {}
    if owner.get("kind") == "ApplicationSet":
        made_by = Ref(API_VERSION, "ApplicationSet", owner["name"], ref.namespace)
        found = await world.kube.find(made_by)
        ignored = str(((found or {}).get("spec") or {}).get("ignoreApplicationDifferences") or "")
        if "syncPolicy" not in ignored:
            raise PlanError(
                f"{ref} is made by {made_by}, which would switch its automated sync on again at once, and so "
                "undo the rollback: add /spec/syncPolicy to its spec.ignoreApplicationDifferences"
            )
    parent = owner_in(application, [a for a in known if a is not application])
    if parent is None:
        return []
    policy = automated(parent)
    if policy is not None and policy.get("selfHeal"):
        raise PlanError(
            f"{ref} is deployed by {Ref.of(parent)}, whose self-heal would switch automated sync on again: "
            "pause that one's automated sync first"
        )
    return [f"{Ref.of(parent)} deploys {ref}, and shows it OutOfSync while its automated sync is paused"]


def _touched(resource: Object) -> Effect:
    """An object of the Application's, which another revision may change."""
    group, version = resource.get("group"), resource["version"]
    namespace = resource.get("namespace") or None
    ref = Ref(f"{group}/{version}" if group else version, resource["kind"], resource["name"], namespace)
    return Effect(Kind.OBJECT if namespace else Kind.CLUSTER_SCOPED, ref, "as an earlier revision has it")


async def _workloads(resources: Sequence[Object], world: World) -> list[Victim]:
    """The workloads whose pods another revision may replace."""
    found = await asyncio.gather(*(world.kube.find(ref) for ref in _workload_refs(resources)))
    return [await workload_victim(obj, world) for obj in found if obj is not None]


def _workload_refs(resources: Iterable[Object]) -> list[Ref]:
    return [
        Ref(f"{r['group']}/{r['version']}", r["kind"], r["name"], r.get("namespace"))
        for r in resources
        if r.get("kind") in ROLLED and r.get("group") and r.get("version")
    ]
