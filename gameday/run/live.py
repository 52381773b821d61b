"""The live view: the log as it grows, for the person at the terminal.

On a terminal it is a panel that is redrawn; in a pipe or in CI, one line for each event that matters.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gameday import events
from gameday.inert import one_line
from gameday.run.reading import value_text
from gameday.states import Reading

PHASES = ("preflight", "baseline", "method", "recovery", "audit", "done")
STATE_STYLE = {
    "holds": "green",
    "broken": "bold red",
    "no-data": "yellow",
    "partial": "yellow",
    "unreachable": "magenta",
    "injecting": "yellow",
    "in": "bold red",
    "undoing": "yellow",
    "out": "green",
    "failed": "bold red",
    "firing": "bold red",
    "pending": "yellow",
    "resolved": "green",
}
VERDICT_STYLE = {"passed": "bold green", "deviated": "bold yellow", "refused": "bold yellow"}
LAST_LINES = 8
ECHO = "^C"  # what a terminal writes behind the panel when a person interrupts
_WELL = (Reading.HOLDS, Reading.NO_BASELINE, Reading.IGNORED)  # states of a probe that need no line
REPEATS = (10.0, 30.0, 60.0)  # seconds after which a progress that is still the same has its next line
_COMMON_LABELS = frozenset({"alertname", "severity", "job", "instance", "alertstate"})


@dataclass
class LiveView:
    """A listener of the log that draws. Use it as a context manager around the run."""

    console: Console
    started: float = field(default_factory=time.time)
    _probes: dict[str, events.Probed] = field(default_factory=dict)
    _faults: dict[str, events.Fault] = field(default_factory=dict)
    _progress: dict[str, events.Progress] = field(default_factory=dict)
    _shown: dict[str, tuple[events.Progress, int]] = field(default_factory=dict)  # and its repetitions
    _alerts: dict[str, str] = field(default_factory=dict)
    _lines: list[Text] = field(default_factory=list)
    _phase: str = ""
    _title: str = ""
    _live: Live | None = None

    @asynccontextmanager
    async def projection(self, _: events.Emit) -> AsyncIterator[Callable[[events.Event], None]]:
        """Draws while the context lasts; the last picture stays."""
        try:
            yield self.hear
        finally:
            self._draw(False)

    def _draw(self, on: bool) -> None:
        if on and self._live is None and self.console.is_terminal:
            self._live = Live(self, console=self.console, refresh_per_second=4)
            self._live.start()
        elif not on and self._live is not None:
            self._live.stop()
            self._live = None

    def hear(self, event: events.Event) -> None:
        """Take an event in; print its line where there is no terminal."""
        before = self._probes.get(event.probe) if isinstance(event, events.Probed) else None
        self._remember(event)
        line = describe(event, self.started)
        if line is None or (isinstance(event, events.Probed) and before and before.state == event.state):
            return
        if isinstance(event, events.Progress) and not self._is_news(event):
            return
        if self._live is None:
            self.console.print(line, soft_wrap=True)
        else:
            self._lines = [*self._lines[-LAST_LINES + 1 :], line]

    def _is_news(self, event: events.Progress) -> bool:
        """Whether its step was not there yet when a line was shown, or stands there for long."""
        last, times = self._shown.get(event.step, (None, 0))
        if last is None or replace(event, seq=last.seq, at=last.at) != last:
            times = 0
        elif event.at - last.at >= REPEATS[min(times, len(REPEATS) - 1)]:
            times += 1
        else:
            return False
        self._shown[event.step] = event, times
        return True

    def _remember(self, event: events.Event) -> None:
        match event:
            case events.RunStarted():
                self._title = event.title
            case events.Phase():
                self._phase = event.phase
                self._draw(event.phase != "preflight")  # the plan is shown, and approved, before
            case events.Probed():
                self._probes[event.probe] = event
            case events.Fault():
                self._faults[event.step] = event
                self._progress.pop(event.step, None)
                self._shown.pop(event.step, None)
            case events.Progress():
                self._progress[event.step] = event
            case events.Alert():
                self._alerts[event.alert] = event.state

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = [self._phases()]
        if self._probes:
            parts.append(self._probe_table())
        if self._faults:
            parts.append(self._fault_table())
        if self._alerts:
            parts.append(self._alert_line())
        parts.append(Text())
        parts += self._lines
        width = self.console.width - len(ECHO)  # without room for it the terminal would scroll by a line
        return Panel(
            Group(*parts), title=Text(self._title), title_align="left", border_style="dim", width=width
        )

    def _phases(self) -> Text:
        text = Text()
        for phase in PHASES:
            style = "bold reverse" if phase == self._phase else "dim"
            text.append(f" {phase} ", style)
            text.append(" ")
        text.append(f"  {_clock(time.time() - self.started)}", "dim")
        return text

    def _probe_table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for probe in self._probes.values():
            if probe.purpose == "abort":
                continue
            value = "–" if probe.value is None else value_text(probe.value, probe.expected)
            state = "not looked at" if probe.counted == Reading.IGNORED else probe.state
            table.add_row(
                probe.probe, Text(state, STATE_STYLE.get(probe.state, "")), value, Text(probe.expected, "dim")
            )
        return table

    def _fault_table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        for fault in self._faults.values():
            progress = self._progress.get(fault.step)
            more: RenderableType = Text(fault.message or "; ".join(fault.evidence[:1]), "dim")
            if progress and progress.total:
                bar = ProgressBar(total=progress.total, completed=progress.done, width=24)
                more = Group(bar, Text(f"{progress.done}/{progress.total} {progress.message}", "dim"))
            table.add_row(
                f"{fault.step} {fault.name}", Text(fault.state, STATE_STYLE.get(fault.state, "")), more
            )
        return table

    def _alert_line(self) -> Text:
        text = Text("alerts ", "dim")
        for alert, state in self._alerts.items():
            text.append(f"{alert} {state}  ", STATE_STYLE.get(state, ""))
        return text


def describe(event: events.Event, started: float) -> Text | None:
    """An event as one line, None when it is not worth one."""
    found = _words(event)
    if found is None:
        return None
    what, words, style = found
    return Text.assemble(
        (f"{_clock(event.at - started):>7} ", "dim"), (f"{what:<10} ", "cyan"), (one_line(words), style)
    )


def _words(event: events.Event) -> tuple[str, str, str] | None:
    match event:
        case events.Phase():
            return "phase", event.phase, "bold"
        case events.Preflight() if event.level != "ok":
            hint = f" → {event.hint}" if event.hint else ""
            return (
                event.level,
                f"{event.check}: {event.message}{hint}",
                "red" if event.level == "refused" else "yellow",
            )
        case events.Probed() if event.purpose == "abort":
            return None
        case events.Probed() if event.counted not in _WELL:
            value = "" if event.value is None else value_text(event.value, event.expected)
            return (
                "probe",
                f"{event.probe}: {event.state} {value} (expected {event.expected}) {event.message}",
                "yellow",
            )
        case events.Fault():
            detail = event.message or "; ".join(event.evidence[:2])
            detail = f"ended by {event.by}: {detail}" if event.by else detail
            return (
                "fault",
                f"{event.step} {event.name}: {event.state} {detail}",
                STATE_STYLE.get(event.state, ""),
            )
        case events.Progress():
            count = f" {event.done}/{event.total}" if event.total else ""
            return "progress", f"{event.step}{count} {event.message}", "dim"
        case events.Alert():
            return "alert", f"{event.alert} {event.state} {_about(event)}", STATE_STYLE.get(event.state, "")
        case events.Abort():
            return "abort", f"by {event.by}: {event.reason}", "bold red"
        case events.Warn():
            return "warning", f"{event.source}: {event.message}", "yellow"
        case events.Change() if event.state in ("kept", "failed"):
            return "ledger", f"{event.object} {event.state}: {event.message}", "yellow"
        case events.Verdict():
            return "verdict", f"{event.verdict}: {event.reason}", VERDICT_STYLE.get(event.verdict, "bold red")
    return None


def _about(alert: events.Alert) -> str:
    """The labels that set an alert apart from others of its name."""
    return " ".join(str(v) for k, v in sorted(alert.labels.items()) if k not in _COMMON_LABELS)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
