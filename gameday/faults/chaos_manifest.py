"""Takes a Chaos Mesh manifest apart: the faults inside it, and where each of them gets its end.

A Schedule holds one fault, which it makes anew each time it fires; a Workflow holds many, one for each
template. Facts from Chaos Mesh 2.8: the one-shot actions are those marked `chaos-mesh:oneshot` in
api/v1alpha1; inside a Workflow a fault must have no `duration`, its template's `deadline` is its end
(workflow_webhook.go).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gameday.experiment import source
from gameday.experiment.problems import InvalidExperiment
from gameday.experiment.quantity import format_duration, parse_duration
from gameday.experiment.tree import parse
from gameday.faults.base import PlanError
from gameday.platform.chaos_mesh import API_VERSION

if TYPE_CHECKING:
    from gameday.platform.objects import Object

SLACK = 60.0  # seconds that a fault outlasts its step: its own end is the dead-man's switch, not the rule
CLOUD = {"AWSChaos": "ec2Instance", "AzureChaos": "vmName", "GCPChaos": "instance"}  # and what is hit
ONE_SHOT = frozenset({"pod-kill", "container-kill", "ec2-restart", "vm-restart", "node-reset"})
WITHOUT_DAEMON = frozenset({"pod-kill", "pod-failure"})  # the controller does these through the API server
NOT_FAULTS = frozenset({"PodNetworkChaos", "PodIOChaos", "PodHttpChaos"})  # Chaos Mesh's own bookkeeping


@dataclass(frozen=True)
class Part:
    """One fault inside a manifest. Changing `spec` or `end_in` changes the manifest."""

    kind: str
    spec: Object
    end_in: Object  # what holds its end, under `end_key`
    end_key: str = "duration"
    later: bool = False  # a Workflow makes it when its turn comes
    repeated: bool = False  # a Schedule makes it again and again, choosing anew

    @property
    def action(self) -> str:
        return str(self.spec.get("action", ""))

    @property
    def one_shot(self) -> bool:
        """Over when it is done: there is nothing that Chaos Mesh could take back."""
        return self.action in ONE_SHOT

    @property
    def needs_daemon(self) -> bool:
        return not (self.kind == "PodChaos" and self.action in WITHOUT_DAEMON)


def parts(kind: str, spec: Object) -> Iterator[Part]:
    """Every fault inside a manifest's spec. Raises PlanError for a shape that hides one from us."""
    if kind == "Schedule":
        inner = str(spec.get("type", ""))
        yield from (replace(p, repeated=True) for p in parts(inner, _embedded(spec, inner)))
    elif kind == "Workflow":
        for template in spec.get("templates") or ():
            inner = str(template.get("templateType", ""))
            if inner == "Schedule":
                yield from (replace(p, later=True) for p in parts(inner, _embedded(template, inner)))
            elif inner.endswith("Chaos"):
                yield Part(inner, _embedded(template, inner), template, "deadline", later=True)
    else:
        yield Part(kind, spec, spec)


def templates(kind: str, spec: Object) -> list[Object]:
    """The templates of a Workflow, also of one that a Schedule starts."""
    if kind == "Schedule" and spec.get("type") == "Workflow":
        return templates("Workflow", _embedded(spec, "Workflow"))
    return list(spec.get("templates") or ()) if kind == "Workflow" else []


def _embedded(holder: Object, kind: str) -> Object:
    """The spec under the key that is the kind in camel case, as networkChaos or physicalmachineChaos."""
    for key, value in holder.items():
        if kind and key.lower() == kind.lower() and isinstance(value, dict):
            return value
    name = holder.get("name") or "the Schedule"
    raise PlanError(f"{name} says type {kind or 'nothing'}, but holds no spec of that kind")


def set_ends(kind: str, spec: Object, hold: float | None) -> list[str]:
    """Give all that lasts an end where it has none: the step's time and some slack. Returns warnings."""
    end = format_duration((hold or 0.0) + SLACK)
    warnings = []
    for part in parts(kind, spec):
        given = part.end_in.get(part.end_key)
        if not given:
            part.end_in[part.end_key] = end
        elif hold is not None and not part.one_shot and not (part.later or part.repeated):
            seconds = _seconds(given)
            if seconds < hold:
                warnings.append(
                    f"its {part.end_key} {given} is shorter than the step's `for` {format_duration(hold)}: "
                    "Chaos Mesh ends it before"
                )
    for template in templates(kind, spec):
        if template.get("templateType") not in ("Serial", "Parallel") and not template.get("deadline"):
            template["deadline"] = end
    if kind == "Schedule":
        warnings.append("a Schedule has no end of its own: if gameday dies, only `gameday recover` stops it")
    return warnings


def _seconds(duration: Any) -> float:
    try:
        return parse_duration(duration)
    except ValueError as error:
        raise PlanError(f"its duration is wrong: {error}") from error


def read(path: str, folder: Path) -> Object:
    """The one manifest of a file, looked for beside the experiment, then here. Raises PlanError."""
    beside = folder / path
    try:
        tree = parse(source.read(beside if beside.exists() else Path(path)), path)
    except InvalidExperiment as error:
        raise PlanError(f"the manifest cannot be read: {error}") from error
    if tree.problems:
        raise PlanError(f"the manifest cannot be read: {tree.problems[0]}")
    if not isinstance(tree.data, dict):
        raise PlanError(f"the manifest {path} holds no Kubernetes object")
    return checked(tree.data, path)


def checked(manifest: Object, path: str) -> Object:
    """A copy of a whole manifest, if it is a fault of Chaos Mesh. Raises PlanError."""
    if manifest.get("apiVersion") != API_VERSION:
        raise PlanError(f"the manifest {path} has apiVersion {manifest.get('apiVersion')}, not {API_VERSION}")
    meta = manifest.get("metadata") or {}
    if not isinstance(manifest.get("spec"), dict) or not isinstance(meta, dict):
        raise PlanError(f"the manifest {path} has no spec")
    check_kind(str(manifest.get("kind", "")))
    kept = {k: meta[k] for k in ("name", "namespace", "labels", "annotations") if meta.get(k)}
    return copy.deepcopy({"kind": manifest["kind"], "metadata": kept, "spec": manifest["spec"]})


def check_kind(kind: str) -> None:
    """Raises PlanError for what is no fault."""
    if kind in NOT_FAULTS or not (kind.endswith("Chaos") or kind in ("Schedule", "Workflow")):
        raise PlanError(f"{kind or 'a manifest without kind'} is no fault such as NetworkChaos or Schedule")
