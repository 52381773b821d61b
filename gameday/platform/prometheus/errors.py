"""Why Prometheus gave no answer, in words for the person who reads them.

Unreachable              nobody answered, or a server that starts, stops or asks for patience
PrometheusError          Prometheus answered, and said no
PartialAnswer            Prometheus answered with warnings
"""

from __future__ import annotations

import re
import ssl
from typing import Any

import aiohttp

from gameday.experiment.text import shorten
from gameday.platform.errors import PartialAnswer, PlatformError, Unreachable

TOKEN_ENV = "GAMEDAY_PROMETHEUS_TOKEN"
QUERY = 120  # characters of a query that are quoted
SAID = 200  # characters of a stranger's answer that are quoted
# TLS alerts of a server about the client's certificate, or for want of one; older Go says BAD_CERTIFICATE.
_REJECTED = re.compile(r"ALERT_(BAD_CERTIFICATE|CERTIFICATE_\w+|UNKNOWN_CA)")
_AWAY = frozenset({429, 502, 503, 504})  # in words other than the API's: a limit, a start, a stop, a proxy


class PrometheusError(PlatformError):
    """Prometheus answered, and said no. `kind` is its errorType (bad_data, execution, timeout, …)."""

    def __init__(self, text: str, *, kind: str = "", status: int = 0) -> None:
        self.kind, self.status = kind, status
        super().__init__(text)


def quoted(query: str) -> str:
    return f"`{shorten(query, QUERY)}`"


def partial(query: str, why: str, found: list[Any]) -> PartialAnswer:
    return PartialAnswer(f"Prometheus answered {quoted(query)}", why, found)


def too_large(what: str, why: str) -> PrometheusError:
    return PrometheusError(
        f"the answer to {quoted(what)} {why}: aggregate it (`sum by (…)`)", kind="too_large"
    )


def refusal(url: str, what: str, status: int, answer: dict[str, Any]) -> PlatformError:
    """The error of an answer in the API's own form."""
    kind, text = str(answer.get("errorType", "")), str(answer.get("error", f"HTTP {status}"))
    if status == 429 or (status >= 500 and kind != "timeout"):  # a limit; or it is starting, or shutting down
        return Unreachable(f"Prometheus at {url} is not ready: {text}")
    return PrometheusError(f"Prometheus refused {quoted(what)}: {text} ({kind})", kind=kind, status=status)


def stranger(url: str, status: int, location: str, body: bytes) -> PlatformError:
    """The error of an answer that is not in Prometheus' form: a proxy's, a login page, another program's."""
    said = shorten(body, SAID) or "nothing"
    if status in _AWAY:
        return Unreachable(f"Prometheus at {url} is not ready: HTTP {status}, {said}")
    return PrometheusError(
        f"Prometheus at {url}: HTTP {status}, {_why(status, location, said)}", status=status
    )


def _why(status: int, location: str, said: str) -> str:
    if "no org id" in said:  # Mimir, Cortex, Loki: dskit, user/id.go
        return "it wants to know the tenant: give --prometheus-header X-Scope-OrgID=…"
    if "HTTP request to an HTTPS server" in said:  # Go's net/http
        return "it speaks TLS: write https:// in its address"
    if status == 401:
        return (
            f"the credentials are not accepted ({said}): give user:password in the URL, or a token "
            f"in ${TOKEN_ENV} or spec.target.prometheus.token"
        )
    if status == 403:
        return f"the credentials are known, but may not query it ({said}): ask for that permission"
    if 300 <= status < 400:
        return f"it redirects to {location}: give the address of Prometheus itself"
    if status == 404:
        return "there is no Prometheus API under this address: is a path missing in it?"
    if status in (405, 501):
        return f"it takes neither POST nor GET here ({said}): is this the address of Prometheus itself?"
    return f"this is not a Prometheus (it answered {said!r})"


def broken(url: str, error: BaseException, seconds: float) -> Unreachable:
    """The error of a request that got no answer at all."""
    if isinstance(error, TimeoutError):
        return Unreachable(f"Prometheus at {url} did not answer within {seconds:g} s")
    return Unreachable(f"Prometheus at {url} cannot be asked: {_why_broken(error)}")


def _why_broken(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answers HTTP {error.status} ({error.message}): see $HTTPS_PROXY and $NO_PROXY"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"the proxy {error.host}:{error.port} is not there ({_os(error)}): see $HTTPS_PROXY, $NO_PROXY"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = error.certificate_error
        return f"its certificate is not trusted ({why}): name its CA in spec.target.prometheus.caFile"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {error.host} is not known ({_os(error)})"
    if _REJECTED.search(str(error)):
        return f"it wants a client certificate ({error}): name one in spec.target.prometheus.certFile"
    if isinstance(error, aiohttp.ClientConnectorSSLError | ssl.SSLError):
        return f"TLS failed ({error}): does it speak http:// alone?"
    if isinstance(error, aiohttp.ClientConnectorError):
        refused = isinstance(error.os_error, ConnectionRefusedError)
        return f"{'the connection was refused' if refused else 'there is no way to it'} ({_os(error)})"
    return f"the connection broke off ({error or type(error).__name__})"


def _os(error: aiohttp.ClientConnectorError) -> str:
    return error.os_error.strerror or str(error.os_error)
