"""The `argocd` probe: how Argo CD says an Application is, and the Applications that it deploys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gameday.experiment.model import DNSLabel, ObjectName, Spec
from gameday.extend import Measurement, Probe, Value
from gameday.platform.objects import Object, Ref, controller

if TYPE_CHECKING:
    from gameday.platform.world import World

GROUP = "argoproj.io"
DEEPEST = 5  # applications of applications; a circle must end


class ArgoCDSpec(Spec):
    """Which Application, or those of which ApplicationSet, and what to read of them."""

    application: ObjectName | None = Field(None, description="An Application's name.")
    application_set: ObjectName | None = Field(
        None, description="An ApplicationSet's name: all Applications that it made."
    )
    namespace: DNSLabel = Field("argocd", description="Its own namespace.")
    read: Literal["health", "sync", "revision", "phase", "sinceReconcile"] = Field(
        "health",
        description="`health` (Healthy, Progressing, Degraded, …), `sync` (Synced, OutOfSync), the "
        "`revision` that is deployed, `phase` of the last operation (Succeeded, Running, Failed, Error), or "
        "seconds `sinceReconcile`, the last comparison with git.",
    )
    children: bool = Field(
        False,
        description="Also the Applications that it deploys, itself or by an ApplicationSet, and theirs.",
    )

    @classmethod
    def shorthand(cls) -> str:
        return "application"

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.application is None) == (self.application_set is None):
            raise ValueError("expected either `application` or `applicationSet`")
        return self


class ArgoCD(Probe[ArgoCDSpec]):
    """An Argo CD Application's health, sync status, revision, operation, or time since its last look."""

    Spec: ClassVar = ArgoCDSpec
    example: ClassVar[str] = """\
name: inference is deployed and well
argocd: {application: inference}
is: Healthy
"""

    async def measure(self, spec: ArgoCDSpec, world: World) -> Measurement:
        """One value for each Application; one that is not well is explained in the message."""
        from gameday.platform.argocd import application, applications

        if spec.application and not spec.children:  # asked often, and there may be thousands
            found = await application(world.kube, spec.application, spec.namespace)
            known = [found] if found else []
        else:
            known = await applications(world.kube, spec.namespace)
        asked = [a for a in known if _asked(a, spec)]
        if not asked:
            what = f"ApplicationSet {spec.namespace}/{spec.application_set} has made no Application"
            one = f"there is no Application {spec.namespace}/{spec.application}"
            return Measurement((), one if spec.application else what)
        family = _family(asked, known) if spec.children else asked
        values = [_read(a, spec.read) for a in family]
        message = await _message(spec, family, world)
        if not any(value is not None for value in values):
            return Measurement((), message)
        names = [_name(a) if _several(spec) else "" for a in family]
        # One of which nothing is known yet holds no bound, and must not be forgotten.
        series = [(n, "" if v is None else v) for n, v in zip(names, values, strict=True)]
        return Measurement(tuple(series), message)


def _asked(application: Object, spec: ArgoCDSpec) -> bool:
    meta = application["metadata"]
    if meta.get("namespace") != spec.namespace:
        return False
    return (
        meta["name"] == spec.application
        if spec.application
        else _made_by(application) == spec.application_set
    )


def _made_by(application: Object) -> str | None:
    """The ApplicationSet that an Application is from."""
    owner = controller(application) or {}
    return owner.get("name") if owner.get("kind") == "ApplicationSet" else None


def _several(spec: ArgoCDSpec) -> bool:
    """Whether each value has to say whose it is."""
    return spec.children or spec.application_set is not None


def _name(application: Object) -> str:
    return str(Ref.of(application))


def _family(asked: list[Object], known: list[Object]) -> list[Object]:
    """Applications and all that they deploy, directly or through an ApplicationSet, each once."""
    found, layer = {a["metadata"]["uid"]: a for a in asked}, asked
    for _ in range(DEEPEST):
        layer = [
            child
            for parent in layer
            for child in known
            if child["metadata"]["uid"] not in found and _deploys(parent, child)
        ]
        found |= {a["metadata"]["uid"]: a for a in layer}
    return list(found.values())


def _deploys(parent: Object, child: Object) -> bool:
    from gameday.platform.argocd import elsewhere, identity, status_of

    if elsewhere(parent):
        return False  # its Applications are in that cluster too
    deployed = {identity(r) for r in status_of(parent).get("resources") or ()}
    space, name = child["metadata"]["namespace"], child["metadata"]["name"]
    ways = {(GROUP, "Application", space, name), (GROUP, "ApplicationSet", space, _made_by(child) or "")}
    return bool(ways & deployed)


def _read(application: Object, what: str) -> Value | None:
    """The value, None while Argo CD has not said."""
    from gameday.platform.argocd import history, operation_state, revision_of, status_of

    status = status_of(application)
    match what:
        case "health":
            return (status.get("health") or {}).get("status")
        case "sync":
            return (status.get("sync") or {}).get("status")
        case "revision":
            return revision_of((history(application) or [{}])[-1]) or None
        case "phase":
            return operation_state(application).get("phase")
    at = status.get("reconciledAt")
    if at is None:
        return None
    return (datetime.now(UTC) - datetime.fromisoformat(at.replace("Z", "+00:00"))).total_seconds()


async def _message(spec: ArgoCDSpec, family: list[Object], world: World) -> str:
    from gameday.platform.argocd_failure import explain

    said = []
    for application in family:
        if spec.read in ("health", "sync", "phase") and _suspicious(application):
            diagnosis = await explain(world.kube, application)
            if diagnosis is not None:
                said.append(f"{_name(application)}: {diagnosis}" if _several(spec) else str(diagnosis))
    silent = [_name(a) for a in family if _read(a, spec.read) is None]
    if silent:
        said.append(f"Argo CD has said nothing yet of the {spec.read} of {', '.join(silent)}")
    return "; ".join(said)


def _suspicious(application: Object) -> bool:
    """Whether there is something to explain; a healthy Application costs no further question."""
    from gameday.platform.argocd import operation_state, status_of

    return (
        _read(application, "health") not in ("Healthy", "Suspended")
        or bool(status_of(application).get("conditions"))
        or operation_state(application).get("phase") in ("Failed", "Error")
    )
