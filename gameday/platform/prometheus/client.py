"""What is asked of Prometheus: a query now, a query over a range, alerts, and rules."""

from __future__ import annotations

import math
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Self

from gameday.platform.errors import PartialAnswer, PlatformError
from gameday.platform.prometheus import decode
from gameday.platform.prometheus.connection import Connection
from gameday.platform.prometheus.decode import ActiveAlert, Sample, Series, understood
from gameday.platform.prometheus.errors import PrometheusError, partial, too_large
from gameday.platform.promql import compiled, matchers

MOST_NOW = 4 * 2**20  # bytes of an answer to an instant query: 10,000 series with long labels
RULES_FOR = 60.0  # seconds that the names of the alert rules are kept


class Prometheus:
    """One server. Methods raise Unreachable (nobody answered) or PrometheusError (it said no)."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        headers: Callable[[], Mapping[str, str]] | None = None,
        tls: ssl.SSLContext | None = None,
        rules_url: str = "",
    ) -> None:
        """As a Connection takes them. `rules_url` is where alert rules are evaluated, if elsewhere."""
        self._server = self._rules_at = Connection(url, timeout=timeout, headers=headers, tls=tls)
        if rules_url:
            self._rules_at = Connection(rules_url, timeout=timeout, headers=headers, tls=tls)
        self._rules: tuple[float, frozenset[str]] = (-math.inf, frozenset())
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for connection in {self._server, self._rules_at}:
            await self._open.enter_async_context(connection)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    @property
    def url(self) -> str:
        """The server's address, without user and password."""
        return self._server.url

    @property
    def rules_url(self) -> str:
        """Where alert rules are evaluated, "" where that is the server itself."""
        return "" if self._rules_at is self._server else self._rules_at.url

    async def instant(
        self, query: str, *, at: float | None = None, timeout: float | None = None, limit: int = 0
    ) -> list[Sample]:
        """The values of a query now, or `at` Unix seconds; a scalar is one value without labels.

        An empty list is no data. More than `limit` series are refused. Raises PartialAnswer.
        """
        # Servers that know a limit truncate at it; one more tells whether there were more.
        form = {"query": query} | _limit(limit and limit + 1) | ({} if at is None else {"time": f"{at:.3f}"})
        answer = await self._server.ask(query, "api/v1/query", form, timeout, MOST_NOW)
        found = understood(query, decode.instant, answer.get("data"))
        if limit and len(found) > limit:
            raise too_large(query, f"has more than {limit:,} series")
        if warnings := decode.warnings(answer):
            raise partial(query, warnings[0], found)
        return found

    async def range(
        self,
        query: str,
        start: float,
        end: float,
        step: float,
        *,
        limit: int = 0,
    ) -> list[Series]:
        """The values on every multiple of `step` from `start` to `end`, both included, in Unix seconds.

        The server refuses more than 11,000 of them. A series has no point where it had no value. Raises
        PartialAnswer.
        """
        # Whole milliseconds, as the server counts, so that the points of two calls lie on one grid.
        width = round(step * 1000)
        first, last = -(-round(start * 1000) // width) * width, round(end * 1000) // width * width
        if first > last:
            return []
        times = {"start": _time(first), "end": _time(last), "step": _time(width)}
        answer = await self._server.ask(query, "api/v1/query_range", {"query": query} | times | _limit(limit))
        found = understood(query, decode.matrix, answer.get("data"))
        if warnings := decode.warnings(answer):
            raise partial(query, warnings[0], found)
        return found

    async def alerts(
        self, name: str = "", labels: Mapping[str, str] | None = None, *, timeout: float | None = None
    ) -> list[ActiveAlert]:
        """The alerts that are firing or pending; all, or those that match.

        By the ALERTS series; where rules are evaluated elsewhere, by what is told there. May raise
        PartialAnswer.
        """
        wanted = ({"alertname": name} if name else {}) | dict(labels or {})
        if self._rules_at is self._server:
            return await self._series_of_alerts(matchers(wanted), timeout)
        found = await self._alerts_elsewhere(timeout)
        return [alert for alert in found if wanted.items() <= alert.labels.items()]

    async def active(self, text: str = "") -> list[ActiveAlert]:
        """The same by matchers in PromQL, as `severity=~"critical|page"`."""
        if self._rules_at is self._server:
            return await self._series_of_alerts(text)
        matches = compiled(text)
        return [alert for alert in await self._alerts_elsewhere() if matches(alert.labels)]

    async def _series_of_alerts(self, text: str, timeout: float | None = None) -> list[ActiveAlert]:
        query = f"ALERTS{{{text}}}"
        try:
            series = await self.instant(query, timeout=timeout)
        except PartialAnswer as part:
            raise partial(query, part.why, [decode.alert(s) for s, _ in part.found]) from None
        return [decode.alert(labels) for labels, _ in series]

    async def _alerts_elsewhere(self, timeout: float | None = None) -> list[ActiveAlert]:
        answer = await self._rules_at.ask("the alerts", "api/v1/alerts", timeout=timeout)
        return understood("the alerts", decode.active_alerts, answer.get("data"))

    async def alert_rules(self) -> frozenset[str]:
        """The names of the alert rules, where they are evaluated; none at all where nobody tells.

        A server that lists none says nothing about others': VictoriaMetrics answers with an empty list when
        vmalert keeps the rules (docs.victoriametrics.com, vmalert), Thanos and Mimir without a ruler.
        """
        asked, names = self._rules
        if time.monotonic() - asked <= RULES_FOR:
            return names
        try:
            answer = await self._rules_at.ask("alert rules", "api/v1/rules?type=alert")
        except PrometheusError as error:
            if error.status == 404 and self._rules_at is self._server:
                return frozenset()
            raise
        names = understood("alert rules", decode.rule_names, answer.get("data"))
        self._rules = (time.monotonic(), names)
        return names

    async def has_alert_rule(self, name: str) -> bool | None:
        """Whether there is an alert rule of that name; None where nobody lists rules."""
        names = await self.alert_rules()
        return name in names if names else None

    async def writes_alerts(self) -> bool:
        """Whether something is known to evaluate alert rules: that none fires says nothing otherwise."""
        return bool(await self.alert_rules()) or bool(await self.alerts())

    async def check(self, *, timeout: float = 10.0) -> None:
        """Raises what speaks against asking it, in words for people.

        Asks for the simplest there is, which works through proxies too, and who else evaluates the rules.
        """
        await self.instant("1", timeout=timeout)
        if self.rules_url:
            await self.alerts()

    async def ready(self, *, timeout: float = 3.0) -> bool:
        """Whether it answers queries now; for why it does not, see `check`."""
        try:
            await self.check(timeout=timeout)
        except PlatformError:
            return False
        return True

    async def version(self) -> str:
        """The server's version, "" when it does not tell."""
        try:
            data = await self._ask("its version", "api/v1/status/buildinfo")
        except PrometheusError:
            return ""
        return str(data.get("version", "")) if isinstance(data, dict) else ""

    async def _ask(self, what: str, path: str) -> Any:
        """The `data` of an answer."""
        return (await self._server.ask(what, path)).get("data")


def _limit(limit: int) -> dict[str, str]:
    return {"limit": str(limit)} if limit else {}


def _time(milliseconds: int) -> str:
    return f"{milliseconds // 1000}.{milliseconds % 1000:03}"
