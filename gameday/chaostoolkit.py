"""gameday's faults and probes as Chaos Toolkit activities, for experiments that `chaos run` runs.

    provider: {type: python, module: gameday.chaostoolkit, func: inject_fault, arguments: {…}}

A fault is a run of `gameday` in a process of its own, with all that belongs to one: plan, preflight, blast
radius, ledger, lease, audit and report. So it is put back whatever becomes of `chaos`, at the end of its hold
at the latest, and by `gameday recover` where both are gone.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from chaoslib.exceptions import ActivityFailed

from gameday import events

__all__ = ["inject_fault", "measure_probe", "run_fault", "undo_fault"]

ANSWERS = {  # a run needs a steady state, and here that is Chaos Toolkit's own hypothesis
    "name": "the cluster answers",
    "kubernetes": {"resource": "namespaces", "count": True},
    "is": ">= 1",
}
RESTORED = (0, 130)  # how a run ends whose fault was put back: by itself, or when it was told to
LAST_LINES = 12

Activity = dict[str, Any]


class _Run:
    """One run of one fault."""

    def __init__(self, reports: str, **spec: Any) -> None:
        self.name = f"chaostoolkit-{secrets.token_hex(3)}"
        self._reports = Path(reports)
        self._temporary = tempfile.TemporaryDirectory(prefix="gameday-")  # goes with this object
        folder = Path(self._temporary.name)
        file = folder / "experiment.json"
        file.write_text(json.dumps(_document(self.name, spec)))
        self._output = folder / "output.txt"
        command = [
            sys.executable,
            "-m",
            "gameday",
            "run",
            str(file),
            "--yes",
            "--reports",
            str(self._reports),
        ]
        if context := os.environ.get("KUBERNETES_CONTEXT"):  # Chaos Toolkit's name for it
            command += ["--context", context]
        with self._output.open("w") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for `chaos`, which then says what is to happen
            )

    def wait(self, done: Callable[[], bool] = lambda: False) -> int | None:
        """The exit code, or None when `done` came first. Whatever interrupts it, the fault is put back."""
        try:
            while self._process.poll() is None and not done():
                time.sleep(0.1)
        except BaseException:
            self.stop()
            raise
        return self._process.poll()

    def stop(self) -> int:
        """Have the fault put back, and wait until it is."""
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGINT)
        return self._process.wait()

    @property
    def is_in(self) -> bool:
        return any(isinstance(e, events.Fault) and e.state == "in" for e in self._events())

    def told(self) -> Activity:
        """The entry in Chaos Toolkit's journal."""
        log = self._events()
        verdict = next((e.verdict for e in log if isinstance(e, events.Verdict)), None)
        evidence = [fact for e in log if isinstance(e, events.Fault) for fact in e.evidence]
        folder = str(self._folder) if self._folder else ""
        return {"run": self.name, "verdict": verdict, "evidence": evidence, "report": folder}

    def failure(self) -> ActivityFailed:
        lines = self._output.read_text().strip().splitlines()[-LAST_LINES:]
        return ActivityFailed(
            f"gameday run {self.name} ended with {self._process.poll()}:\n" + "\n".join(lines)
        )

    @property
    def _folder(self) -> Path | None:
        return next(self._reports.glob(f"{self.name}-*"), None)

    def _events(self) -> list[events.Event]:
        folder = self._folder
        try:
            return list(events.Log(folder / "events.jsonl")) if folder else []
        except events.NoLog:
            return []


_held: dict[str, _Run] = {}  # faults that are in until somebody undoes them


def run_fault(
    fault: Activity,
    hold: str = "",
    target: Activity | None = None,
    blast_radius: Activity | None = None,
    reports: str = "reports",
) -> Activity:
    """Inject a fault, hold it, and put it back. `fault` is a step as in gameday's files, `{scale: {…}}`.

    `hold` is a duration; leave it out for what is over at once (a killed pod). `target` and `blast_radius`
    are as in gameday's files, `reports` is the folder for them.
    """
    run = _Run(reports, method=[_step(fault, hold)], target=target or {}, blastRadius=blast_radius or {})
    if run.wait() != 0:
        raise run.failure()
    return run.told()


def inject_fault(
    fault: Activity,
    hold: str,
    target: Activity | None = None,
    blast_radius: Activity | None = None,
    reports: str = "reports",
) -> Activity:
    """As `run_fault`, but returns once it is in: `undo_fault`, or the end of `hold`, puts it back."""
    run = _Run(reports, method=[_step(fault, hold)], target=target or {}, blastRadius=blast_radius or {})
    ended = run.wait(lambda: run.is_in)
    if ended is not None and not run.is_in:
        raise run.failure()
    _held[run.name] = run
    return run.told()


def undo_fault(run: str = "") -> list[Activity]:
    """Put a fault back that `inject_fault` put in, by its run's name; all of them when it is left out."""
    told = []
    for name in [run] if run else list(_held):
        held = _held.pop(name, None)
        if held is None:
            raise ActivityFailed(f"no fault of run {name} is held here; see `gameday status`")
        if held.stop() not in RESTORED:
            raise held.failure()
        told.append(held.told())
    return told


def measure_probe(
    probe: Activity, expect: str = "", namespaces: list[str] | None = None, prometheus: str = ""
) -> Any:
    """What a probe measures: a value, or the values by series; with `expect`, whether all of them meet it.

    `probe` is one as in gameday's files, `{kubernetes: {…}}`, and `expect` what stands in its `is`.
    """
    from gameday.experiment.expect import Expectation
    from gameday.platform import shield
    from gameday.platform.errors import PlatformError

    bound = Expectation.parse(expect) if expect else None
    try:
        series = shield.run(_measure(probe, tuple(namespaces or ()), prometheus))
    except (PlatformError, ValueError) as error:
        raise ActivityFailed(str(error)) from error
    if bound is not None:
        return bool(series) and all(_seen(value) and bound.judge(value) for value in series.values())
    return series[""] if series.keys() == {""} else series


def _seen(value: Any) -> bool:
    """Whether a value is a measurement: NaN and what is infinite never meet a bound."""
    return not isinstance(value, float) or math.isfinite(value)


async def _measure(probe: Activity, namespaces: tuple[str, ...], prometheus: str) -> dict[str, Any]:
    from gameday.platform.kube import Kube
    from gameday.platform.prometheus import Prometheus
    from gameday.platform.slurm.client import Slurm
    from gameday.platform.slurm.transport import Via
    from gameday.platform.world import World
    from gameday.safety.installed import probe_of

    ((kind, spec),) = probe.items()
    asked = probe_of(kind)
    url = prometheus or os.environ.get("GAMEDAY_PROMETHEUS_URL", "")
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(await Kube.connect(None, os.environ.get("KUBERNETES_CONTEXT")))
        client = await stack.enter_async_context(Prometheus(url)) if url else None
        slurmrestd = os.environ.get("GAMEDAY_SLURM_URL", "")
        slurm = Slurm.of(Via(url=slurmrestd), kube) if slurmrestd else None
        world = World(kube, client, slurm, namespaces=namespaces)
        return dict((await asked.measure(asked.Spec.model_validate(spec), world)).series)


def _step(fault: Activity, hold: str) -> Activity:
    return {**fault, "for": hold} if hold else dict(fault)


def _document(name: str, spec: Activity) -> Activity:
    return {
        "apiVersion": "gameday.dev/v1alpha1",
        "kind": "Experiment",
        "metadata": {"name": name},
        "spec": {
            "title": "A fault for Chaos Toolkit",
            "steadyState": [ANSWERS],
            "abortIf": "none",  # that is for Chaos Toolkit's own controls
            **spec,
        },
    }


@atexit.register
def _put_back() -> None:
    """`chaos` ends without having undone what it held: its rollbacks did not come to it."""
    for name in list(_held):
        _held.pop(name).stop()
