"""Chaos Mesh's Schedule: starts an experiment again and again."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime, timedelta

from gameday.experiment.quantity import parse_duration
from gameday.platform.errors import ApiError
from gameday.platform.objects import Object, Ref
from gameday.sandbox.cache import Cache
from gameday.sandbox.facts import annotations_of, deleting, now, owner_reference, seconds_of, suffix
from gameday.sandbox.fleet.chaos.experiments import PAUSE, finished
from gameday.sandbox.manifests import field_of
from gameday.sandbox.recorder import Recorder

COMPONENT = "schedule-cron"
MANAGED_BY = "managed-by"
_RANGES = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))  # of a cron line's five fields
_EVERY = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0"}


class Schedules:
    """Creates the due child, keeps status.active and the history."""

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        self._cache = cache
        self._recorder = recorder

    async def reconcile(self, schedule: Object) -> float | None:
        # Upstream's controller does not ask whether it is being deleted, and fires on until it is gone.
        await self._note_active(schedule)
        paused = annotations_of(schedule).get(PAUSE) == "true"
        await self._pause_children(schedule, "true" if paused else "false")
        if paused:
            return None
        last = (schedule.get("status") or {}).get("time") or schedule["metadata"]["creationTimestamp"]
        try:
            due = next_after(schedule["spec"]["schedule"], seconds_of(last))
        except ValueError as error:
            self._recorder.event(
                schedule, COMPONENT, "Failed", f"Failed to get run time: {error}", warning=True
            )
            return None
        if due > time.time():
            return due - time.time()
        running = [c for c in self._children(schedule) if not finished(c)]
        if running and schedule["spec"].get("concurrencyPolicy", "Forbid") == "Forbid":
            text = f"Forbid spawning new job because: {running[0]['metadata']['name']} is still running"
            self._recorder.event(schedule, COMPONENT, "Forbid", text, warning=True)
            return 1.0
        await self._spawn(schedule)
        await self._forget(schedule)
        return 0.0

    async def _pause_children(self, schedule: Object, wanted: str) -> None:
        """As the Schedule, so what it made; a Workflow can't be paused."""
        for child in self._children(schedule) if schedule["spec"]["type"] != "Workflow" else ():
            if annotations_of(child).get(PAUSE, "false") != wanted:
                body = {"metadata": {"annotations": {PAUSE: wanted}}}
                with contextlib.suppress(ApiError):
                    self._cache.put(await self._cache.kube.patch(Ref.of(child), body, "merge"))

    def _children(self, schedule: Object) -> list[Object]:
        return self._cache.owned(schedule, schedule["spec"]["type"])

    async def _spawn(self, schedule: Object) -> None:
        kind, meta = schedule["spec"]["type"], schedule["metadata"]
        child = {
            "apiVersion": "chaos-mesh.org/v1alpha1",
            "kind": kind,
            "metadata": {
                "name": f"{meta['name']}-{suffix()}",
                "namespace": meta["namespace"],
                "labels": {MANAGED_BY: meta["name"]},
                "ownerReferences": [owner_reference(schedule)],
            },
            "spec": schedule["spec"][field_of(kind)],
        }
        self._cache.put(await self._cache.kube.create(child))
        text = f"Create new object: {child['metadata']['name']}"
        self._recorder.event(schedule, COMPONENT, "Spawned", text)
        await self._write(schedule, {"time": now()})

    async def _note_active(self, schedule: Object) -> None:
        active = [
            {k: c["metadata"][k] for k in ("name", "namespace", "uid")}
            | {k: c[k] for k in ("apiVersion", "kind")}
            for c in self._children(schedule)
            if not finished(c)
        ]
        if active != ((schedule.get("status") or {}).get("active") or []):
            await self._write(schedule, {"active": active or None})

    async def _forget(self, schedule: Object) -> None:
        """Finished children beyond the history's limit go."""
        done = sorted(
            (c for c in self._children(schedule) if finished(c) and not deleting(c)),
            key=lambda c: str(c["metadata"]["creationTimestamp"]),
        )
        for child in done[: max(0, len(done) - schedule["spec"].get("historyLimit", 1))]:
            await self._cache.delete(child)

    async def _write(self, schedule: Object, status: Object) -> None:
        with contextlib.suppress(ApiError):  # it may be gone
            self._cache.put(await self._cache.kube.patch(Ref.of(schedule), {"status": status}, "merge"))


def next_after(line: str, since: float) -> float:
    """The Unix time of a cron line's next run: `@every 30s` or five fields. Raises ValueError."""
    if line.startswith("@every "):
        return since + parse_duration(line.removeprefix("@every "))
    fields = _EVERY.get(line, line).split()
    if len(fields) != len(_RANGES):
        raise ValueError(f"unparseable schedule: {line}")
    minutes, hours, days, months, weekdays = (_values(f, *r) for f, r in zip(fields, _RANGES, strict=True))
    at = datetime.fromtimestamp(since, UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    end = at + timedelta(days=366)
    while at < end:
        if not (at.day in days and at.month in months and (at.weekday() + 1) % 7 in weekdays):
            at = at.replace(hour=0, minute=0) + timedelta(days=1)
        elif at.hour in hours and at.minute in minutes:
            return at.timestamp()
        else:
            at += timedelta(minutes=1)
    raise ValueError(f"the schedule {line} never comes")


def _values(text: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        start = low if span == "*" else int(first)
        stop = high if span == "*" or (step and not last) else int(last or first)
        found.update(range(start, stop + 1, int(step or 1)))
    return found
