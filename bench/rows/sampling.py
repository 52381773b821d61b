"""Sample 200 queries every 5 s over a simulated 8 h.

A server in another process answers as Prometheus does; the sampler's clock jumps, so that the waiting is
left out and the work is not. Alerts are looked at every 2 s, and all is written to a log, as in a run.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from bench.measured import Measured

QUERIES, HOURS, AT_RHYTHM = 200, 8, 1
CORE, MEMORY, GROWTH = 0.05, 150.0, 10.0  # of a core, MB, MB


async def measure() -> list[Measured]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.sampled_run", *map(str, (QUERIES, HOURS, AT_RHYTHM))),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).resolve().parents[2],
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"sampling ended with exit code {process.returncode}")
    cost = json.loads(output)
    core, peak, growth = 100 * cost["core"], cost["peak"], cost["peak"] - cost["early"]
    what = f"{QUERIES} queries every 5 s for {HOURS} h"
    return [
        Measured(
            what,
            core,
            "% of a core",
            f"under {CORE:.0%}",
            core < 100 * CORE,
            note=f"log of {cost['log']:.0f} MB",
        ),
        Measured(
            f"{what}, memory",
            peak,
            "MB",
            f"under {MEMORY:.0f} MB",
            peak < MEMORY,
            note=f"{cost['idle']:.0f} MB before it began",
        ),
        Measured(
            f"{what}, memory gained after the first",
            growth,
            "MB",
            f"flat: under {GROWTH:.0f} MB",
            growth < GROWTH,
        ),
    ]
