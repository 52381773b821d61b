"""The lines of a run that nobody watches on a terminal: each says something new."""

from __future__ import annotations

import io

from rich.console import Console

from gameday.events import Event, Fault, Progress
from gameday.run.live import LiveView


def _seconds(*events: Event) -> list[int]:
    """At which seconds a line was printed."""
    out = io.StringIO()
    view = LiveView(Console(file=out, width=200), started=0.0)
    for event in events:
        view.hear(event)
    return [
        60 * int(m) + int(s) for m, s in (line.split()[0].split(":") for line in out.getvalue().splitlines())
    ]


def _held(at: int, done: int = 1, step: str = "1") -> Progress:
    return Progress(at=at, step=step, message="the budget web holds inference/web-0", done=done, total=2)


def test_the_same_progress_is_said_again_at_growing_intervals() -> None:
    assert _seconds(*(_held(at) for at in range(0, 300, 2))) == [0, 10, 40, 100, 160, 220, 280]


def test_another_progress_is_said_at_once() -> None:
    assert _seconds(*(_held(at, done=at // 6) for at in range(0, 18, 2))) == [0, 6, 12]
    assert _seconds(_held(0), _held(2, step="2"), _held(4), _held(6, step="2")) == [0, 2]


def test_a_fault_that_begins_again_says_its_progress_again() -> None:
    again = Fault(at=4, step="1", name="drain", kind="drain", state="injecting")
    assert _seconds(_held(0), _held(2), again, _held(6)) == [0, 4, 6]
