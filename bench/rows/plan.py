"""Plan a drain of 100 nodes among 5,000 nodes and 50,000 pods, with a blast radius in percent.

The whole `gameday plan` beside a program that does no more than list the same with the official typed client.
The wall time and the most memory of whole processes, imports included.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench import large_cluster
from bench.large_cluster import CONTEXT, LABEL, NAMESPACES, NODES, PODS
from bench.measured import Measured, times_faster
from tests.support.children import Child
from tests.support.polling import eventually

DRAINED = 100
TIMES = 3  # ours, of which the median counts; theirs is long enough to even out what else the machine does
MEMORY = 400.0  # MB
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Cost:
    """Of one process."""

    seconds: float
    megabytes: float
    said: str


async def measure() -> list[Measured]:
    with tempfile.TemporaryDirectory(prefix="gameday-bench-") as name:
        folder = Path(name)
        kubeconfig, file = folder / "kubeconfig", folder / "experiment.yaml"
        file.write_text(yaml.safe_dump(_experiment()))
        command = [sys.executable, "-m", "bench.large_cluster", str(kubeconfig)]
        cluster = Child("the large cluster", command, folder / "cluster.log", cwd=ROOT)
        try:
            await eventually(lambda: _served(cluster, kubeconfig), within=120)
            plan = ["-m", "gameday", "plan", str(file), "--kubeconfig", str(kubeconfig)]
            each = [await asyncio.to_thread(_run, folder, *plan) for _ in range(TIMES)]
            typed_list = ["-m", "bench.typed_list", str(kubeconfig)]
            theirs = await asyncio.to_thread(_run, folder, *typed_list)
        finally:
            cluster.kill()
    ours = sorted(each, key=lambda cost: cost.seconds)[TIMES // 2]
    expected = f"{DRAINED} nodes (at most {DRAINED}, of {NODES})"
    assert expected in " ".join(ours.said.split()), f"not what was to be planned:\n{ours.said}"
    assert f"{NODES} {PODS}" in theirs.said, f"not the whole list: {theirs.said}"
    what = f"plan over {NODES:,} nodes and {PODS:,} pods"
    typed = "the typed client's list alone"
    return [
        times_faster(what, ours.seconds, {typed: theirs.seconds}, 10),
        Measured(
            f"{what}, memory",
            ours.megabytes,
            "MB",
            f"under {MEMORY:.0f} MB",
            ours.megabytes < MEMORY,
            {typed: theirs.megabytes},
        ),
    ]


async def _served(cluster: Child, kubeconfig: Path) -> bool:
    cluster.check()
    return kubeconfig.exists()


def _run(folder: Path, *arguments: str) -> Cost:
    """Run Python with these arguments; wait4 tells the memory of this child and no other."""
    environment = os.environ | {"COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    with (folder / "said").open("w+b") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=ROOT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read().decode()
    if process.returncode:
        raise RuntimeError(
            f"{' '.join(arguments)} ended with exit code {process.returncode}:\n{said[-2000:]}"
        )
    cost = Cost(took, usage.ru_maxrss / 1024, said)
    print(f"  {arguments[1]}: {took:.1f} s, {cost.megabytes:.0f} MB", file=sys.stderr, flush=True)
    return cost


def _experiment() -> dict[str, Any]:
    share = f"{100 * DRAINED // NODES}%"
    return {
        "apiVersion": "gameday.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": "plan"},
        "spec": {
            "title": "Nobody notices that some nodes are drained",
            "target": {
                "context": CONTEXT,
                "namespaces": [large_cluster.namespace(number) for number in range(NAMESPACES)],
                "nodes": {"selector": f"{LABEL}=true"},
            },
            "blastRadius": {"nodes": share, "pods": share, "gpus": share},
            "steadyState": [{"name": "not asked by a plan", "http": "http://127.0.0.1/", "is": 200}],
            "method": [{"drain": {"nodes": {"selector": f"{LABEL}=true", "pick": DRAINED}}, "for": "1m"}],
        },
    }
