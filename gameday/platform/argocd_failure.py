"""Why an Application is not well: what its conditions, its last operation and its objects' events say.

The causes are what decides who is to be called: who wrote the manifests, who keeps Argo CD, who gives
permissions, who runs the workload, or whoever owns what it depends on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gameday.experiment.text import shorten
from gameday.platform.argocd import operation_state, status_of
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Object
from gameday.platform.resources import EVENTS

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

LONGEST = 300  # characters of what is quoted
_PERMISSION = r"forbidden|not permitted|permission denied|authentication required|unauthorized|access denied"
_DEPENDENCY = (
    r"connection refused|no such host|i/o timeout|deadline exceeded|dial tcp|failed calling webhook"
    r"|no matches for kind|could not find the requested resource|namespaces? .* not found|unavailable desc"
    r"|FailedMount|FailedAttachVolume|references project .* does not exist|there are no clusters"
)
_GENERATION = r"generate manifest|unable to resolve|app path does not exist|helm template|kustomize build"
_RUNTIME = r"BackOff|ErrImage|ImagePull|CrashLoop|OOMKill|Unhealthy|FailedScheduling|Evicted|exit code"


@dataclass(frozen=True)
class Diagnosis:
    """Why, in one of seven words or pairs of words, and what says so."""

    cause: str  # manifest generation, comparison, apply, health, permission, runtime, dependency
    says: str

    def __str__(self) -> str:
        return f"{self.cause}: {shorten(self.says, LONGEST)}"


def diagnose(application: Object, warnings: Sequence[str] = ()) -> Diagnosis | None:
    """The first cause in the order in which Argo CD works; None for one that is well.

    `warnings` are warning events about its unhealthy objects and their pods, newest first.
    """
    return next(_causes(application, warnings), None)


def _causes(application: Object, warnings: Sequence[str]) -> Iterator[Diagnosis]:
    conditions = status_of(application).get("conditions") or ()
    said = {c["type"]: str(c.get("message", "")) for c in conditions}
    for kind in ("InvalidSpecError", "ComparisonError"):
        if kind in said:
            yield Diagnosis(_cause(said[kind], _GENERATED, "comparison"), f"{kind}: {said[kind]}")
    yield from _operation(operation_state(application))
    for kind, otherwise in (("SyncError", "apply"), ("DeletionError", "apply"), ("UnknownError", "runtime")):
        if kind in said:
            yield Diagnosis(_cause(said[kind], _APPLIED, otherwise), f"{kind}: {said[kind]}")
    yield from _health(application, warnings)
    for kind in ("SharedResourceWarning", "OrphanedResourceWarning", "RepeatedResourceWarning"):
        if kind in said and status_of(application).get("sync", {}).get("status") != "Synced":
            yield Diagnosis("comparison", f"{kind}: {said[kind]}")


_APPLIED = ((_PERMISSION, "permission"), (_DEPENDENCY, "dependency"))
_GENERATED = (*_APPLIED, (_GENERATION, "manifest generation"))
_RAN = ((_DEPENDENCY, "dependency"), (_PERMISSION, "permission"), (_RUNTIME, "runtime"))


def _cause(text: str, rules: Iterable[tuple[str, str]], otherwise: str) -> str:
    return next((cause for words, cause in rules if re.search(words, text, re.IGNORECASE)), otherwise)


def _operation(state: Object) -> Iterator[Diagnosis]:
    if state.get("phase") not in ("Failed", "Error"):
        return
    text = str(state.get("message") or f"the operation ended in {state['phase']}")
    for each in (state.get("syncResult") or {}).get("resources") or ():
        name = f"{each.get('kind')} {each.get('name')}"
        if each.get("status") == "SyncFailed":
            said = f"{name}: {each.get('message', '')}"
            yield Diagnosis(_cause(said, _APPLIED, "apply"), said)
        elif each.get("hookType") and each.get("hookPhase") in ("Failed", "Error"):
            yield Diagnosis("runtime", f"{each['hookType']} hook {name}: {each.get('message', '')}")
    rules = _GENERATED if text.startswith("ComparisonError") else _APPLIED
    yield Diagnosis(_cause(text, rules, "comparison" if rules is _GENERATED else "apply"), text)


def _health(application: Object, warnings: Sequence[str]) -> Iterator[Diagnosis]:
    if status_of(application).get("health", {}).get("status", "Healthy") in ("Healthy", "Suspended"):
        return
    for each in unwell(application):
        state = each["health"]
        text = f"{each.get('kind')} {each.get('name')} is {state['status']}"
        text += f": {state['message']}" if state.get("message") else ""
        if state["status"] == "Missing":
            yield Diagnosis("apply", f"{text} (it is not in the cluster)")
            continue
        telling = [w for w in warnings if _cause(w, _RAN, "")]
        said = next(iter(telling), "")
        yield Diagnosis(_cause(said, _RAN, "health"), f"{text}; {said}" if said else text)


def unwell(application: Object) -> list[Object]:
    """The entries of status.resources that are not healthy, the worst first."""
    order = ["Degraded", "Missing", "Unknown", "Progressing"]
    entries = status_of(application).get("resources") or ()
    found = [r for r in entries if (r.get("health") or {}).get("status") in order]
    return sorted(found, key=lambda r: order.index(r["health"]["status"]))


async def explain(kube: Kube, application: Object) -> Diagnosis | None:
    """The diagnosis with the events of whatever is unwell; events that can't be read are left out."""
    warnings: list[Object] = []
    parts = unwell(application)
    for namespace in sorted({str(r.get("namespace") or "") for r in parts} - {""}):
        names = tuple(str(r["name"]) for r in parts if r.get("namespace") == namespace)
        try:
            found = await kube.list(EVENTS, namespace, fields={"type": "Warning"})
        except PlatformError:
            continue
        warnings += [e for e in found if str((e.get("involvedObject") or {}).get("name")).startswith(names)]
    warnings.sort(key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""), reverse=True)
    texts = [f"{e.get('reason', '')}: {e.get('message', '')}" for e in warnings]
    return diagnose(application, texts)
