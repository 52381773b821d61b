"""The janitor as a service: what was restored is printed, an Event in the cluster, a metric, and in Slack.

None of these can keep a run from being restored: each is tried once, and its failure is printed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gameday.experiment.text import plural
from gameday.ledger.janitor import EVERY, Attempt, Janitor
from gameday.ledger.keeping import NAMESPACE
from gameday.ledger.lease import ref_of
from gameday.masking import clip
from gameday.platform.errors import PlatformError

if TYPE_CHECKING:
    from aiohttp import web

    from gameday.platform.kube import Kube

SILENT = 12 * EVERY  # seconds without a look at the cluster, after which the janitor is not healthy
TOLD_WITHIN = 30.0  # seconds for an Event and a message
MESSAGE = 1000  # characters of an Event's message; API servers take 1,024


@dataclass
class Counts:
    """The counts behind /metrics."""

    outcomes: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    looked: float = 0.0  # wall clock, for people and alerts
    seen: float = field(default_factory=time.monotonic)

    def look(self, runs: int) -> None:
        self.runs, self.looked, self.seen = runs, time.time(), time.monotonic()

    @property
    def healthy(self) -> bool:
        return time.monotonic() - self.seen < SILENT

    def text(self) -> str:
        """In Prometheus' text format."""
        outcomes = [
            f'gameday_janitor_restorations_total{{outcome="{name}"}} {self.outcomes[name]}'
            for name in ("restored", "left", "failed")
        ]
        return "\n".join(
            [
                "# HELP gameday_janitor_restorations_total Runs that died, by how their restoration ended.",
                "# TYPE gameday_janitor_restorations_total counter",
                *outcomes,
                "# HELP gameday_janitor_runs Runs with a record or a Lease in the cluster.",
                "# TYPE gameday_janitor_runs gauge",
                f"gameday_janitor_runs {self.runs}",
                "# HELP gameday_janitor_last_look_timestamp_seconds When the cluster was last looked at.",
                "# TYPE gameday_janitor_last_look_timestamp_seconds gauge",
                f"gameday_janitor_last_look_timestamp_seconds {self.looked:.3f}",
                "",
            ]
        )


class Service:
    """Restores every run that dies. `listen`: HOST:PORT for /metrics and /healthz; `slack`: a channel."""

    def __init__(
        self,
        kube: Kube,
        listen: str,
        slack: str,
        show: Callable[[Attempt], None],
        say: Callable[[str], None],
        by: str,
    ) -> None:
        self._kube, self._listen, self._slack = kube, listen, slack
        self._show, self._say = show, say
        self._counts, self._telling = Counts(), set[asyncio.Task[None]]()
        self._janitor = Janitor(kube, self._tell, self._trouble, self._counts.look, by=by)

    def stop(self) -> None:
        """Let what is under way come to its end, and end."""
        self._janitor.stop()

    async def run(self) -> None:
        """Until it is stopped. Raises PlatformError when the address can't be listened on."""
        async with _listening(self._listen, self._counts):
            await self._janitor.run()
            await asyncio.gather(*self._telling)

    def _trouble(self, text: str) -> None:
        self._say(f"gameday: {text}")

    def _tell(self, done: Attempt) -> None:
        self._show(done)
        if done.lost:
            return
        self._counts.outcomes[_outcome(done)] += 1
        task = asyncio.create_task(self._tell_others(done))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell_others(self, done: Attempt) -> None:
        for who, telling in (("Event", _event(self._kube, done)), ("Slack", _post(self._slack, done))):
            try:
                async with asyncio.timeout(TOLD_WITHIN):
                    await telling
            except (PlatformError, OSError, TimeoutError) as error:
                self._trouble(f"{who}: {error or 'no answer in time'}")


def _outcome(done: Attempt) -> str:
    if done.result is None:
        return "failed"
    return "restored" if done.result.restored else "left"


def sentence(done: Attempt) -> str:
    """The outcome for a run that died, in a sentence."""
    if done.result is None:
        return f"run {done.run} died, and could not be restored: {done.failure}"
    left = [a for a in done.result.audits if a.state == "left"]
    undone = sum(e.state == "undone" for e in done.result.undone)
    changes = plural(undone, "change")
    if not left:
        return f"run {done.run} died; the janitor undid {changes}, and nothing of the run is left"
    return (
        f"run {done.run} died; the janitor undid {changes}, but {left[0].object} is not as before: "
        f"{left[0].message}" + (f" (and {len(left) - 1} more)" if len(left) > 1 else "")
    )


async def _event(kube: Kube, done: Attempt) -> None:
    """An Event about the run's Lease; the API server forgets Events by itself, after an hour by default."""
    restored = done.result is not None and done.result.restored
    lease, now = ref_of(done.run), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    await kube.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{lease.name}.{time.time_ns():x}", "namespace": NAMESPACE},
            "involvedObject": lease.to_data(),
            "type": "Normal" if restored else "Warning",
            "reason": "Restored" if restored else "NotRestored",
            "message": clip(sentence(done), MESSAGE),
            "source": {"component": "gameday-janitor"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
    )


async def _post(channel: str, done: Attempt) -> None:
    if not channel:
        return
    from gameday.cli.slack import TOKEN
    from gameday.platform.slack import Message, Slack
    from gameday.report.slack_message import escape

    await Slack(os.environ.get(TOKEN, "")).post(channel, Message(escape(sentence(done))))


@asynccontextmanager
async def _listening(address: str, counts: Counts) -> AsyncIterator[None]:
    if not address:
        yield
        return
    from aiohttp import web

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=counts.text(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def healthz(_: web.Request) -> web.Response:
        if counts.healthy:
            return web.Response(text="ok\n")
        return web.Response(status=503, text=f"the cluster was not looked at for {SILENT:g} s\n")

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    host, _, port = address.rpartition(":")
    try:
        try:
            await web.TCPSite(runner, host.strip("[]") or None, int(port)).start()
        except OSError as error:
            raise PlatformError(f"cannot listen on {address}: {error.strerror or error}") from error
        yield
    finally:
        await runner.cleanup()
