"""How well an object is, by gitops-engine's rules for the kinds that the sandbox deploys."""

from __future__ import annotations

from gameday.platform.objects import Object, condition

_ORDER = ["Healthy", "Suspended", "Progressing", "Missing", "Degraded"]  # gitops-engine's: the worst counts


def worst(states: list[str]) -> str:
    """The health of a whole that has these parts."""
    return max(["Healthy", *states], key=_ORDER.index)


def health_of(kind: str, live: Object | None) -> tuple[str, str] | None:
    """An object's health and why; None for a kind that has none, as a ConfigMap."""
    if live is None:
        return "Missing", ""
    return _deployment(live) if kind == "Deployment" else None


def _deployment(deployment: Object) -> tuple[str, str]:
    spec, status = deployment["spec"], deployment.get("status") or {}
    if spec.get("paused"):
        return "Suspended", "Deployment is paused"
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 1):
        return (
            "Progressing",
            "Waiting for rollout to finish: observed deployment generation less than desired generation",
        )
    if condition(deployment, "Progressing").get("reason") == "ProgressDeadlineExceeded":
        name = deployment["metadata"]["name"]
        return "Degraded", f'Deployment "{name}" exceeded its progress deadline'
    wanted, updated = spec.get("replicas", 1), status.get("updatedReplicas", 0)
    total, available = status.get("replicas", 0), status.get("availableReplicas", 0)
    text = ""
    if updated < wanted:
        text = f"{updated} out of {wanted} new replicas have been updated"
    elif total > updated:
        text = f"{total - updated} old replicas are pending termination"
    elif available < updated:
        text = f"{available} of {updated} updated replicas are available"
    return ("Progressing", f"Waiting for rollout to finish: {text}...") if text else ("Healthy", "")
