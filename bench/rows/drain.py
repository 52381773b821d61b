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
from dataclasses import dataclass
from pathlib import Path

from bench import competitors
from bench.drained_cluster import FULL, NAMESPACE, NODE_COUNT, Scene, scene
from bench.measured import Measured

FASTER, AT_MOST = 3, 2  # times
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
    work = ours.control_plane / (os.cpu_count() or 1)
    others = {"kubectl drain": kubectl.seconds, "chaostoolkit drain_nodes": chaos.seconds}
    what, reach = "drain 10 nodes, 200 pods, maxUnavailable 30", f"{FASTER} times faster than kubectl"
    return [
        Measured(what, ours.seconds, "s", reach, kubectl.seconds >= FASTER * ours.seconds, others),
        Measured(
            "the same, beside the control plane's own work",
            ours.seconds,
            "s",
            f"{AT_MOST * work:.1f} s: at most {AT_MOST} times its CPU on all cores",
            ours.seconds <= AT_MOST * work,
            note=f"etcd, API server, controllers and scheduler: {ours.control_plane:.1f} s of CPU",
        ),
    ]


@dataclass(frozen=True)
class Drained:
    """Seconds: how long a drain took, and the processor time of the control plane meanwhile."""

    seconds: float
    control_plane: float


async def _drain(cluster: Scene, *command: str) -> Drained:
    """Seconds by the program's own figures; where it tells none, from its start to its end."""
    await cluster.arrange()
    before = cluster.plane.cpu_seconds()
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
    took, work = time.perf_counter() - started, cluster.plane.cpu_seconds() - before
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {errors.decode()[-2000:]}")
    await cluster.check_drained()
    last = output.decode().strip().rpartition("\n")[2]
    seconds = float(json.loads(last)["seconds"]) if last.startswith("{") else took
    print(f"  {Path(command[0]).name} {' '.join(command[1:3])}: {seconds:.2f} s", file=sys.stderr, flush=True)
    return Drained(seconds, work)
