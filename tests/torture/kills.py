"""kill -9 at each durable write and each API call, at random, and of the recovery in the same way.

A fault is rehearsed once over a line that counts the changes it asks the API for, and the lines it writes.
Each of them is then a moment to die: a change before it is forwarded, when it was made and nobody has heard,
and when the answer was given; a line of the ledger or of the log just written; and times of the seed's.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.torture import catalogue, figures, world
from tests.torture.catalogue import Case
from tests.torture.figures import Figures
from tests.torture.program import Ended, Lines, Program, Running, TooLong
from tests.torture.wire import Fair, Kill
from tests.torture.wire import Lines as Wires
from tests.torture.world import World, copies, differences, mend

OURS = f" {world.OURS}/"
MOMENTS = ("before", "unanswered", "answered")
LATE = "late"  # slow: where nothing else can be known, a recovery waits for a minute
KNOWN = 3  # changes until a run has its Lease and its locks: nobody knows of it before, nor waits for these
FOLLOW = 60.0  # seconds in which controllers may follow what was put back
STILL = 12.0  # seconds without any change, after which nobody follows any more


@dataclass(frozen=True)
class Point:
    """When to die: `what` is call, ledger, events or time; `number` counts from 1, or is seconds."""

    what: str
    number: float
    moment: str = ""

    def __str__(self) -> str:
        if self.what == "call":
            return f"change {self.number:g} {self.moment}"
        return f"after {self.number:.2f} s" if self.what == "time" else f"line {self.number:g} of {self.what}"


@dataclass(frozen=True)
class Struck:
    """What became of one kill."""

    case: str
    point: str
    again: str  # when the recovery was killed; "" when it was not
    died: bool  # the run was killed in time, and had not ended already
    recovered: bool  # a recovery was killed
    left: tuple[str, ...]
    wrong: tuple[str, ...]  # exit codes and traces that say something false
    seconds: float

    @property
    def survived(self) -> bool:
        return not self.left and not self.wrong


@dataclass
class Rehearsal:
    """A case that ran to its end: how often there is a moment to die."""

    case: Case
    changes: int
    lines: dict[str, int]
    seconds: float

    def points(self, random_too: int, draw: random.Random, *, slow: bool) -> list[Point]:
        """Every moment there is, in the order of time, and some between them."""
        calls = [Point("call", n, m) for n in range(1, self.changes + 1) for m in MOMENTS]
        calls += [Point("call", n, LATE) for n in range(KNOWN, self.changes + 1)] if slow else []
        ledger = [Point("ledger.jsonl", n) for n in range(1, self.lines["ledger.jsonl"] + 1)]
        events = [Point("events.jsonl", n) for n in range(1, self.lines["events.jsonl"] + 1)]
        times = [Point("time", round(draw.uniform(0.2, self.seconds), 3)) for _ in range(random_too)]
        return [*calls, *ledger, *events, *times]


@dataclass
class Bench:
    """All that a case needs: the platform's world, a line to it, the program on that line, and what was."""

    world: World
    wires: Wires
    program: Program  # over the line
    direct: Program  # past it
    scratch: Path
    base: dict[str, Any] = field(default_factory=dict)
    spare: dict[str, Any] = field(default_factory=dict)

    def settle(self, within: float = 120.0) -> None:
        """Take the world as it is as what must come back, once it stands still.

        A first run makes the namespace of the ledger, the one thing that stays.
        """
        first = next(case for case in catalogue.cases(self.scratch) if case.name == "cordon")
        ended = self.direct.run(first.write(self.scratch)).ended()
        assert ended.code == 0, ended.output
        deadline = time.monotonic() + within
        before = self.world.take()
        while True:
            time.sleep(1.5)  # longer than what controllers need between two steps
            now = self.world.take()
            if not differences(before, now) or time.monotonic() > deadline:
                break
            before = now
        self.base, self.spare = now, copies(self.world)

    def left(self, within: float = FOLLOW, file: str = "") -> tuple[str, ...]:
        """What is not as it was, when controllers have had their time; empty when everything is."""
        deadline = time.monotonic() + within
        last: list[str] = []
        changed = time.monotonic()
        while True:
            found = differences(self.base, self.world.take())
            if file and Path(file).exists():
                found.append(f"file {Path(file).name}: left behind")
            if found != last:
                last, changed = found, time.monotonic()
            ours = all(OURS in line for line in found)  # no controller looks after our own namespace
            if not found or time.monotonic() > min(deadline, changed + (1.0 if ours else STILL)):
                return tuple(found)
            time.sleep(0.1)

    def mend(self, file: str = "") -> None:
        """After a case that failed: force everything back, so that the next one begins as this one did."""
        Path(file or self.scratch / "none").unlink(missing_ok=True)
        mend(self.world, self.spare)
        if self.left(30.0):
            self.settle()


def rehearse(bench: Bench, case: Case) -> Rehearsal:
    """Run a case to its end. Raises AssertionError when it does not pass and leave the world as it was."""
    bench.wires.begin(Fair())
    running = bench.program.run(case.write(bench.scratch))
    assert running.reports is not None
    counted = Lines(running.reports, lambda _, __: None)
    try:
        ended = running.ended()
    finally:
        lines = counted.close()
    assert ended.code == 0, f"{case.name} does not pass in fair weather: {ended.output[-3000:]}"
    changes = len(bench.wires.changes)
    left = bench.left(file=case.file)
    assert not left, f"{case.name} leaves something in fair weather: {left}"
    return Rehearsal(case, changes, lines, ended.seconds)


def strike(bench: Bench, case: Case, point: Point, again: Point | None) -> Struck:
    """Kill a run at a point, its recovery at another one, recover, and compare."""
    began = time.monotonic()
    wrong: list[str] = []
    running, died, fate = _until_dead(
        bench, point, lambda: bench.program.run(case.write(bench.scratch)), lambda r: r.reports
    )
    ended = running.ended()
    wrong += _false(ended, died)
    recovered, fates = False, [fate]
    if again is not None and running.name:
        recovery, recovered, fate = _until_dead(
            bench,
            again,
            lambda: bench.program.start("recover", *running.named),
            lambda _: None,
        )
        wrong += _false(recovery.ended(), recovered)
        fates.append(fate)
    bench.wires.begin(Fair())
    try:
        last = bench.direct.recover(running) if running.name else None
        if last is not None and last.code != 0:
            wrong.append(f"recover ended with {last.code}: {last.output[-600:]}")
        if last is not None and last.traced:
            wrong.append(f"recover shows a stack trace: {last.output[-600:]}")
    except TooLong as error:
        wrong.append(f"recover: {error}")
    for fate in fates:
        fate.wait()
    left = bench.left(file=case.file)
    if left:
        bench.mend(case.file)
    took = time.monotonic() - began
    return Struck(case.name, str(point), str(again or ""), died, recovered, left, tuple(wrong), took)


def _false(ended: Ended, killed: bool) -> Iterator[str]:
    if killed:
        return
    if ended.traced:
        yield f"a stack trace: {ended.output[-600:]}"
    if ended.code not in (0, 1):
        yield f"it was not hit, and ended with {ended.code}: {ended.output[-600:]}"


def _until_dead(
    bench: Bench,
    point: Point,
    start: Callable[[], Running],
    reports: Callable[[Running], Path | None],
) -> tuple[Running, bool, Kill]:
    """Start a program, kill it at the point, and wait for its end; whether it was killed, and by what."""
    victim: list[Running] = []
    struck = threading.Event()

    def kill() -> None:
        if victim:
            struck.set()
            victim[0].kill()

    fate = Kill(int(point.number) if point.what == "call" else 0, point.moment, kill)
    bench.wires.begin(fate)
    victim.append(start())
    running = victim[0]
    folder, counted = reports(running), None
    if point.what.endswith(".jsonl") and folder is not None:

        def heard(name: str, lines: int) -> None:
            if name == point.what and lines >= point.number and not struck.is_set():
                kill()

        counted = Lines(folder, heard)
    try:
        deadline = time.monotonic() + point.number if point.what == "time" else None
        limit = time.monotonic() + 150
        while running.alive and time.monotonic() < limit:
            if deadline is not None and time.monotonic() >= deadline:
                kill()
                deadline = None
            time.sleep(0.003)
    finally:
        if counted is not None:
            counted.close()
    return running, struck.is_set(), fate


def torture(bench: Bench, found: Figures, until: float, *, slow: bool) -> None:
    """Kill points over the whole catalogue, in an order of the seed's, until the time is up."""
    draw = random.Random(found.seed)
    known = catalogue.cases(bench.scratch)
    missing = catalogue.forgotten(known)
    assert not missing, f"faults without a case and without a reason: {', '.join(missing)}"
    found.not_run |= {f"kills: {name}": why for name, why in catalogue.REASONS.items()}
    found.not_run |= {f"kills: {case.name}": case.slow for case in known if case.slow and not slow}
    queues = [_queue(bench, case, found, draw, slow) for case in known if slow or not case.slow]
    draw.shuffle(queues)
    number = 0
    while queues and time.monotonic() < until:
        queue = queues.pop(0)
        case, points = queue
        if not points:
            continue
        point = points.pop()
        again = draw.choice(_early(points)) if number % 2 and _early(points) else None
        number += 1
        struck = strike(bench, case, point, again)
        _note(found, struck)
        queues.append(queue)


def _early(points: list[Point]) -> list[Point]:
    """Moments to kill a recovery, which asks for fewer changes than the run."""
    return [p for p in points if p.what == "call" and p.number <= 6]


def _queue(
    bench: Bench, case: Case, found: Figures, draw: random.Random, slow: bool
) -> tuple[Case, list[Point]]:
    """A case and its moments in an order of the seed's. Rehearsed when there is time; else as last time."""
    before = figures.saved().get("kills", {}).get("moments", {}).get(case.name)
    if slow or before is None:
        try:
            rehearsed = rehearse(bench, case)
        except (AssertionError, TooLong) as error:
            found.add("kills", case.name, (), (str(error),), "in fair weather")
            bench.mend(case.file)
            return case, []
        before = {
            "changes": rehearsed.changes,
            "lines": rehearsed.lines,
            "seconds": round(rehearsed.seconds, 1),
        }
    found.moments[case.name] = before
    points = Rehearsal(case, before["changes"], before["lines"], before["seconds"]).points(8, draw, slow=slow)
    draw.shuffle(points)
    return case, points


def _note(found: Figures, struck: Struck) -> None:
    found.killed["runs"] += struck.died
    found.killed["recoveries"] += struck.recovered
    story = f"killed at {struck.point}" + (f", its recovery at {struck.again}" if struck.again else "")
    found.add("kills", struck.case, struck.left, struck.wrong, story)
    if not struck.survived:
        print(f"  BROKEN {found.broken[-1]}", flush=True)
