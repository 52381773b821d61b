"""A retrospective as data: every output (page, Markdown, JSON, JUnit, Slack) is drawn from it.

All times are Unix seconds unless a field says otherwise; `seqs` point at lines of events.jsonl.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gameday import states

REPORT_VERSION = 1


@dataclass(frozen=True)
class RunFacts:
    """Which run it was, on what, and how far it came."""

    id: str = ""
    name: str = ""
    title: str = ""
    owner: str = ""
    runbook: str = ""
    by: str = ""
    file: str = ""
    seed: int = 0
    gameday: str = ""
    started: float = 0.0
    ended: float = 0.0
    finished: bool = False
    phase: str = ""
    events: int = 0
    unreadable: int = 0  # lines of the log that were no JSON
    variables: Mapping[str, Any] = field(default_factory=dict)
    platform: Mapping[str, str] = field(default_factory=dict)
    experiment: Mapping[str, Any] = field(default_factory=dict)  # secrets masked

    @property
    def duration(self) -> float:
        return max(0.0, self.ended - self.started)


@dataclass(frozen=True)
class Span:
    """A state that lasted from `start` to `end`."""

    start: float
    end: float
    state: str
    seq: int = 0


@dataclass(frozen=True)
class Track:
    """The states one thing went through: a probe, or an alert with its labels."""

    name: str
    spans: tuple[Span, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    purpose: str = ""


@dataclass(frozen=True)
class Reading:
    """The measurement of a probe at one moment."""

    value: float | str | None
    state: states.Reading
    at: float
    seq: int
    margin: float | None = None
    series: str = ""
    expected: str = ""
    sampled: bool = False  # from the sampled curve, between two probes


@dataclass(frozen=True)
class Hypothesis:
    """One steady-state probe against what was expected of it.

    `holds` is None when it was never judged, or not seen while a fault was in although it counted then.
    """

    probe: str
    kind: str
    expected: str
    during: str  # the bound while a fault is in: "" for the same, "ignore" for none
    limits: str  # the bound in figures, where `expected` is relative to the baseline
    unit: str
    before: Reading | None
    worst: Reading | None
    after: Reading | None
    holds: bool | None
    broken_for: float  # seconds, while it counted
    broke: Reading | None = None  # the worst moment at which it counted and did not hold
    within: float = 0.0  # seconds in which it must mend itself while a fault is in
    mended_after: float | None = None  # seconds in which it did; None when it was not broken, or stayed so
    measured: int = 0  # measurements while a fault was in
    seqs: tuple[int, ...] = ()  # where it broke

    @property
    def margin(self) -> float | None:
        return self.worst.margin if self.worst else None

    @property
    def unjudged(self) -> str:
        """Why `holds` is None."""
        if not (self.before or self.worst or self.after):
            return "not asked"
        return "not judged" if self.worst or self.during == "ignore" else "not seen"


@dataclass(frozen=True)
class Moment:
    """One line of the timeline; `count` and `last` tell of repetitions folded into it."""

    at: float
    kind: str  # phase step fault probe alert kubernetes condition note abort change warning gap
    tone: str  # good bad warn plain
    text: str
    detail: str = ""
    seq: int = 0
    count: int = 1
    last: float = 0.0
    objects: tuple[str, ...] = ()


@dataclass(frozen=True)
class FaultWindow:
    """One fault from the first change to the evidence that it is gone; None for what never came."""

    step: str
    name: str
    kind: str
    state: str
    injecting: float | None = None
    in_: float | None = None
    undoing: float | None = None
    out: float | None = None
    targets: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    message: str = ""
    by: str = ""  # who ended it, where that was not the run
    failed: bool = False  # at any time; it may have been undone since
    seqs: tuple[int, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.step} {self.name}".strip()

    @property
    def start(self) -> float | None:
        return self.injecting if self.injecting is not None else self.in_


@dataclass(frozen=True)
class Detection:
    """An expected alert. `outcome`: fired, late, never, already-firing, unknown (the log ends too early)."""

    alert: str
    labels: Mapping[str, str]
    within: float | None
    outcome: states.Detection
    took: float | None = None  # seconds from the fault's injection
    fault: str = ""
    seqs: tuple[int, ...] = ()

    @property
    def ok(self) -> bool | None:
        return None if self.outcome == states.Detection.UNKNOWN else self.outcome == states.Detection.FIRED


@dataclass(frozen=True)
class Reaction:
    """Something that followed a fault of nodes. `took` is None where it was watched, and did not come.

    `who`: Alert, Node condition, GPUd, Taint, Cordon, Drain, Slurm.
    """

    fault: str
    who: str
    what: str = ""
    took: float | None = None  # seconds from the fault's injection
    seqs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Recovery:
    """How long after a fault the steady state was back. `took` is None when it was never seen back."""

    fault: str
    detected: float | None  # seconds from injection to the first expected alert or broken probe
    detected_by: str
    took: float | None
    within: float | None
    ok: bool | None
    note: str = ""
    seqs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Touched:
    """An object that was changed, and what the audit found.

    `state`: restored, kept, irreversible, accepted, left, unknown.
    """

    object: str
    steps: tuple[str, ...]
    changes: tuple[str, ...]
    state: str
    audited: bool
    message: str = ""
    seqs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Series:
    """One curve: times in Unix seconds ascending, and a value for each; NaN breaks the line."""

    labels: Mapping[str, str]
    times: array[float]
    values: array[float]


@dataclass(frozen=True)
class Limit:
    """The bound in force from `start` to `end`."""

    start: float
    end: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Hole:
    """A stretch without samples, or without all of them, and why."""

    start: float
    end: float
    reason: str
    seq: int = 0
    partial: bool = False  # there are samples, of an answer with reservations


@dataclass(frozen=True)
class Query:
    """A sampled query with all its series, its bounds and its gaps."""

    id: int
    name: str
    expression: str
    purpose: str
    step: float
    unit: str
    series: tuple[Series, ...]
    limits: tuple[Limit, ...] = ()
    holes: tuple[Hole, ...] = ()


@dataclass(frozen=True)
class Finding:
    """Something learned, with its evidence. `severity`: serious, warning, notice."""

    rule: str
    severity: str
    title: str
    evidence: tuple[str, ...] = ()
    seqs: tuple[int, ...] = ()
    action: str = ""


@dataclass(frozen=True)
class Retrospective:
    """Everything a report says, in the order it says it."""

    run: RunFacts
    verdict: str
    why: str
    hypothesis: tuple[Hypothesis, ...] = ()
    phases: tuple[Span, ...] = ()
    faults: tuple[FaultWindow, ...] = ()
    probes: tuple[Track, ...] = ()
    alerts: tuple[Track, ...] = ()
    timeline: tuple[Moment, ...] = ()
    queries: tuple[Query, ...] = ()
    detection: tuple[Detection, ...] = ()
    reactions: tuple[Reaction, ...] = ()
    recovery: tuple[Recovery, ...] = ()
    touched: tuple[Touched, ...] = ()
    findings: tuple[Finding, ...] = ()
    actions: tuple[str, ...] = ()
    again: tuple[str, ...] = ()

    @property
    def tried(self) -> bool:
        """Whether a fault began, or a verdict was reached by what the experiment has in its place."""
        return any(f.start is not None for f in self.faults) or self.verdict in ("passed", "deviated")

    @property
    def nothing_learned(self) -> str:
        """What to say where no finding is one of what was tried; "" where one is."""
        if any(f.rule != "refused" for f in self.findings):
            return ""
        return (
            "None: everything was as stated." if self.tried else "Nothing was tried, so nothing was learned."
        )
