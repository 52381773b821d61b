"""The scene of the abort comparison: nodes to cordon, a service that breaks, and somebody who looks on."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from gameday.platform.following import follow
from gameday.platform.kube import Kube
from gameday.platform.resources import NODES
from gameday.sandbox import sandbox

HOLD = 60  # seconds that the faults are to be in force
BREAK_AFTER = 3.3  # seconds that they are, until the service breaks; between two probes
ABORTED = 3  # gameday's exit code


class Service:
    """What the steady state is about: it answers 200 until it is broken, then 503."""

    def __init__(self) -> None:
        self.works = True

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
        finally:
            await runner.cleanup()

    async def _answer(self, _: web.BaseRequest) -> web.Response:
        return web.Response(status=200 if self.works else 503)


@dataclass(frozen=True)
class Aborted:
    """Seconds. The first is what somebody saw who watched the cluster; the others are from the run's log."""

    from_broken: float  # from the moment the service broke until all nodes were as before
    from_probe: float = 0.0  # from the question of the probe that saw it until the last fault was out
    from_abort: float = 0.0  # from the abort until then


@dataclass
class Scene:
    """A sandbox's nodes, and a service."""

    kube: Kube
    kubeconfig: Path
    service: Service
    url: str
    folder: Path

    async def gameday(self, nodes: list[str]) -> Aborted:
        """`gameday run` with one fault for each node, all in force at the same time."""
        reports = self.folder / f"reports-{len(nodes)}"
        file = self.folder / f"gameday-{len(nodes)}.yaml"
        file.write_text(yaml.safe_dump(self._experiment(nodes)))
        command = [sys.executable, "-m", "gameday", "run", file, "--yes", "--no-slack", "--reports", reports]
        seen = await self._break(command, len(nodes), ABORTED)
        (log,) = reports.glob("*/events.jsonl")
        events = [json.loads(line) for line in log.read_bytes().splitlines()]
        saw = _first(events, type="probed", purpose="abort", state="holds")
        abort = _first(events, type="abort")
        undone = [e for e in events if e["type"] == "change" and e["state"] == "undone"]
        out = [e for e in events if e["type"] == "fault" and e["state"] == "out"]
        assert len(undone) == len(out) == len(nodes), f"{len(undone)} undone, {len(out)} out of {len(nodes)}"
        last = max(e["at"] for e in [*undone, *out])
        return Aborted(seen, last - (saw["at"] - saw["took"]), last - abort["at"])

    async def chaostoolkit(self, chaos: Path, node: str) -> Aborted:
        """`chaos run` with the like experiment, as its documentation says to abort and roll back."""
        file = self.folder / "chaos.json"
        file.write_text(json.dumps(self._their_experiment(node)))
        strategies = ["--hypothesis-strategy", "continuously", "--hypothesis-frequency", "1", "--fail-fast"]
        strategies += ["--rollback-strategy", "always"]
        return Aborted(await self._break([chaos, "--no-version-check", "run", *strategies, file], 1, 1))

    async def _break(self, command: list[Any], count: int, code: int) -> float:
        """Run it, break the service with the faults in force; seconds until all nodes are as before."""
        self.service.works = True
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig), "PYTHONPATH": str(Path.cwd())},
            cwd=self.folder,
        )
        said = asyncio.create_task(process.communicate())
        try:
            await _first_of(self._cordoned(lambda n: n == count), said, f"{count} nodes cordoned")
            await asyncio.sleep(BREAK_AFTER)
            self.service.works, broke = False, time.time()
            restored = await _first_of(self._cordoned(lambda n: n == 0), said, "all nodes restored")
            self.service.works = True  # what is left, recovery and report, is not measured
            output, _ = await said
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == code, f"exit code {process.returncode}:\n{output.decode()[-3000:]}"
        return restored - broke

    async def _cordoned(self, enough: Callable[[int], bool]) -> float:
        """When as many nodes are cordoned, as a watch of the cluster sees it."""
        cordoned: set[str] = set()
        synced = False
        async for kind, node in follow(self.kube, NODES):
            if kind == "SYNCED":
                synced = True
            elif node["spec"].get("unschedulable"):
                cordoned.add(node["metadata"]["name"])
            else:
                cordoned.discard(node["metadata"]["name"])
            if synced and enough(len(cordoned)):
                break
        return time.time()

    def _experiment(self, nodes: list[str]) -> dict[str, Any]:
        check = {"http": self.url, "interval": "1s"}
        steps = [{"cordon": {"nodes": {"names": [node]}}, "for": f"{HOLD}s"} for node in nodes]
        return {
            "apiVersion": "gameday.dev/v1alpha1",
            "kind": "Experiment",
            "metadata": {"name": f"abort-{len(nodes)}"},
            "spec": {
                "title": "The service does not need these nodes",
                "target": {"context": "gameday-sandbox"},
                "blastRadius": {"nodes": len(nodes), "gpus": 8 * len(nodes)},
                "steadyState": [{"name": "service", "is": 200, **check}],
                "abortIf": [{"name": "service is down", "is": ">= 500", **check}],
                "method": [{"parallel": steps}],
                "recovery": {"within": "30s"},
            },
        }

    def _their_experiment(self, node: str) -> dict[str, Any]:
        probe = {"type": "probe", "name": "service", "tolerance": 200}
        return {
            "title": "The service does not need this node",
            "description": "as ours",
            "steady-state-hypothesis": {
                "title": "the service answers",
                "probes": [probe | {"provider": {"type": "http", "url": self.url}}],
            },
            "method": [_action("cordon_node", node) | {"pauses": {"after": HOLD}}],
            "rollbacks": [_action("uncordon_node", node)],
        }


@asynccontextmanager
async def scene(folder: Path, nodes: int) -> AsyncIterator[Scene]:
    service = Service()
    async with (
        sandbox(folder / "sandbox", nodes=nodes, prometheus=False, workloads=False) as box,
        await Kube.connect(box.kubeconfig) as kube,
        service.serve() as url,
    ):
        yield Scene(kube, box.kubeconfig, service, url, folder)


def _action(function: str, node: str) -> dict[str, Any]:
    provider = {"type": "python", "module": "chaosk8s.node.actions", "func": function}
    return {"type": "action", "name": function, "provider": provider | {"arguments": {"name": node}}}


def _first(events: list[dict[str, Any]], **wanted: str) -> dict[str, Any]:
    return next(e for e in events if wanted.items() <= e.items())


async def _first_of(wanted: Any, said: asyncio.Task[Any], what: str) -> float:
    """What is wanted, unless the program ends before it."""
    task = asyncio.create_task(wanted)
    await asyncio.wait({task, said}, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        task.cancel()
        output, _ = said.result()
        raise RuntimeError(f"the program ended before there were {what}:\n{output.decode()[-3000:]}")
    return float(task.result())
