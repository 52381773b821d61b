"""The `http` probe: what a service answers, and how fast, from where gameday runs."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gameday.experiment.model import Spec, Text, Url
from gameday.experiment.text import shorten
from gameday.experiment.values import HeaderName, HeaderValue
from gameday.extend import Measurement, Probe
from gameday.masking import keep_sent
from gameday.platform import answers
from gameday.platform.errors import PlatformError, Unreachable, without_frames
from gameday.probes import jsonpath

if TYPE_CHECKING:
    from gameday.platform.world import World

MOST_BYTES = 2**20  # of an answer that are looked at
LONGEST = 60.0  # seconds; a probe's own `timeout` cancels it much earlier


class HttpSpec(Spec):
    """A request, and what of its answer counts."""

    url: Url = Field(description="http:// or https://, as seen from where gameday runs.")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = Field(
        "GET", description="The request's method."
    )
    headers: dict[HeaderName, HeaderValue] = Field({}, description="The request's headers.")
    body: str | dict[str, Any] | list[Any] | None = Field(
        None, description="The request's body: a text, or a structure that is sent as JSON."
    )
    measure: Literal["status", "latency", "json"] = Field(
        "status", description="The status code, the seconds until all is read, or a field of a JSON answer."
    )
    json_path: Annotated[Text, jsonpath.CHECKED] | None = Field(
        None, description="With `measure: json`, the field, as `{.queue.depth}`."
    )
    verify_tls: bool = Field(True, description="Whether its certificate must be trusted.")
    follow_redirects: bool = Field(False, description="Whether to go where a redirect points.")

    @classmethod
    def shorthand(cls) -> str:
        return "url"

    @model_validator(mode="after")
    def _path_for_json(self) -> Self:
        if (self.measure == "json") != (self.json_path is not None):
            raise ValueError("`measure: json` and `jsonPath` need each other")
        return self

    @model_validator(mode="after")
    def _keep_logins(self) -> Self:
        """Here, as a run's first event holds the whole experiment."""
        keep_sent(self.headers)
        return self


class Http(Probe[HttpSpec]):
    """The status, the latency, or a JSON field of what a URL answers."""

    Spec: ClassVar = HttpSpec
    asks_cluster: ClassVar[bool] = False
    example: ClassVar[str] = """\
name: the front door answers
http: {url: "https://inference.example.com/healthz", measure: latency}
is: < 300ms
"""

    async def measure(self, spec: HttpSpec, world: World) -> Measurement:
        """One value. Each time over a new connection, as a new client would come."""
        import aiohttp

        body: dict[str, Any] = {"json" if isinstance(spec.body, dict | list) else "data": spec.body}
        started = time.perf_counter()
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LONGEST)) as session,
                session.request(
                    spec.method,
                    spec.url,
                    headers={"User-Agent": "gameday"} | spec.headers,
                    ssl=spec.verify_tls,
                    allow_redirects=spec.follow_redirects,
                    **body,
                ) as response,
            ):
                chunks = response.content.iter_any()
                text = await answers.beginning(chunks, MOST_BYTES)
                async for _ in chunks:  # part of the latency
                    pass
                status = response.status
        except TimeoutError:
            raise Unreachable(f"{spec.url} did not answer within {LONGEST:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            why = str(error) or type(error).__name__
            raise Unreachable(f"{spec.url} cannot be asked: {why}") from without_frames(error)
        took = time.perf_counter() - started
        if spec.measure == "json":
            return _field(spec, status, text)
        return Measurement((("", took if spec.measure == "latency" else float(status)),), f"HTTP {status}")


def _field(spec: HttpSpec, status: int, text: bytes) -> Measurement:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise PlatformError(
            f"{spec.url} answered HTTP {status} and no JSON: {shorten(text, 100)!r}"
        ) from None
    found = jsonpath.find(spec.json_path or "", document, spec.url)
    if not found:
        return Measurement((), f"there is nothing at {spec.json_path} (HTTP {status})")
    if len(found) == 1:
        return Measurement((("", found[0]),), f"HTTP {status}")
    return Measurement(tuple((f"[{number}]", value) for number, value in enumerate(found)), f"HTTP {status}")
