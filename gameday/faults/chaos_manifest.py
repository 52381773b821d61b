"""Takes a Chaos Mesh manifest apart: the faults inside it, and where each of them gets its end.

A Schedule holds one fault, which it makes anew each time it fires; a Workflow holds many, one for each
template. Facts from Chaos Mesh 2.8: the one-shot actions are those marked `chaos-mesh:oneshot` in
api/v1alpha1; inside a Workflow a fault must have no `duration`, its template's `deadline` is its end
(workflow_webhook.go).
"""

from __future__ import annotations

import copy
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gameday.experiment import source
from gameday.experiment.problems import InvalidExperiment
from gameday.experiment.quantity import format_duration, parse_go_duration
from gameday.experiment.tree import parse
from gameday.extend import PlanError
from gameday.faults.chaos_schedule import most_firings
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
    times: int = 1  # how often it is made, at most
    place: str = ""  # tells its choice of targets from that of others: its template's name

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


def parts(kind: str, spec: Object, lives: float = 0.0) -> Iterator[Part]:
    """Every fault inside a manifest's spec; a Schedule is there for `lives` seconds, or to its deadline.

    Raises PlanError for a shape that hides one from us, or that never ends.
    """
    if kind == "Schedule":
        inner = str(spec.get("type", ""))
        fires = most_firings(str(spec.get("schedule", "")), lives)
        for part in parts(inner, _embedded(spec, inner), lives):
            yield replace(part, repeated=True, times=part.times * fires)
    elif kind == "Workflow":
        made = _instances(spec)
        for template in spec.get("templates") or ():
            inner, name = str(template.get("templateType", "")), str(template.get("name"))
            times = made[name] or 1
            if inner == "Schedule":
                lasts = _seconds(template.get("deadline") or "0")
                for part in parts(inner, _embedded(template, inner), lasts):
                    yield replace(part, later=True, times=part.times * times, place=name)
            elif inner.endswith("Chaos"):
                held = _embedded(template, inner)
                yield Part(inner, held, template, "deadline", later=True, times=times, place=name)
    else:
        yield Part(kind, spec, spec)


def _instances(spec: Object) -> Counter[str]:
    """How often a Workflow makes each template, at most. Raises PlanError for one that is inside itself."""
    children = {str(t.get("name")): _children(t) for t in spec.get("templates") or ()}
    made: Counter[str] = Counter()

    def make(name: str, times: int, above: tuple[str, ...]) -> None:
        if name in above:
            raise PlanError(f"template {name} is inside itself: such a Workflow never ends")
        made[name] += times
        for child, often in children.get(name, Counter()).items():
            make(child, times * often, (*above, name))

    make(str(spec.get("entry")), 1, ())
    return made


def _children(template: Object) -> Counter[str]:
    """The templates that one begins; of a Task's branches each may be taken."""
    branches = (str(b.get("target")) for b in template.get("conditionalBranches") or ())
    return Counter([*map(str, template.get("children") or ()), *branches])


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
    held = hold or 0.0
    end = format_duration(held + SLACK)
    warnings = []
    for part in parts(kind, spec):
        given = part.end_in.get(part.end_key)
        if not given:
            part.end_in[part.end_key] = end
        elif _seconds(given) < held and not (part.one_shot or part.later or part.repeated):
            warnings.append(_too_short(f"its {part.end_key} {given} is", held))
    for template in templates(kind, spec):
        if template.get("templateType") not in ("Serial", "Parallel") and not template.get("deadline"):
            template["deadline"] = end
    if kind == "Workflow" and (lasts := _lasts(spec)) < held:
        warnings.append(_too_short(f"its templates' deadlines, {format_duration(lasts)} in all, are", held))
    if kind == "Schedule":
        warnings.append(_no_end())
    return warnings


def _no_end() -> str:
    """How long a Schedule of a dead run goes on.

    Wrapped into a Workflow it would end by its template's deadline (pkg/workflow/controllers), but
    under a name that Chaos Mesh makes up, and what it made would bear that name alone: who looks for the
    Schedule by name, and the undo, would find it worse. A Workflow can't hold a Schedule of Workflows at all.
    """
    from gameday.ledger.janitor import EVERY
    from gameday.ledger.lease import DEFAULTS

    return (
        "a Schedule has no end of its own: of a run that dies it fires on, beyond what is counted, until "
        f"a janitor stops it, about {DEFAULTS.duration + EVERY:g} s later, or, where none is deployed, until "
        "somebody runs `gameday recover` (as a template of a Workflow it would end by its deadline)"
    )


def _too_short(what: str, held: float) -> str:
    step = f"shorter than the step's `for` {format_duration(held)}"
    return f"{what} {step}: Chaos Mesh ends it before, and the step ends then, unless `holdWhenEnded`"


def _lasts(spec: Object) -> float:
    """Seconds after which a Workflow is over at the latest, by the deadlines of its templates."""
    named = {str(t.get("name")): t for t in spec.get("templates") or ()}

    def lasts(name: str) -> float:
        template = named.get(name) or {}
        own = _seconds(template["deadline"]) if template.get("deadline") else math.inf
        inner = [lasts(str(child)) for child in template.get("children") or ()]
        match template.get("templateType"):
            case "Serial":
                return min(own, sum(inner))
            case "Parallel":
                return min(own, max(inner, default=0.0))
        return own

    return lasts(str(spec.get("entry")))


def keep_the_last(kind: str, spec: Object) -> None:
    """Let each Schedule keep the last of what it made, where it does not say how much: else nothing.

    What Chaos Mesh deletes as soon as it is over, as a pod-kill is at once, nobody could see (its history's
    limit is none unless it is given: seen on its controllers).
    """
    if kind == "Schedule" and not spec.get("historyLimit"):
        spec["historyLimit"] = 1
    for template in templates(kind, spec):
        if template.get("templateType") == "Schedule":
            keep_the_last("Schedule", _embedded(template, "Schedule"))


def _seconds(duration: Any) -> float:
    try:
        return parse_go_duration(duration)
    except ValueError as error:
        raise PlanError(f"its duration is wrong: {error}") from error


def read(path: str, folder: Path) -> Object:
    """The one manifest of a file, looked for beside the experiment, then here. Raises PlanError."""
    beside = folder / path
    try:
        # os.path.exists, since Path.exists raises for names that no file can have
        there = os.path.exists(beside)  # noqa: PTH110
        tree = parse(source.read(beside if there else Path(path)), path)
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
