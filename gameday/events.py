"""The log of a run: every thing that happens is one of these events, in one append-only file.

The terminal view, the Slack thread, the web page and the report are projections of this log; none
of them has state of its own, so a run that was cut off can always be reported.

Format, version 1: ``events.jsonl`` holds one JSON object a line. Common keys: ``seq`` (from 1,
without holes), ``at`` (Unix seconds, wall clock), ``type`` (the class's name in kebab case); the
other keys are the fields of the class below, defaults left out. Readers ignore unknown types and
keys, so that a newer log can be read by an older version; a last line cut short is dropped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

LOG_VERSION = 1
Labels = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Event:
    """What all events share. `at` and `seq` are set by the log when the event is written."""

    type: ClassVar[str] = "event"
    at: float = 0.0
    seq: int = 0

    def __init_subclass__(cls) -> None:
        cls.type = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()
        _TYPES[cls.type] = cls


_TYPES: dict[str, type[Event]] = {}


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """Always the first event. `experiment` is the rendered document; `platform` says what was found."""

    version: int = LOG_VERSION
    run: str
    name: str
    title: str
    experiment: dict[str, Any]
    gameday: str
    by: str
    seed: int
    variables: dict[str, Any] = field(default_factory=dict)
    platform: dict[str, str] = field(default_factory=dict)  # context, server, kubernetes, prometheus
    file: str = ""
    drill: bool = False


@dataclass(frozen=True, kw_only=True)
class Phase(Event):
    """The run entered a phase: plan, preflight, baseline, method, recovery, audit, done."""

    phase: str


@dataclass(frozen=True, kw_only=True)
class Planned(Event):
    """The approved plan, as in plan.json: steps, targets by UID, blast radius used and allowed."""

    plan: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Preflight(Event):
    """One check before anything is touched. `level`: ok, warning, refused."""

    check: str
    level: str
    message: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Probed(Event):
    """A probe was asked. `state`: holds, broken, no-data, unreachable.

    `value` is the worst series' value (number or text); `low`/`high` the numeric bounds in force;
    `during` tells that a fault was in force, so the looser bound counted. Written when the state
    changes, when it is the worst since the last border, at phase borders and at least every 30 s: samples
    carry the curve between.
    """

    probe: str
    state: str
    purpose: str = "steady-state"  # or abort
    phase: str = ""
    value: float | str | None = None
    baseline: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None  # fraction of the bound; negative when broken
    expected: str = ""
    during: bool = False
    ignored: bool = False
    series: str = ""  # the labels of the worst series
    message: str = ""
    took: float = 0.0  # seconds


@dataclass(frozen=True, kw_only=True)
class StepStarted(Event):
    """A step of the method began. `step` is its path, as 2 or 3.1."""

    step: str
    name: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class StepFinished(Event):
    """A step ended. `outcome`: done, skipped, aborted, failed."""

    step: str
    name: str
    kind: str
    outcome: str
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Fault(Event):
    """A fault changed state, by evidence. `state`: injecting, in, undoing, out, failed."""

    step: str
    name: str
    kind: str
    state: str
    targets: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """How far something long has come, for people who wait."""

    step: str
    message: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True, kw_only=True)
class Change(Event):
    """A change to the world, from the ledger.

    `state`: intended (before it is made), made, undone, kept (someone else changed it since, so it
    was left, see `message`), irreversible, failed (`message` says why).
    """

    entry: int
    step: str
    operation: str  # create, patch, delete, evict, run
    object: str  # Kind namespace/name
    state: str
    summary: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Audited(Event):
    """One object touched was read again at the end. `state`: restored, kept, irreversible, left."""

    object: str
    state: str
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Alert(Event):
    """An alert changed state, from Prometheus' ALERTS. `state`: pending, firing, resolved."""

    alert: str
    state: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ObjectEvent(Event):
    """A Kubernetes event about a target, one of its owners or its node."""

    object: str
    reason: str
    message: str
    level: str = "Normal"  # or Warning
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class ConditionChanged(Event):
    """A status condition of a target, an owner or a node changed.

    So are told, too: a node's `Unschedulable`; its taints, as `Taint KEY`; what others say of it, as `GPUd`
    and `Slurm`, which also tell how things were at the start; a pod's `Phase` and `Terminating`.
    """

    object: str
    condition: str
    status: str
    reason: str = ""
    message: str = ""
    node: str = ""  # where a pod is


@dataclass(frozen=True, kw_only=True)
class QueryDeclared(Event):
    """A query sampled throughout the run. `purpose`: steady-state, observe, alerts."""

    query: int
    expression: str
    purpose: str
    name: str = ""
    step: float = 5.0  # seconds between samples


@dataclass(frozen=True, kw_only=True)
class Samples(Event):
    """New points of one query: for each series its labels and [unix seconds, value] pairs."""

    query: int
    series: list[dict[str, Any]]  # {"labels": {...}, "points": [[t, v], ...]}


@dataclass(frozen=True, kw_only=True)
class Gap(Event):
    """Samples that could not be had, from `start` to `end` (Unix seconds), and why."""

    query: int
    start: float
    end: float
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Abort(Event):
    """The run was told to stop. `by`: condition, person, signal, engine."""

    by: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Note(Event):
    """A person wrote something down during the run."""

    author: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Warn(Event):
    """Something the reader should know that is not a finding, as a Slack failure."""

    source: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Evidence(Event):
    """A file was kept under evidence/ for a target."""

    object: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Verdict(Event):
    """Always the last event of a finished run.

    `verdict`: passed, deviated, aborted, refused, not-restored, interrupted.
    """

    verdict: str
    reason: str
    exit_code: int


def encode(event: Event) -> str:
    """One line of the log, without the line end; fields at their default are left out."""
    body: dict[str, Any] = {"seq": event.seq, "at": round(event.at, 3), "type": event.type}
    for f in fields(event):
        value = getattr(event, f.name)
        if f.name in body or (f.default is not MISSING and value == f.default) or value in ({}, []):
            continue
        body[f.name] = value
    try:
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError:  # JSON has no NaN and no infinities: write them as Prometheus does
        return json.dumps(_texts(body), separators=(",", ":"), ensure_ascii=False)


def _texts(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0:
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    if isinstance(value, dict):
        return {k: _texts(v) for k, v in value.items()}
    return [_texts(v) for v in value] if isinstance(value, list) else value


def decode(line: str | bytes) -> Event | None:
    """The event of a line; None for a type this version does not know. Raises ValueError for broken JSON."""
    body = json.loads(line)
    kind = _TYPES.get(body.pop("type", ""))
    if kind is None:
        return None
    known = _fields(kind.type)
    values = {k: v for k, v in body.items() if k in known}
    for name, f in known.items():
        if name not in values and f.default is MISSING and f.default_factory is MISSING:
            values[name] = {"dict": {}, "list": []}.get(str(f.type).split("[")[0], "")
    return kind(**values)


@cache
def _fields(kind: str) -> dict[str, Any]:
    return {f.name: f for f in fields(_TYPES[kind])}


def read(path: Path) -> Iterator[Event]:
    """All events of a log, in order. Lines that a crash or a full disk cut short are dropped."""
    with path.open("rb") as file:
        for line in file:
            with suppress(ValueError):
                event = decode(line)
                if event is not None:
                    yield event


Emit = Callable[[Event], None]
