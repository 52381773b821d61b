"""A thin async client for Prometheus' HTTP API: ask now, ask over a range, and be cancelled at any moment.

It is over aiohttp because a query that hangs in a thread can't be cancelled, and an abort waits for nobody.
Works with what speaks the same API (Thanos, Mimir, VictoriaMetrics).
API: https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import aiohttp
from yarl import URL

from gameday.experiment.text import shorten
from gameday.platform.errors import ConfigError, PlatformError, Unreachable

TOKEN_ENV = "GAMEDAY_PROMETHEUS_TOKEN"
MOST_POINTS = 11_000  # of one series in one range query; the server refuses more
MOST_BYTES = 16 * 2**20  # of one answer; decoded it takes about six times as much memory
RULES_FOR = 60.0  # seconds that the names of the alert rules are kept
_AWAY = frozenset({502, 503, 504})  # in words other than the API's: it starts, stops, or a proxy speaks

T = TypeVar("T")
Sample = tuple[dict[str, str], float]


class PrometheusError(PlatformError):
    """Prometheus answered, and said no. `kind` is its errorType (bad_data, execution, timeout, …)."""

    def __init__(self, text: str, *, kind: str = "", status: int = 0) -> None:
        self.kind, self.status = kind, status
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a range query: Unix seconds and value, in order, on multiples of the step."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class ActiveAlert:
    """An alert that is `firing` or `pending`; its labels are those of the alert, alertname included."""

    name: str
    state: str
    labels: dict[str, str]


class Prometheus:
    """One server. Methods raise Unreachable (nobody answered) or PrometheusError (it said no)."""

    def __init__(self, url: str, *, timeout: float = 10.0, headers: Mapping[str, str] | None = None) -> None:
        """`url` may hold user:password and a path prefix; a bearer token is taken from the environment."""
        address = _address(url)
        self._base = address.with_user(None)
        self._headers = {"User-Agent": "gameday", **_credentials(address), **(headers or {})}
        self.url = str(self._base)
        self.timeout = timeout
        self._open: aiohttp.ClientSession | None = None
        self._rules: tuple[float, frozenset[str]] = (-math.inf, frozenset())

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=64)
        self._open = aiohttp.ClientSession(connector=connector, headers=self._headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._open is not None:
            await self._open.close()
            self._open = None

    async def instant(
        self, query: str, *, at: float | None = None, timeout: float | None = None, limit: int = 0
    ) -> list[Sample]:
        """The values of a query now, or `at` Unix seconds; a scalar is one value without labels.

        An empty list is no data. `limit` bounds the number of series, on servers that know it.
        """
        form = {"query": query} | _limit(limit) | ({} if at is None else {"time": f"{at:.3f}"})
        data = await self._ask(query, "api/v1/query", form, timeout)
        return _understood(query, _instant, data)

    async def range(
        self,
        query: str,
        start: float,
        end: float,
        step: float,
        *,
        timeout: float | None = None,
        limit: int = 0,
    ) -> list[Series]:
        """The values on every multiple of `step` from `start` to `end`, both included, in Unix seconds.

        At most MOST_POINTS of them. A series has no point where it had no value.
        """
        # Whole milliseconds, as the server counts, so that the points of two calls lie on one grid.
        width = round(step * 1000)
        first, last = -(-round(start * 1000) // width) * width, round(end * 1000) // width * width
        if first > last:
            return []
        times = {"start": _time(first), "end": _time(last), "step": _time(width)}
        form = {"query": query} | times | _limit(limit)
        data = await self._ask(query, "api/v1/query_range", form, timeout)
        return _understood(query, _matrix, data)

    async def alerts(
        self, name: str = "", labels: Mapping[str, str] | None = None, *, timeout: float | None = None
    ) -> list[ActiveAlert]:
        """The alerts that are firing or pending, by the ALERTS series; all, or those that match."""
        wanted = ({"alertname": name} if name else {}) | dict(labels or {})
        matchers = ",".join(f"{key}={json.dumps(text)}" for key, text in wanted.items())
        found = await self.instant(f"ALERTS{{{matchers}}}", timeout=timeout)
        return [_alert(dict(series)) for series, _ in found]

    async def has_alert_rule(self, name: str) -> bool | None:
        """Whether there is an alert rule of that name; None when the server keeps no rules itself."""
        asked, names = self._rules
        if time.monotonic() - asked > RULES_FOR:
            try:
                data = await self._ask("alert rules", "api/v1/rules?type=alert", None, None)
            except PrometheusError as error:
                if error.status == 404:
                    return None
                raise
            names = _understood("alert rules", _rule_names, data)
            self._rules = (time.monotonic(), names)
        return name in names

    async def ready(self, *, timeout: float = 3.0) -> bool:
        """Whether it answers queries now; asks for the simplest there is, which works through proxies too."""
        try:
            await self.instant("1", timeout=timeout)
        except PlatformError:
            return False
        return True

    async def version(self) -> str:
        """The server's version, "" when it does not tell."""
        try:
            data = await self._ask("its version", "api/v1/status/buildinfo", None, None)
        except PrometheusError:
            return ""
        return str(data.get("version", "")) if isinstance(data, dict) else ""

    async def _ask(self, what: str, path: str, form: dict[str, str] | None, timeout: float | None) -> Any:
        """The `data` of an answer. With a form it is a POST, since a query may be longer than a URL."""
        if self._open is None:
            raise RuntimeError("a Prometheus is used in `async with`")
        what = shorten(what, 120)
        seconds = timeout or self.timeout
        if form is not None:
            form = form | {
                "timeout": f"{round(seconds * 1000)}ms"
            }  # the server need not go on after we gave up
        limits = aiohttp.ClientTimeout(total=seconds)
        url = self._base.joinpath(path.partition("?")[0]).with_query(path.partition("?")[2])
        method = "GET" if form is None else "POST"
        try:
            async with self._open.request(
                method, url, data=form, timeout=limits, allow_redirects=False
            ) as response:
                body = await _read(response)
                status, location = response.status, response.headers.get("Location", "")
        except TimeoutError:
            raise Unreachable(f"Prometheus at {self.url} did not answer within {seconds:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"Prometheus at {self.url} cannot be asked: {_why(error)}") from error
        if body is None:
            raise PrometheusError(
                f"the answer to `{what}` is larger than {MOST_BYTES >> 20} MiB: aggregate it (`sum by (…)`)",
                kind="too_large",
            )
        return self._data(what, status, location, body)

    def _data(self, what: str, status: int, location: str, body: bytes) -> Any:
        try:
            answer = json.loads(body)
            told = answer["status"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._stranger(status, location, body) from None
        if status < 400 and told == "success":
            return answer.get("data")
        kind, text = str(answer.get("errorType", "")), str(answer.get("error", f"HTTP {status}"))
        if status >= 500 and kind != "timeout":  # it is starting, or shutting down
            raise Unreachable(f"Prometheus at {self.url} is not ready: {text}")
        raise PrometheusError(f"Prometheus refused `{what}`: {text} ({kind})", kind=kind, status=status)

    def _stranger(self, status: int, location: str, body: bytes) -> PlatformError:
        """What to say of an answer that is not in Prometheus' form."""
        said = " ".join(body[:200].decode(errors="replace").split()) or "nothing"
        if status in _AWAY:
            return Unreachable(f"Prometheus at {self.url} is not ready: HTTP {status}, {said}")
        if status in (401, 403):
            why = (
                f"the credentials are not accepted: give user:password in the URL, or a token in ${TOKEN_ENV}"
            )
        elif 300 <= status < 400:
            why = f"it redirects to {location}: give the address of Prometheus itself"
        elif status == 404:
            why = "there is no Prometheus API under this address: is a path missing in it?"
        else:
            why = f"this is not a Prometheus (it answered {said!r})"
        return PrometheusError(f"Prometheus at {self.url}: HTTP {status}, {why}", status=status)


def _address(url: str) -> URL:
    try:
        address = URL(url)
    except ValueError as error:
        raise ConfigError(f"`{url}` is not an address of a Prometheus: {error}") from None
    if address.scheme not in ("http", "https") or not address.host:
        raise ConfigError(f"`{url}` is not an address of a Prometheus: expected http://HOST:PORT")
    return address.with_query(None).with_fragment(None)


def _credentials(address: URL) -> dict[str, str]:
    if address.user is not None:
        return {"Authorization": aiohttp.encode_basic_auth(address.user, address.password or "")}
    token = os.environ.get(TOKEN_ENV, "").strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The body, or None when it is too large to be held."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MOST_BYTES:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _understood(what: str, read: Callable[[Any], T], data: Any) -> T:
    what = shorten(what, 120)
    try:
        return read(data)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError):
        raise PrometheusError(f"Prometheus' answer to `{what}` is not in the form of its API") from None


def _instant(data: dict[str, Any]) -> list[Sample]:
    kind, result = data["resultType"], data["result"]
    if kind == "scalar":
        return [({}, float(result[1]))]
    if kind != "vector":
        raise PrometheusError(
            f"the query gives a {kind}, expected a number or an instant vector"
            + (" (a range like `[5m]` needs a function around it, as `rate`)" if kind == "matrix" else ""),
            kind="bad_data",
        )
    return [(series["metric"], float(_value(series, "value")[1])) for series in result]


def _matrix(data: dict[str, Any]) -> list[Series]:
    if data["resultType"] != "matrix":
        raise ValueError(data["resultType"])
    return [
        Series(series["metric"], [(at, float(text)) for at, text in _value(series, "values")])
        for series in data["result"]
    ]


def _value(series: dict[str, Any], key: str) -> Any:
    if key not in series and series.keys() & {"histogram", "histograms"}:
        why = "the query gives whole histograms: put histogram_quantile around it"
        raise PrometheusError(why, kind="bad_data")
    return series[key]


def _alert(labels: dict[str, str]) -> ActiveAlert:
    labels.pop("__name__", None)
    return ActiveAlert(labels.get("alertname", ""), labels.pop("alertstate", "firing"), labels)


def _rule_names(data: dict[str, Any]) -> frozenset[str]:
    rules: Iterable[dict[str, Any]] = (rule for group in data["groups"] for rule in group["rules"])
    return frozenset(rule["name"] for rule in rules if rule.get("type", "alerting") == "alerting")


def _limit(limit: int) -> dict[str, str]:
    return {"limit": str(limit)} if limit else {}


def _time(milliseconds: int) -> str:
    return f"{milliseconds // 1000}.{milliseconds % 1000:03}"


def _why(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted ({error.certificate_error})"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {error.host} is not known ({error.os_error.strerror or error.os_error})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"the connection was refused ({error.os_error.strerror or error.os_error})"
    return f"the connection broke off ({error or type(error).__name__})"
