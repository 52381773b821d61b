"""The report of a long run: 200 series, 8 hours at 5 seconds.

The log is written as a run would write it (every 15 s what is new of each query), then rendered by a fresh
interpreter, and opened in Chromium from disk. The chart library's bundle is made once for each version and
kept in the user's cache, so the first report on a machine is measured too.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from bench.measured import Measured
from tests.report import logs
from tests.support import browser

RENDER = """
import json, resource, sys, time
began = time.perf_counter()
from pathlib import Path
from gameday.report import render
path = render(Path(sys.argv[1])).html
took = time.perf_counter() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": took, "megabytes": path.stat().st_size / 1e6, "memory": peak}))
"""


async def measure() -> list[Measured]:
    with tempfile.TemporaryDirectory(prefix="gameday-bench-") as folder:
        run = logs.write(Path(folder) / "run", logs.big(queries=200, hours=8, step=5))
        first = await _render(run, Path(folder) / "cache")
        again = await _render(run, Path(folder) / "cache")
        opened = await _open(run / "report.html") if browser.chromium() else float("nan")
    what = "report of 200 series, 8 h at 5 s"
    memory = f"{again['memory']:.0f} MB of memory at most"
    return [
        Measured(what, again["seconds"], "s", "under 10 s", again["seconds"] < 10, note=memory),
        Measured(f"{what}, first on a machine", first["seconds"], "s", "under 10 s", first["seconds"] < 10),
        Measured("its HTML", again["megabytes"], "MB", "under 8 MB", again["megabytes"] < 8),
        Measured("opens in Chromium, first charts drawn", opened, "s", "under 3 s", opened < 3),
    ]


async def _render(run: Path, cache: Path) -> dict[str, float]:
    """In an interpreter of its own: seconds with all imports, the page's size, and the peak of memory."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        RENDER,
        str(run),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        cwd=Path(__file__).resolve().parents[2],
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError("rendering failed, see above")
    found: dict[str, float] = json.loads(output)
    return found


async def _open(path: Path) -> float:
    """Seconds from asking for the file until it is loaded and the charts in view are drawn."""
    async with browser.running() as chromium:
        page = await chromium.new_page(viewport={"width": 1280, "height": 900})
        began = time.perf_counter()
        await page.goto(path.as_uri(), wait_until="load")
        await page.locator("#charts").scroll_into_view_if_needed()
        await page.locator(".plot svg").first.wait_for()
        return time.perf_counter() - began
