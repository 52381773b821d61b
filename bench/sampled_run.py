"""Samples a long run in compressed time, and prints what it cost: a process that does nothing else.

The first hours go at the sampler's own rhythm, and are those whose CPU time counts; the rest are fetched in
larger pieces, to see whether memory grows with the length of a run.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from gameday.platform.prometheus import Prometheus
from gameday.run.log import Log
from gameday.run.sampling import EVERY, Query, Sampler
from tests.support.promlike import PrometheusLike

ALERTS_EVERY = 2.0
LATER_EVERY = 300.0


class Alike(PrometheusLike):
    """Makes each answer once for all queries, so that the client is not kept waiting."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[tuple[str, ...], str] = {}

    def _truth(self, path: str, form: dict[str, list[str]]) -> str:
        query = form.pop("query")[0]
        special = query if "timestamp" in query or query == "ALERTS" else ""
        key = (path, special, *(form.get(k, [""])[0] for k in ("start", "end", "step")))
        if key not in self._made:
            if len(self._made) > 100:
                self._made.clear()
            self._made[key] = super()._truth(path, form | {"query": [query]})
        return self._made[key]


def _serve(told: Connection) -> None:
    async def serve() -> None:
        told.send(await Alike().start())
        await asyncio.Event().wait()

    asyncio.run(serve())


async def _sample(url: str, folder: Path, queries: int, hours: float, at_rhythm: float) -> dict[str, float]:
    start = now = 1_700_000_000.0
    log = Log(folder / "events.jsonl", clock=lambda: now)
    asked = [Query(f"sum by (node) (rate(metric_{number}_total[1m]))") for number in range(queries)]
    async with Prometheus(url) as prometheus:
        sampler = Sampler(prometheus, asked, log.emit, clock=lambda: now)
        idle, began = _peak(), time.process_time()
        while now < start + at_rhythm * 3600:
            now += EVERY
            await sampler.sample(now)
            for _ in range(round(EVERY / ALERTS_EVERY)):
                await sampler.alerts.poll()
        cpu, early = time.process_time() - began, _peak()
        while now < start + hours * 3600:
            now += LATER_EVERY
            await sampler.sample(now)
        await sampler.flush()
    log.close()
    size = (folder / "events.jsonl").stat().st_size / 1e6
    return {"core": cpu / (at_rhythm * 3600), "idle": idle, "early": early, "peak": _peak(), "log": size}


def _peak() -> float:
    """The highest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    queries, hours, at_rhythm = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    here, there = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory() as folder:
        cost = asyncio.run(_sample(here.recv(), Path(folder), queries, hours, at_rhythm))
    server.kill()
    print(json.dumps(cost))


if __name__ == "__main__":
    main()
