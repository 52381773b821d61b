"""One pass over a log: events sorted by kind, samples folded into curves as they come.

Reads what is there and asks for nothing: a log may be cut anywhere, or be newer than this version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from gameday import events as ev
from gameday.inert import visible
from gameday.report.curves import Gatherer

E = TypeVar("E", bound=ev.Event)


@dataclass
class Story:
    """A log, sorted. `start` and `end` are the wall clock of the run's own first and last event."""

    start: float = 0.0
    end: float = 0.0
    count: int = 0
    unreadable: int = 0
    by_kind: dict[type[ev.Event], list[ev.Event]] = field(default_factory=lambda: defaultdict(list))
    ordered: list[ev.Event] = field(default_factory=list)  # all but samples
    restoration: ev.Restoration | None = None  # the last word of who put back what the run left
    curves: dict[int, Gatherer] = field(default_factory=lambda: defaultdict(Gatherer))

    def all(self, kind: type[E]) -> list[E]:
        """Every event of one kind, in the log's order."""
        return self.by_kind.get(kind, [])  # type: ignore[return-value]

    def last(self, kind: type[E]) -> E | None:
        """The newest event of one kind."""
        found = self.all(kind)
        return found[-1] if found else None

    @property
    def spec(self) -> dict[str, Any]:
        """The experiment's spec, or nothing where the log has none."""
        started = self.last(ev.RunStarted)
        spec = started.experiment.get("spec") if started and isinstance(started.experiment, dict) else None
        return spec if isinstance(spec, dict) else {}

    def listed(self, key: str) -> list[dict[str, Any]]:
        """A list of the spec, as `steadyState`; entries that are no objects are passed over."""
        found = self.spec.get(key)
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def tell(events: Iterable[ev.Event]) -> Story:
    """Sorts a log."""
    story = Story()
    for event in events:
        story.count += 1
        if isinstance(event, ev.Samples):
            story.curves[event.query].add(event.series)
        else:
            event = _seen_event(event)
            story.ordered.append(event)
            story.by_kind[type(event)].append(event)
            story.restoration = event if isinstance(event, ev.Restoration) else story.restoration
        if event.at and story.restoration is None:
            story.start = story.start or event.at
            story.end = max(story.end, event.at)
    return story


def _seen_event(event: ev.Event) -> ev.Event:
    """The event with every character made visible that could reorder or hide what a reader sees."""
    values = {f.name: getattr(event, f.name) for f in fields(event)}
    changed = {k: seen for k, v in values.items() if (seen := _seen(v)) != v}
    return replace(event, **changed) if changed else event


def _seen(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {_seen(k): _seen(v) for k, v in value.items()}
    return [_seen(v) for v in value] if isinstance(value, list) else value
