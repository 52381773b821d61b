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
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from gameday.masking import mask
from gameday.states import Reading

LOG_VERSION = 1
OUT_OF_SERVICE = ("spec.taints", "spec.unschedulable")  # the fields of a node that keep pods off it
Labels = Mapping[str, str]

THE_PLATFORM = "the platform itself"  # who ended a fault that was over by its own kind


@dataclass(frozen=True, kw_only=True)
class Event:
    """The fields of every event. `at` and `seq` are set by the log when the event is written."""

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
    # context, server, kubernetes, prometheus, slurm; `where`: the option of `gameday run` that names it
    platform: dict[str, str] = field(default_factory=dict)
    file: str = ""


@dataclass(frozen=True, kw_only=True)
class Phase(Event):
    """The run entered a phase: preflight, baseline, method, recovery, audit, done."""

    phase: str


@dataclass(frozen=True, kw_only=True)
class Planned(Event):
    """The approved plan, as in plan.json: the cluster, and the steps with their targets by UID."""

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
    """A probe was asked. `state`: holds, broken, no-data, partial, unreachable, no-baseline.

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
    measured: int = 0  # measurements of this probe so far that were taken while a fault was in force

    @property
    def counted(self) -> Reading:
        """The state as it counts: what did not hold, and is not held against the platform, is ignored."""
        state = Reading.recorded(self.state)
        return Reading.IGNORED if self.ignored and state != Reading.HOLDS else state


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
    """A fault changed state, by evidence. `state`: injecting, in, undoing, out, failed.

    `by` is there where the run did not end it: who did, in words, or THE_PLATFORM; `message` says how.
    """

    step: str
    name: str
    kind: str
    state: str
    targets: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)
    message: str = ""
    by: str = ""


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

    `state`: intended (before it is made), made, not-made (it was refused for certain, `message` says why),
    undone, kept (someone else changed it since, so it was left, see `message`), irreversible, accepted (a
    person took it over: who, when and why is in `message`), failed (`message` says why). `sets`: the fields
    that a patch sets, as spec.unschedulable; older logs have them in the words of `summary` alone.
    """

    entry: int
    step: str
    operation: str  # create, patch, delete, evict, run
    object: str  # Kind namespace/name
    state: str
    sets: list[str] = field(default_factory=list)
    summary: str = ""
    message: str = ""

    def takes_out_of_service(self) -> set[str]:
        """The fields of a node's spec by which the change keeps pods off it; none for another object."""
        named = self.sets or self.summary
        return {p for p in OUT_OF_SERVICE if p in named} if self.object.startswith("Node ") else set()


@dataclass(frozen=True, kw_only=True)
class Audited(Event):
    """One object touched was looked at again at the end.

    `state`: restored, kept, irreversible, accepted (a person took it over), left.

    `read_back` is false where the undo was run, and nobody can see what it changed; `done` says what an
    irreversible change did: ended, requeued, promoted.
    """

    object: str
    state: str
    message: str = ""
    read_back: bool = True
    done: str = ""


@dataclass(frozen=True, kw_only=True)
class Restoration(Event):
    """Somebody else than the run puts back what it left. `state`: begun, restored, left.

    What comes after the first of these in a log came after the run itself.
    """

    by: str
    state: str
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Ended(Event):
    """Something that an effect was to end was there when its step began, and is gone by what the run did.

    Or it is a pod that came to a node later, and that Kubernetes ended there: so says `message`.
    `done`: replaced (its controller has made another pod since), ended, ended for good (by the plan nothing
    makes it again); "" where nobody could see whether it is gone, and `message` says why.
    `count` is how many of that name there were, one after another; `at_least`: there may have been more.
    """

    object: str
    done: str
    count: int = 1
    at_least: bool = False
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
    """Samples that could not be had, from `start` to `end` (Unix seconds), and why.

    `partial`: there are samples, of an answer with reservations.
    """

    query: int
    start: float
    end: float
    reason: str = ""
    partial: bool = False


@dataclass(frozen=True, kw_only=True)
class Abort(Event):
    """The run was told to stop. `by`: condition, person, lever, signal, control, engine."""

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

    `verdict`: passed, deviated, aborted, refused, not-restored, interrupted, defect.
    """

    verdict: str
    reason: str
    exit_code: int


E = TypeVar("E", bound=Event)


def masked(event: E) -> E:
    """The event without the secrets in it: as it is written, and as everybody hears of it."""
    changed: dict[str, Any] = {}
    for f in fields(event):
        value = getattr(event, f.name)
        if isinstance(event, Samples) and f.name == "series":  # points are numbers, and many
            hidden: Any = [{**s, "labels": mask({"labels": s.get("labels", {})})["labels"]} for s in value]
        elif f.name == "labels":
            hidden = mask({"labels": value})["labels"]
        else:
            hidden = mask(value) if isinstance(value, str | list | tuple | Mapping) else value
        if hidden != value:
            changed[f.name] = hidden
    return replace(event, **changed) if changed else event


def encode(event: Event) -> str:
    """One line of the log, without the line end; fields at their default are left out.

    Characters that are not seen, as those that reorder a line, are escaped: JSON means the same by it, and
    a terminal on which somebody reads the log is told nothing.
    """
    return _UNSEEN.sub(lambda char: json.dumps(char[0])[1:-1], _json(event))


_UNSEEN = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def _json(event: Event) -> str:
    body: dict[str, Any] = {"seq": event.seq, "at": round(event.at, 3), "type": event.type}
    for f in fields(event):
        value = getattr(event, f.name)
        if f.name in body or (f.default is not MISSING and value == f.default) or value in ({}, []):
            continue
        body[f.name] = value
    try:
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:  # JSON has no NaN and no infinities: write them as Prometheus does
        return json.dumps(_texts(body), separators=(",", ":"), ensure_ascii=False, default=str)


def _texts(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0:
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    if isinstance(value, dict):
        return {k: _texts(v) for k, v in value.items()}
    return [_texts(v) for v in value] if isinstance(value, list) else value


def decode(line: str | bytes) -> Event | None:
    """The event of a line; None for a type this version does not know. Raises ValueError for no event."""
    body = json.loads(line)
    if not isinstance(body, dict) or not isinstance(body.get("seq", 0), int):
        raise ValueError("a line of a log is an object with a number")
    name = body.pop("type", "")
    if not isinstance(name, str):
        raise ValueError("the type of an event is a word")
    kind = _TYPES.get(name)
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


class NoLog(OSError):
    """There is no log where one was to be read."""


class Log:
    """The events of a file, in order, as often as asked; raises NoLog where there is none.

    Lines that hold no event are passed over and counted. A last line without its end was cut short by a crash
    or a full disk; whoever appends to the file removes that line first.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise NoLog(f"{path}: there is no log here; give the folder of a run, as reports/<run>")
        self.path, self.unreadable = path, 0

    def __iter__(self) -> Iterator[Event]:
        self.unreadable = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return
                try:
                    event = _samples(line) if _SAMPLES in line[:80] else decode(line)
                except ValueError:
                    self.unreadable += 1
                    continue
                if event is not None:
                    yield event


_SAMPLES = b'"type":"samples"'
_parse = json.JSONDecoder().raw_decode


def _samples(line: bytes) -> Samples:
    """The event of a line of samples, faster than `decode`: a long log has hardly any other lines."""
    body, _ = _parse(line.decode())
    try:
        return Samples(query=body["query"], series=body["series"], at=body["at"], seq=body["seq"])
    except (KeyError, TypeError):
        raise ValueError("a line of samples lacks one of its keys") from None


Emit = Callable[[Event], None]
