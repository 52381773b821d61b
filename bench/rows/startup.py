"""Start: `gameday --version` and `gameday validate` beside `chaos --version` and `chaos validate`.

The wall time of the whole process, the median of several after one that fills the caches. Bytecode is
cached, as after any installation, and in a folder of ours, whatever the environment says of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench import competitors
from bench.measured import Measured

TIMES = 7
VERSION = 0.1  # seconds
ROOT = Path(__file__).resolve().parents[2]
PROBE = {"type": "http", "url": "http://127.0.0.1/"}
THEIR_EXPERIMENT = {
    "title": "the least that they call valid",
    "description": "no more",
    "steady-state-hypothesis": {
        "title": "it answers",
        "probes": [{"type": "probe", "name": "answers", "tolerance": 200, "provider": PROBE}],
    },
    "method": [{"type": "action", "name": "nothing", "provider": {"type": "process", "path": "true"}}],
    "rollbacks": [],
}


async def measure() -> list[Measured]:
    chaos = str(await asyncio.to_thread(competitors.chaostoolkit) / "chaos")
    gameday = str(Path(sys.executable).with_name("gameday"))
    file = str(ROOT / "experiments" / "drain-gpu-nodes.yaml")
    with tempfile.TemporaryDirectory(prefix="gameday-bench-") as folder:
        their_file = Path(folder) / "experiment.json"
        their_file.write_text(json.dumps(THEIR_EXPERIMENT))
        their_start = await _median(folder, chaos, "--version")
        their_check = await _median(folder, chaos, "--no-version-check", "validate", str(their_file))
        start = await _median(folder, gameday, "--version")
        check = await _median(folder, gameday, "validate", file)
    return [
        _line("gameday --version", start, VERSION, {"chaos --version": their_start}),
        Measured(
            "gameday validate FILE",
            check,
            "s",
            "faster than chaos validate",
            check < their_check,
            {"chaos validate FILE": their_check},
        ),
    ]


def _line(what: str, ours: float, reach: float, others: dict[str, float]) -> Measured:
    return Measured(what, ours, "s", f"{reach:g} s", ours <= reach, others)


async def _median(folder: str, *command: str) -> float:
    environment = os.environ | {"PYTHONPYCACHEPREFIX": folder}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    await _seconds(folder, environment, *command)
    return statistics.median([await _seconds(folder, environment, *command) for _ in range(TIMES)])


async def _seconds(folder: str, environment: dict[str, str], *command: str) -> float:
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        cwd=folder,  # theirs leaves a log there
    )
    output, errors = await process.communicate()
    took = time.perf_counter() - started
    if process.returncode:
        said = (output + errors).decode()[-2000:]
        raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}: {said}")
    return took
