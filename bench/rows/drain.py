"""Drain 10 nodes with 200 pods whose budget allows 30 to be away, on a real control plane.

The simulated kubelets start and end pods at once. Only the drain is timed: not the start of a Python
interpreter or its imports, which is to the competitor's advantage.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from bench import competitors
from bench.drained_cluster import FULL, NAMESPACE, NODE_COUNT, Scene, scene
from bench.measured import Measured, times_faster

BENCH = Path(__file__).resolve().parents[1]


async def measure() -> list[Measured]:
    chaostoolkit = await asyncio.to_thread(competitors.chaostoolkit)
    async with scene() as cluster:
        kubeconfig = str(cluster.plane.kubeconfig)
        nodes = [f"full-{i}" for i in range(NODE_COUNT)]
        kubectl = await _drain(cluster, cluster.plane.kubectl, "drain", *nodes)
        script = str(BENCH / "drain_chaostoolkit.py")
        chaos = await _drain(cluster, str(chaostoolkit / "python"), script, FULL)
        ours = await _drain(cluster, sys.executable, "-m", "bench.drain_gameday", kubeconfig, FULL, NAMESPACE)
    others = {"kubectl drain": kubectl, "chaostoolkit drain_nodes": chaos}
    return [times_faster("drain 10 nodes, 200 pods, maxUnavailable 30", ours, others, 10)]


async def _drain(cluster: Scene, *command: str) -> float:
    """Seconds: what the program says of itself, else from its start to its end."""
    await cluster.arrange()
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "KUBECONFIG": str(cluster.plane.kubeconfig)},
        cwd=BENCH.parent,
    )
    output, errors = await process.communicate()
    took = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {errors.decode()[-2000:]}")
    await cluster.check_drained()
    last = output.decode().strip().rpartition("\n")[2]
    seconds = float(json.loads(last)["seconds"]) if last.startswith("{") else took
    print(f"  {Path(command[0]).name} {' '.join(command[1:3])}: {seconds:.2f} s", file=sys.stderr, flush=True)
    return seconds
