"""The parts of a sync: its state from beginning to end, the objects applied and pruned, the history."""

from __future__ import annotations

from typing import Any

from gameday.platform.errors import ApiError
from gameday.platform.objects import Object, Ref
from gameday.sandbox.cache import Cache
from gameday.sandbox.facts import now
from gameday.sandbox.fleet.argocd.comparison import Resource

MANAGER = "argocd-controller"  # ArgoCDSSAManager in argo-cd's common/common.go
HISTORY = 10  # revisions that are kept where spec.revisionHistoryLimit says nothing else


def begun(operation: Object) -> Object:
    """The state of an operation that was just taken up."""
    return {
        "operation": operation,
        "phase": "Running",
        "message": "waiting for completion of hook and tasks",
        "startedAt": now(),
    }


def ended(state: Object, phase: str, message: str, result: Object | None = None) -> Object:
    found = state | {"phase": phase, "message": message, "finishedAt": now()}
    return found | ({"syncResult": result} if result else {})


def history_with(application: Object, state: Object) -> list[Object]:
    """The deployments with this one, the oldest forgotten."""
    history = list(application["status"].get("history") or ())
    result = state["syncResult"]
    entry: dict[str, Any] = {
        "id": history[-1]["id"] + 1 if history else 0,
        **{k: result[k] for k in ("revision", "revisions", "source", "sources") if result.get(k)},
        "deployStartedAt": state["startedAt"],
        "deployedAt": state["finishedAt"],
        "initiatedBy": state["operation"].get("initiatedBy") or {},
    }
    limit = application["spec"].get("revisionHistoryLimit", HISTORY)
    return [*history, entry][-limit:] if limit > 0 else []


async def apply_all(cache: Cache, resources: list[Resource], sync: Object) -> tuple[list[Object], list[str]]:
    """Apply what is wanted, and prune what is not if the sync says so: a result for each, and what failed."""
    results, failed = [], []
    for each in resources:
        entry: Object = {"group": "", **each.names, "syncPhase": "Sync"}
        name = f"{each.object['kind'].lower()}.{entry['group'] or 'core'}/{entry['name']}"
        try:
            entry |= await _one(cache, each, sync, name)
        except ApiError as error:
            entry |= {"status": "SyncFailed", "message": error.message, "hookPhase": "Failed"}
            failed.append(error.message)
        results.append(entry)
    return results, failed


async def _one(cache: Cache, each: Resource, sync: Object, name: str) -> Object:
    if each.wanted is None:
        if not sync.get("prune"):
            return {
                "status": "PruneSkipped",
                "message": "ignored (requires pruning)",
                "hookPhase": "Succeeded",
            }
        if not sync.get("dryRun"):
            await cache.delete(each.object)
        return {"status": "Pruned", "message": "pruned", "hookPhase": "Succeeded"}
    if each.synced or sync.get("dryRun"):
        return {"status": "Synced", "message": f"{name} unchanged", "hookPhase": "Running"}
    cache.put(await cache.kube.patch(Ref.of(each.wanted), each.wanted, "apply", manager=MANAGER))
    word = "configured" if each.live else "created"
    return {"status": "Synced", "message": f"{name} {word}", "hookPhase": "Running"}
