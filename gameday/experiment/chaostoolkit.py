"""Reads a native Chaos Toolkit experiment as one of ours, so that `gameday run x.json` runs it unchanged.

The mapping: the hypothesis' probes become the steady state, looked at when `runtime.hypothesis.strategy` says
so, as `chaos run` does; each activity of the method becomes a step; the rollbacks go with the first of them
into the ledger, so that they run however the run ends, unless `runtime.rollbacks.strategy` says when.
Reference: https://chaostoolkit.org/reference/api/experiment/
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from gameday.experiment.quantity import parse_duration

Document = dict[str, Any]

RECOVERY = "60s"  # for the steady state after the rollbacks, at which `chaos run` does not look
PROBE_TIMEOUT = "30s"  # a process of its own has to start and to import an extension
ALWAYS = {"type": "python", "module": "os", "func": "getpid"}  # a probe that holds wherever it is asked
CONTINUOUS = ("continuously", "during-method-only")
HYPOTHESIS = ("default", "before-method-only", "after-method-only", *CONTINUOUS)
ROLLBACKS = ("default", "always", "never", "deviated")
FREQUENCY = 1.0  # seconds between two looks while the method runs, as `chaos run` does by itself
QUICKEST = 0.5  # seconds: the shortest interval of a probe


class NotConvertible(Exception):
    """A native experiment that says something we cannot do; the text names the place."""


def is_native(document: Any) -> bool:
    """Whether a document is Chaos Toolkit's: a method or a hypothesis at the top, and no apiVersion."""
    keys = {"method", "steady-state-hypothesis"}
    return isinstance(document, dict) and "apiVersion" not in document and bool(keys & document.keys())


def from_json(source: str) -> Document | None:
    """A native experiment in JSON, which YAML's parser takes for wrong where it is indented with tabs."""
    try:
        document = json.loads(source)
    except (ValueError, RecursionError):
        return None
    return document if is_native(document) else None


def to_experiment(document: Document, values: Mapping[str, Any] | None = None) -> tuple[Document, list[str]]:
    """Our document, and warnings about what is left out. Raises NotConvertible.

    `values` replace those of the configuration, as `chaos run --var` does.
    """
    return _Conversion(document, values or {}).convert()


def with_values(document: Document, values: Mapping[str, Any]) -> Document:
    """The native experiment with values in its configuration, as `chaos run --var` sets them."""
    return document | {"configuration": {**_section(document, "configuration"), **values}}


class _Conversion:
    def __init__(self, document: Document, values: Mapping[str, Any]) -> None:
        if unknown := sorted(values.keys() - _section(document, "configuration").keys()):
            raise NotConvertible(f"configuration: there is no {unknown[0]} that could be set")
        document = self._document = with_values(document, values)
        self._configuration = document["configuration"]
        self._secrets = _section(document, "secrets")
        self._method = _activities(document.get("method"), "method")
        self._hypothesis = _section(document, "steady-state-hypothesis")
        self._probes = _activities(self._hypothesis.get("probes"), "steady-state-hypothesis.probes")
        self._rollbacks = _activities(document.get("rollbacks"), "rollbacks")
        self._warnings: list[str] = []
        self._names: set[str] = set()
        self._run = self._runtime(_section(document, "runtime"))
        if self._run.get("rollbacks") == "never" and self._rollbacks:
            self._warn("the rollbacks never run: runtime.rollbacks.strategy is never")
            self._rollbacks = []

    def convert(self) -> tuple[Document, list[str]]:
        title = str(self._document.get("title") or self._hypothesis.get("title") or "").strip()
        if not title:
            raise NotConvertible("title: a Chaos Toolkit experiment needs a title")
        spec = {
            "title": title,
            "target": {},
            "blastRadius": {"others": self._actions()} if self._actions() else {},
            "steadyState": self._steady_state(),
            "method": self._steps(),
            "chaosToolkit": self._run,
            "steadyBetweenSteps": False,
            "recovery": {"within": RECOVERY},
        }
        metadata: Document = {"name": _slug(title)}
        if tags := self._document.get("tags"):
            metadata["annotations"] = {"chaostoolkit.org/tags": ",".join(map(str, tags))}
        whole = {
            "apiVersion": "gameday.dev/v1alpha1",
            "kind": "Experiment",
            "metadata": metadata,
            "spec": spec,
        }
        return whole, self._warnings

    def _runtime(self, runtime: Document) -> Document:
        """The two strategies, by the names that `chaos run` knows, its old spelling included."""
        hypothesis, rollbacks = (_section(runtime, key) for key in ("hypothesis", "rollbacks"))
        looked = hypothesis.get("strategy", "default")
        looked = "continuously" if looked == "continously" else looked
        rolled = rollbacks.get("strategy")
        for key, found, known in (
            ("hypothesis", looked, HYPOTHESIS),
            ("rollbacks", rolled, (*ROLLBACKS, None)),
        ):
            if found not in known:
                names = ", ".join(name for name in known if name)
                raise NotConvertible(f"runtime.{key}.strategy: expected one of {names}, found {found!r}")
        try:
            self._frequency = max(parse_duration(hypothesis.get("frequency", FREQUENCY)), QUICKEST)
        except ValueError as error:
            raise NotConvertible(f"runtime.hypothesis.frequency: {error}") from error
        looked = looked if self._probes else "default"  # with nothing to look at, the time does not matter
        run = {"hypothesis": looked} | ({"rollbacks": rolled} if rolled else {})
        return run | ({"experiment": self._document} if self._has_controls() else {})

    def _has_controls(self) -> bool:
        every = (self._document, self._hypothesis, *self._probes, *self._method, *self._rollbacks)
        return any(part.get("controls") for part in every)

    # -- the hypothesis ------------------------------------------------------------------------

    def _steady_state(self) -> list[Document]:
        if not self._probes:
            self._warn("there is no steady-state-hypothesis, so nothing can deviate from it")
            probe = {"type": "probe", "name": "no hypothesis", "provider": ALWAYS}
            return [{"name": "no hypothesis", "chaostoolkit": probe, "is": "> 0", "interval": "30s"}]
        return [self._probe(activity) for activity in self._probes]

    def _probe(self, activity: Document) -> Document:
        activity = self._resolved(activity)
        if "tolerance" not in activity:
            raise NotConvertible(f"steady-state-hypothesis: the probe {activity['name']!r} has no tolerance")
        expected = expectation(activity["tolerance"], activity["provider"])
        asked = self._common(activity) | {"type": "probe"}
        if expected is None:
            asked["tolerance"] = activity["tolerance"]
        probe = {
            "name": self._unique(str(activity["name"])),
            "chaostoolkit": asked,
            "is": expected or "true",
            "timeout": activity.get("timeout") or PROBE_TIMEOUT,
            "interval": self._frequency,
        }
        return probe if self._run["hypothesis"] in CONTINUOUS else probe | {"during": "ignore"}

    def _actions(self) -> list[str]:
        """The names of all activities that act. Running the experiment unchanged allows their effects."""
        every = [self._resolved(a) for a in (*self._method, *self._rollbacks)]
        return list(dict.fromkeys(str(a["name"]) for a in every))

    # -- the method ----------------------------------------------------------------------------

    def _steps(self) -> list[Document]:
        if not self._method and not self._rollbacks:
            return [{"name": "empty method", "wait": "1ms"}]
        nothing = {"type": "probe", "name": "empty method", "provider": ALWAYS}
        method = [self._resolved(activity) for activity in self._method] or [nothing]
        steps = [self._step(activity) for activity in method]
        if self._rollbacks:
            rollbacks = [self._common(self._resolved(a)) for a in self._rollbacks]
            steps[0]["chaostoolkit"]["rollbacks"] = rollbacks
        return _beside([(bool(a.get("background")), step) for a, step in zip(method, steps, strict=True)])

    def _step(self, activity: Document) -> Document:
        fault = self._common(activity) | {"ignoreFailure": True}
        if timeout := activity.get("timeout"):
            fault["timeout"] = timeout
        if pauses := activity.get("pauses"):
            fault["pauses"] = {
                k: self._pause(pauses[k], activity) for k in ("before", "after") if pauses.get(k)
            }
        if activity.get("dry"):
            self._warn(f"{activity['name']}: dry is ignored")
        return {"name": self._unique(str(activity["name"])), "chaostoolkit": fault}

    # -- the parts of an activity --------------------------------------------------------------

    def _resolved(self, activity: Document) -> Document:
        """The activity itself where it only refers to another one by name."""
        if "ref" in activity:
            everything = (*self._probes, *self._method, *self._rollbacks)
            found = next((a for a in everything if a.get("name") == activity["ref"] and "ref" not in a), None)
            if found is None:
                raise NotConvertible(f"ref: there is no activity named {activity['ref']!r}")
            activity = found
        if not activity.get("name") or not isinstance(activity.get("provider"), dict):
            raise NotConvertible(f"the activity {activity.get('name') or '?'} needs a name and a provider")
        return activity

    def _common(self, activity: Document) -> Document:
        kept = {
            "type": activity.get("type", "action"),
            "name": activity["name"],
            "provider": activity["provider"],
        }
        if self._configuration:
            kept["configuration"] = self._configuration
        if self._secrets:
            kept["secrets"] = self._secrets
        return kept

    def _pause(self, value: Any, activity: Document) -> Any:
        """A number of seconds; `${name}` is looked up in the configuration."""
        if isinstance(value, str) and (match := re.fullmatch(r"\$\{(.+)\}", value.strip())):
            value = self._configuration.get(match[1])
            if isinstance(value, dict) and value.get("type") == "env":
                value = os.environ.get(str(value.get("key")), value.get("default"))
        try:
            parse_duration(value)
        except ValueError as error:
            raise NotConvertible(f"{activity['name']}: pauses: {error}") from error
        return value

    def _unique(self, name: str) -> str:
        number, unique = 1, name
        while unique in self._names:
            number += 1
            unique = f"{name} ({number})"
        self._names.add(unique)
        return unique

    def _warn(self, text: str) -> None:
        self._warnings.append(text)


def _beside(steps: list[tuple[bool, Document]]) -> list[Document]:
    """What runs in the background runs beside all that follows it."""
    for number, (background, step) in enumerate(steps):
        if background and number + 1 < len(steps):
            before = [earlier for _, earlier in steps[:number]]
            return [*before, {"parallel": [step, {"sequence": _beside(steps[number + 1 :])}]}]
    return [step for _, step in steps]


def expectation(tolerance: Any, provider: Document) -> str | None:
    """Our `is` for a tolerance; None for one that Chaos Toolkit itself must judge.

    A list means a range for what a function returns, but any of its items for a status.
    """
    if isinstance(tolerance, bool):
        return "true" if tolerance else "false"
    if isinstance(tolerance, int):
        return f"== {tolerance}"
    if provider.get("type") != "python":
        return None
    if isinstance(tolerance, dict) and tolerance.get("type") == "range" and not tolerance.get("target"):
        tolerance = tolerance.get("range")
    if isinstance(tolerance, list) and len(tolerance) == 2 and all(_is_number(n) for n in tolerance):
        low, high = tolerance
        return f"{low}..{high}" if low <= high else None
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _section(document: Document, key: str) -> Document:
    found = document.get(key) or {}
    if not isinstance(found, dict):
        raise NotConvertible(f"{key}: expected a mapping")
    return found


def _activities(found: Any, where: str) -> list[Document]:
    if not isinstance(found or [], list) or not all(isinstance(a, dict) for a in found or []):
        raise NotConvertible(f"{where}: expected a list of activities")
    return list(found or [])


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:63].strip("-") or "chaos-toolkit"
