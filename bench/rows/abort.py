"""Abort: the steady state breaks with a fault of 60 s in force, probed each second, until all is restored.

`gameday run` beside `chaos run --hypothesis-strategy continuously --fail-fast --rollback-strategy always`
with the like experiment, in the embedded sandbox. Somebody watches the cluster meanwhile, and says of both
when it was as before; up to a second of that passes until the next probe asks.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from bench import competitors
from bench.aborted_runs import HOLD, Aborted, scene
from bench.measured import Measured

MANY = 100
PROBE, MANY_WITHIN = 0.5, 3.0  # seconds


async def measure() -> list[Measured]:
    chaos = await asyncio.to_thread(competitors.chaostoolkit) / "chaos"
    with tempfile.TemporaryDirectory(prefix="gameday-bench-") as folder:
        async with scene(Path(folder), MANY) as cluster:
            names = [f"gpu-{number}" for number in range(MANY)]
            one = _say("gameday", await cluster.gameday(names[:1]))
            many = _say(f"gameday, {MANY} faults", await cluster.gameday(names))
            theirs = _say("chaos", await cluster.chaostoolkit(chaos, names[0]))
    what = f"steady state broken → restored, a {HOLD} s fault in force"
    total = 1 + PROBE
    return [
        Measured(
            what,
            one.from_broken,
            "s",
            f"{total:g} s: a second to the next probe, then {PROBE:g} s",
            one.from_broken <= total,
            {"chaos run": theirs.from_broken},
        ),
        Measured(
            "the same, from the probe that saw it",
            one.from_probe,
            "s",
            f"{PROBE:g} s",
            one.from_probe <= PROBE,
        ),
        Measured(
            f"{MANY} faults in force, from the abort",
            many.from_abort,
            "s",
            f"{MANY_WITHIN:g} s",
            many.from_abort <= MANY_WITHIN,
            note=f"{many.from_broken:.2f} s from broken to restored",
        ),
    ]


def _say(who: str, took: Aborted) -> Aborted:
    print(f"  {who}: {took}", file=sys.stderr, flush=True)
    return took
