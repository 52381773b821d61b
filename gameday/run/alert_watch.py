"""Follows Prometheus' alerts, since how soon an alert fires is one of the things a game day measures."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gameday.events import Alert, Emit, Warn
from gameday.platform.errors import PartialAnswer, PlatformError

if TYPE_CHECKING:
    from gameday.platform.prometheus import ActiveAlert, Prometheus

EVERY = 2.0  # seconds between two looks, so the time to detect is exact to that
TIMEOUT = 5.0
MOST = 1_000  # alerts kept in mind at once; a storm of more tells nobody more

_Key = tuple[tuple[str, str], ...]


class AlertWatch:
    """Emits an Alert for each one that becomes pending, fires or is resolved; at first for all there are.

    While Prometheus is away nothing changes: an alert that nobody can ask about is not resolved. An answer
    with reservations tells of alerts that are active, of none that is over.
    """

    def __init__(self, prometheus: Prometheus, emit: Emit) -> None:
        self._prometheus, self._emit = prometheus, emit
        self._active: dict[_Key, ActiveAlert] = {}
        self._warned = self._away = False

    async def run(self) -> None:
        """Look for ever; cancel it to stop."""
        while True:
            await self.poll()
            await asyncio.sleep(EVERY)

    async def poll(self) -> None:
        """Look once."""
        try:
            found = await self._prometheus.alerts(timeout=TIMEOUT)
        except PartialAnswer as part:  # what is missing may be active still
            found = [*self._active.values(), *part.found]
        except PlatformError as error:
            self._lost(error)
            return
        self._away = False
        now: dict[_Key, ActiveAlert] = {}
        for alert in found:
            key = tuple(sorted(alert.labels.items()))
            if key not in now or alert.state == "firing":
                now[key] = alert
        if len(now) > MOST:
            now = self._fewer(now)
        for key, alert in now.items():
            before = self._active.get(key)
            if before is None or before.state != alert.state:
                self._emit(Alert(alert=alert.name, state=alert.state, labels=alert.labels))
        for key in self._active.keys() - now.keys():
            alert = self._active[key]
            self._emit(Alert(alert=alert.name, state="resolved", labels=alert.labels))
        self._active = now

    def _lost(self, error: PlatformError) -> None:
        """Say so once; that the server of the charts is away the sampling says."""
        if self._prometheus.rules_url and not self._away:
            self._away = True
            self._emit(Warn(source="alerts", message=str(error)))

    def _fewer(self, now: dict[_Key, ActiveAlert]) -> dict[_Key, ActiveAlert]:
        if not self._warned:
            self._warned = True
            self._emit(Warn(source="alerts", message=f"{len(now)} alerts at once; {MOST} of them are told"))
        known = [key for key in now if key in self._active]
        fresh = [key for key in now if key not in self._active]
        return {key: now[key] for key in [*known, *fresh][:MOST]}
