"""Weather on the line to the API server: what networks, load balancers and servers do, drawn from a seed."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field

from tests.torture.wire import Call, Fair, HungUp, Reply

PAGE = "<html><head><title>503</title></head><body>The page of a load balancer.</body></html>"


def status(code: int, reason: str) -> Reply:
    """As an API server says no."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": f"torture answers {code}",
    }
    return Reply(code, json.dumps(body))


REPLIES = {
    "429": status(429, "TooManyRequests"),
    "500": status(500, "InternalError"),
    "503": status(503, "ServiceUnavailable"),
    "409": status(409, "Conflict"),
    "401": status(401, "Unauthorized"),
    "HTML with 200": Reply(200, PAGE, "text/html"),
    "half a JSON": Reply(200, '{"kind": "Deployment", "metadata": {"name": "', "application/json"),
    "an answer cut short": Reply(200, '{"kind": "List", "items": [1, 2, 3]}', cut=True),
    "nothing with 200": Reply(200, ""),
    "another object": Reply(
        200,
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": "somebody-else", "uid": "0", "resourceVersion": "1"},
            }
        ),
    ),
}
WAYS = (*REPLIES, "reset", "answer lost", "slow", "watch cut")


@dataclass
class Storm(Fair):
    """A share of the requests meets one of these ways, once it blows."""

    ways: tuple[str, ...]
    share: float
    draw: random.Random
    blows: bool = True
    met: dict[str, int] = field(default_factory=dict)

    def _way(self, possible: set[str]) -> str:
        ways = [way for way in self.ways if way in possible]
        if not self.blows or not ways or self.draw.random() >= self.share:
            return ""
        way = self.draw.choice(ways)
        self.met[way] = self.met.get(way, 0) + 1
        return way

    async def before(self, call: Call) -> Reply | None:
        if call.watches:
            if self._way({"watch cut"}):
                raise HungUp
            return None
        way = self._way({*REPLIES, "reset", "slow"})
        if way == "reset":
            raise HungUp
        if way == "slow":
            await asyncio.sleep(self.draw.uniform(0.3, 1.5))
        return REPLIES.get(way)

    async def after(self, call: Call) -> None:
        if self._way({"answer lost"}):
            raise HungUp


@dataclass
class CutOff(Fair):
    """From some moment on nothing passes, in neither direction."""

    off: bool = False

    async def before(self, call: Call) -> Reply | None:
        if self.off:
            raise HungUp
        return None

    async def after(self, call: Call) -> None:
        if self.off:
            raise HungUp
