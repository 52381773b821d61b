"""Rollback: an Application runs an earlier revision, as `argocd app rollback` does it, then its own again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gameday.experiment.model import DNSLabel, ObjectName, PositiveDuration, Spec
from gameday.experiment.problems import did_you_mean
from gameday.faults.base import Evidence, FaultError, FaultPlan, PlanError
from gameday.faults.pods import check_namespaces
from gameday.ledger.operations import Edit, Patch
from gameday.platform.objects import Object, Ref, controller, gpus
from gameday.platform.world import Victim, World

if TYPE_CHECKING:
    from gameday.ledger import argocd
    from gameday.ledger.ledger import StepLedger

LOOK = 0.3  # seconds between looks at an operation
ROLLED = ("Deployment", "StatefulSet", "DaemonSet", "Rollout")  # a new revision may replace their pods
CHANGING = ("Progressing", "Missing", "Unknown", None)


class RollbackSpec(Spec):
    """Which Application, and to what."""

    application: ObjectName = Field(description="The Application's name.")
    namespace: DNSLabel = Field("argocd", description="Its own namespace.")
    to: str | int = Field(
        "previous",
        description="`previous` (what was deployed before and differs), an id of its history, or a revision.",
    )
    prune: bool = Field(False, description="Delete what that revision does not hold, as `--prune` does.")
    settle_within: PositiveDuration = Field(
        300.0, description="How long the operation, and health after it, may take: there, and back."
    )


class Rollback:
    """An earlier deployment of the history is deployed again; automated sync is paused meanwhile."""

    async def plan(self, spec: Any, world: World) -> FaultPlan:
        from gameday.platform.argocd import automated, describe, history, status_of, under_way

        wanted = spec.rollback
        application, known = await read(wanted.application, wanted.namespace, world)
        ref = Ref.of(application)
        if under_way(application):
            raise PlanError(f"{ref}: an operation is in progress; wait until it has ended")
        entries = history(application)
        to, before = choose(wanted.to, entries, ref), entries[-1]
        resources = status_of(application).get("resources") or ()
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
            needs=(f"patch applications.argoproj.io {wanted.namespace}",),
            warnings=tuple(fought),
            data={
                "to": to,
                "before": before,
                "health": (status_of(application).get("health") or {}).get("status"),
                # Only where git holds all that is live now, whatever is too much afterwards came by us.
                "pruneBack": not any(r.get("requiresPruning") for r in resources),
                "options": (application["spec"].get("syncPolicy") or {}).get("syncOptions") or [],
            },
        )

    async def inject(self, plan: FaultPlan, world: World, ledger: StepLedger) -> None:
        """Pause automated sync, ask for the rollback, and follow it to its end."""
        from gameday.ledger.argocd import Rollback as RollbackOperation
        from gameday.platform.argocd import automated, mark_of, operation_state

        spec, ref = plan.spec.rollback, plan.victims[0].ref
        application = await world.kube.get(ref)
        if (policy := automated(application)) is not None:
            await ledger.perform([await Patch.of(world.kube, ref, _pause(application, policy))])
        rollback = RollbackOperation(
            ref=ref,
            run=ledger.run,
            to=plan.data["to"],
            before=plan.data["before"],
            prune=spec.prune,
            prune_back=plan.data["pruneBack"],
            options=tuple(plan.data["options"]),
            within=spec.settle_within,
        )
        await ledger.perform([rollback])
        await _ended(rollback, spec.settle_within, world)
        application = await world.kube.get(ref)
        state = operation_state(application)
        if mark_of(state.get("operation")) == rollback.mark and state["phase"] != "Succeeded":
            from gameday.platform.argocd_failure import explain

            why = await explain(world.kube, application) or state.get("message")
            raise FaultError(f"{ref}: the rollback ended in {state['phase']}: {why}")

    async def hold(self, plan: FaultPlan, world: World, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def settled(self, plan: FaultPlan, world: World) -> Evidence:
        """In and out when that revision is deployed, compared since, and its objects have come to rest."""
        from gameday.platform.argocd import (
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
        finished = operation_state(application).get("finishedAt") or ""
        seen = str(status.get("reconciledAt") or "") >= finished  # both are UTC, to the second
        changing = health in CHANGING and health != plan.data["health"]
        if under_way(application) or not seen or changing:
            return Evidence("partial", tuple(facts))
        if same_deployment(now, plan.data["to"]):
            return Evidence("in", tuple(facts))
        worse = plan.data["health"] == "Healthy" and health != "Healthy"
        return Evidence("partial" if worse else "out", tuple(facts))


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
            f"{ref} has no history: nothing was deployed yet, so there is nothing to roll back to"
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

    A policy without options is `{}`, which cannot be told from an absent one: then the field around it goes.
    """
    if policy:
        return Edit(("spec", "syncPolicy", "automated"), None)
    rest = {k: v for k, v in application["spec"]["syncPolicy"].items() if k != "automated"}
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


async def _workloads(resources: Sequence[Object], world: World) -> list[Victim]:
    """The workloads whose pods another revision may replace."""
    refs = [
        Ref(f"{r['group']}/{r['version']}", r["kind"], r["name"], r.get("namespace"))
        for r in resources
        if r.get("kind") in ROLLED and r.get("group") and r.get("version")
    ]
    found = await asyncio.gather(*(world.kube.find(r) for r in refs))
    return [workload_victim(obj) for obj in found if obj is not None]


def workload_victim(workload: Object) -> Victim:
    """A workload with all of its pods."""
    pods = int(
        workload["spec"].get("replicas", (workload.get("status") or {}).get("desiredNumberScheduled", 1))
    )
    template = (workload["spec"].get("template") or {}).get("spec") or {}
    return Victim(Ref.of(workload), "workload", gpus=gpus({"spec": template}) * pods, pods=pods)
