"""Bad weather, a kind at a time: servers and networks, the process' surroundings, clocks, people, other runs.

A case says what happens around a run of several faults. Whatever it is, the run ends in time, with an exit
code that is true of the world, without a stack trace, and with nothing left, or with what is left named.
"""

from __future__ import annotations

import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.platforms import ROOT, Platform
from tests.support.slack import FakeSlack
from tests.support.threads import LoopThread
from tests.torture import catalogue
from tests.torture.catalogue import Case
from tests.torture.figures import Figures
from tests.torture.kills import OURS, Bench
from tests.torture.liar import LIES, Liar
from tests.torture.program import Ended, Running, TooLong
from tests.torture.storms import WAYS, CutOff, Storm
from tests.torture.wire import Fair

FAULTS = ("scale", "cordon", "taint", "quota", "istio", "nic", "gpu: deviceLoss")
ON_NODES = ("nic", "nic: mtu", "vf", "gpu: deviceLoss")
# passed, deviated, aborted, refused, interrupted: each says that everything is as before
RESTORED = {0: "passed", 1: "deviated", 3: "aborted", 4: "refused", 130: "interrupted"}
LEASE = 30.0  # seconds after which nobody holds a Lease that is not renewed
DEFECT = 70
STILL = "gameday recover removes it"  # what a run says that could not remove its own Lease or record


@dataclass
class Scene:
    """One case: the bench, the draw of the seed, and what was found wrong."""

    up: Platform
    bench: Bench
    draw: random.Random
    slow: bool = False
    wrong: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    refused: bool = False

    def chosen(self, *names: str) -> list[Case]:
        known = {case.name: case for case in catalogue.cases(self.bench.scratch)}
        return [known[name] for name in names]

    def file(self, *names: str, hold: str = "1s", **spec: Any) -> Path:
        """An experiment of several faults at the same time."""
        return catalogue.together(self.chosen(*(names or FAULTS)), self.bench.scratch, hold, **spec)

    def started(self, *names: str, hold: str = "30s", **spec: Any) -> Running:
        """A run over the line with all of its faults in force."""
        running = self.bench.program.run(self.file(*names, hold=hold, **spec))
        in_force = running.all_in(len(names or FAULTS))
        self.expect(in_force, f"the faults are in: {running._text()[-400:]}")
        return running

    def expect(self, holds: object, what: str) -> None:
        if not holds:
            self.wrong.append(f"not so: {what}")

    def judge(self, running: Running, *codes: int, within: float = 120.0) -> Ended | None:
        """Wait for the end of a run; its code must be true, and one of these if any are named."""
        try:
            ended = running.ended(within)
        except TooLong as error:
            self.wrong.append(str(error)[-500:])
            self.recover(running)
            return None
        self.sane(ended, *codes)
        self.refused |= ended.code == 4
        if codes:
            self.expect(ended.code in codes, f"it ends with {codes}, not {ended.code}: {ended.output[-400:]}")
        if ended.code in RESTORED:
            left = self.bench.left()
            if left and all(OURS in x for x in left) and STILL in ended.output:
                self.recover(running)  # as the run said
            else:
                self.left += [f"though {RESTORED[ended.code]}: {x}" for x in left[:4]]
        elif ended.code in (5, DEFECT) or ended.code < 0:
            self.recover(running)
        return ended

    def sane(self, ended: Ended, *also: int) -> None:
        """No stack trace, and an exit code that the README knows and that is no defect of ours."""
        self.expect(not ended.traced, f"no stack trace: {ended.output[-600:]}")
        known = ended.code < 0 or ended.code in (0, 1, 2, 3, 4, 5, 130, *also)
        self.expect(known, f"an exit code of the README, not {ended.code}: {ended.output[-400:]}")

    def recover(self, running: Running) -> None:
        """What a person does next: `gameday recover`; afterwards nothing may be left."""
        self.bench.wires.begin(Fair())
        if not running.name:
            return
        ended = self.bench.direct.recover(running)
        self.sane(ended)
        self.expect(ended.code == 0, f"recover restores: {ended.code} {ended.output[-400:]}")
        self.left += self.bench.left()[:4]

    def away(self) -> Any:
        """A process of another machine's: past the line, as a janitor is."""
        return self.bench.direct


Weather = Callable[[Scene], None]
QUICK: dict[str, Weather] = {}
SLOW: dict[str, Weather] = {}  # these wait for a Lease to run out, say


def weather(name: str, slow: bool = False) -> Callable[[Weather], Weather]:
    def register(case: Weather) -> Weather:
        (SLOW if slow else QUICK)[name] = case
        return case

    return register


# -- the API server ---------------------------------------------------------------------------------


def _storm(*ways: str, share: float = 0.2, at_once: bool = False) -> Weather:
    """From the start, or from the moment on at which the faults are to go in."""

    def case(scene: Scene) -> None:
        storm = Storm(ways, share, scene.draw, blows=at_once)
        scene.bench.wires.begin(storm)
        running = scene.bench.program.run(scene.file())
        if not at_once:
            running.until(lambda e: e["type"] == "phase" and e["phase"] == "method")
            storm.blows = True
        scene.judge(running)

    return case


for _way in WAYS:
    weather(f"API: {_way}")(_storm(_way))
weather("API: all of it")(_storm(*WAYS))
weather("API: all of it, from the start")(_storm(*WAYS, at_once=True))


@weather("API: a storm from the abort on")
def _storm_at_the_end(scene: Scene) -> None:
    storm = Storm(WAYS, 0.3, scene.draw, blows=False)
    scene.bench.wires.begin(storm)
    running = scene.started()
    storm.blows = True
    running.signal(signal.SIGINT)
    scene.judge(running)


def _refused(share: float) -> Weather:
    """Credentials are refused while programs are on nodes: by turns, or until the undo has met it."""

    def case(scene: Scene) -> None:
        storm = Storm(("401",), share, scene.draw, blows=False)
        scene.bench.wires.begin(storm)
        running = scene.started(*ON_NODES, hold="5s" if share < 1 else "60s")
        storm.blows = True
        if share == 1:
            waits = running.until(lambda e: e["type"] == "warn" and "still trying to undo" in e["message"])
            scene.expect(waits, f"the undo waits for credentials: {running._text()[-400:]}")
            storm.blows = False
        scene.judge(running)
        scene.expect(storm.met, "requests were refused")

    return case


weather("API: 401 by turns, programs on nodes")(_refused(0.2))
weather("API: nothing but 401, programs on nodes")(_refused(1))


@weather("API server killed and started again")
def _api_server(scene: Scene) -> None:
    running = scene.started(hold="2s")
    scene.up.stop_api()
    try:
        running.until(lambda e: e["type"] == "fault" and e["state"] == "undoing", 20)
    finally:
        scene.up.start_api()
    scene.judge(running)


@weather("etcd killed and started again")
def _etcd(scene: Scene) -> None:
    if scene.up._control_plane is None:
        return
    running = scene.started(hold="2s")
    scene.up._control_plane.signal(signal.SIGHUP)
    scene.judge(running)


@weather("cut off for longer than the Lease, while a janitor restores", slow=True)
def _cut_off(scene: Scene) -> None:
    fate = CutOff()
    scene.bench.wires.begin(fate)
    running = scene.started(hold="150s")
    fate.off = True
    scene.bench.wires.hang_up()
    _janitor_restores(scene, running)
    fate.off = False
    scene.judge(running, 1, 3, 5)


def _janitor_restores(scene: Scene, running: Running) -> None:
    """A janitor must find the run dead when its Lease has run out, and restore it."""
    janitor = scene.away().start("recover", "--watch")
    try:
        until = time.monotonic() + 3 * LEASE
        while scene.bench.left(0.0) and time.monotonic() < until:
            time.sleep(0.5)
        scene.expect(
            time.monotonic() < until, f"the janitor restores {running.name}: {janitor._text()[-400:]}"
        )
    finally:
        janitor.kill()


# -- Prometheus and Slack -----------------------------------------------------------------------------


def _spec(**more: Any) -> dict[str, Any]:
    query = {"name": "a query", "prometheus": "sum(torture)", "is": "== 1", "interval": "500ms"}
    blind = {"name": "blind", "prometheus": "sum(torture)", "is": "> 100", "interval": "500ms"}
    steady = {"steadyState": [{**query, "during": "ignore"}], "abortIf": [blind]}
    return {**steady, "recovery": {"within": "3s"}, **more}


def _lies(lie: str) -> tuple[Weather, Weather]:
    def from_the_start(scene: Scene) -> None:
        with _liar(lie) as liar:
            file = scene.file("cordon", hold="1s", **_spec())
            running = scene.bench.program.run(file, env={"GAMEDAY_PROMETHEUS_URL": liar.url})
            ended = scene.judge(running, *((3, 4) if lie != "honest" else (0,)))
            scene.refused |= ended is not None and ended.code == 4

    def while_it_is_in(scene: Scene) -> None:
        """An abort condition that can't be seen is not a condition that does not hold."""
        with _liar("honest") as liar:
            file = scene.file("cordon", hold="40s", **_spec())
            running = scene.bench.program.run(file, env={"GAMEDAY_PROMETHEUS_URL": liar.url})
            scene.expect(
                running.fault_is("in"), f"an honest Prometheus is believed: {running._text()[-400:]}"
            )
            liar.lie = lie
            scene.judge(running, 3, within=35)

    return from_the_start, while_it_is_in


@contextmanager
def _liar(lie: str) -> Iterator[Liar]:
    liar = Liar(lie)
    liar.start()
    try:
        yield liar
    finally:
        liar.stop()


for _lie in LIES[1:]:
    _start, _middle = _lies(_lie)
    weather(f"Prometheus: {_lie}, from the start")(_start)
    weather(f"Prometheus: {_lie}, while a fault is in")(_middle)


@weather("Slack gone in the middle")
def _slack(scene: Scene) -> None:
    thread, slack = LoopThread("slack"), FakeSlack()
    thread.call(slack.start())
    environment = {"SLACK_BOT_TOKEN": slack.token, "SLACK_API_URL": slack.url}
    file = scene.file("cordon", hold="1s", report={"slack": "#gpu-gamedays"})
    running = scene.bench.program.run(file, env=environment)
    scene.expect(running.fault_is("in"), "the fault is in")
    thread.call(slack.stop())
    scene.judge(running, 0, within=90)
    thread.close()


# -- the process and its surroundings ------------------------------------------------------------------


def _limited(limit: int, more: int) -> Weather:
    def case(scene: Scene) -> None:
        running = scene.started()
        now = _written(running) if limit == resource.RLIMIT_FSIZE else _memory(running)
        resource.prlimit(running.pid, limit, (now + more, now + more))
        running.signal(signal.SIGINT)
        scene.judge(running, *((130, 5, -9, DEFECT) if limit == resource.RLIMIT_AS else (130,)), within=60)

    return case


def _written(running: Running) -> int:
    folder = running.folder
    return max((f.stat().st_size for f in folder.iterdir() if f.is_file()), default=0) if folder else 0


def _memory(running: Running) -> int:
    pages = Path(f"/proc/{running.pid}/statm").read_text().split()[0]
    return int(pages) * resource.getpagesize()


weather("disk full")(_limited(resource.RLIMIT_FSIZE, 0))
weather("little memory left")(_limited(resource.RLIMIT_AS, 32 * 2**20))
weather("no memory left", slow=True)(_limited(resource.RLIMIT_AS, 2**20))


def _signalled(*signals: int, code: int = 130) -> Weather:
    def case(scene: Scene) -> None:
        running = scene.started()
        for number in signals:
            running.signal(number)
        scene.judge(running, code, within=60)

    return case


weather("SIGHUP")(_signalled(signal.SIGHUP))
weather("SIGTERM twice")(_signalled(signal.SIGTERM, signal.SIGTERM))
weather("SIGINT four times")(_signalled(*[signal.SIGINT] * 4))


@weather("stdout closed")
def _closed_pipe(scene: Scene) -> None:
    """As in `gameday run … | head`: whoever read the output is gone, and the run is not."""
    reports = scene.bench.scratch / f"piped-{time.monotonic_ns()}"
    reports.mkdir()
    command = [sys.executable, "-m", "gameday", "run", scene.file(hold="2s"), "--yes", "--reports", reports]
    environment = scene.bench.program.environment
    with subprocess.Popen(
        [str(c) for c in command],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read().decode(errors="replace")
        try:
            code = process.wait(90)
        except subprocess.TimeoutExpired:
            process.kill()
            scene.wrong.append("it does not end")
            return
    scene.expect("Traceback" not in said, f"no stack trace: {said[-500:]}")
    scene.expect(code in (0, 1, 3), f"an exit code that is true, not {code}: {said[-300:]}")
    left = scene.bench.left()
    scene.left += left[:4]
    names = [p.name for p in reports.iterdir()]
    if left and names:
        scene.away()("recover", "--run", names[0], "--force", "--reports", reports)


@weather("SIGSTOP for longer than the Lease, while a janitor restores", slow=True)
def _stopped(scene: Scene) -> None:
    running = scene.started(hold="150s")
    running.signal(signal.SIGSTOP)
    _janitor_restores(scene, running)
    running.signal(signal.SIGCONT)
    scene.judge(running, 1, 3, 5)


def _clock(step: str) -> Weather:
    """The janitor's clock is not the run's: who is alive does not depend on what time it is."""

    def case(scene: Scene) -> None:
        running = scene.started()
        janitor = _faked(scene, step, "recover")
        scene.expect(running.alive and running.fault_is("in"), "the run goes on")
        alive = [e for e in running.events() if e["type"] == "abort"]
        scene.expect(not alive, f"a janitor {step} leaves a run alone that is alive: {janitor}")
        scene.expect("Traceback" not in janitor, f"no stack trace: {janitor[-500:]}")
        running.signal(signal.SIGINT)
        scene.judge(running, 130)

    return case


def _faked(scene: Scene, step: str, *arguments: str) -> str:
    """What `gameday` says where the clock is another one, and the monotonic clock is not."""
    command = ["faketime", "-f", step, sys.executable, "-m", "gameday", *arguments]
    environment = scene.bench.direct.environment | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


if shutil.which("faketime"):
    weather("the janitor's clock an hour ahead")(_clock("+1h"))
    weather("the janitor's clock an hour behind")(_clock("-1h"))


@weather("killed, and the janitor's clock an hour behind", slow=True)
def _behind(scene: Scene) -> None:
    running = scene.started()
    running.kill()
    running.ended()
    deadline = time.monotonic() + 3 * LEASE
    while scene.bench.left(0.0) and time.monotonic() < deadline:
        _faked(scene, "-1h", "recover")
        time.sleep(2)
    scene.expect(not scene.bench.left(5.0), "a janitor whose clock is behind restores a run that is dead")


# -- other runs and other people -------------------------------------------------------------------------


@weather("two runs on one target")
def _two_runs(scene: Scene) -> None:
    file = scene.file("scale", "cordon", hold="2s")
    first = scene.bench.program.run(file)
    second = scene.bench.program.run(file)
    codes = []
    for running in (first, second):
        ended = running.ended()
        scene.sane(ended)
        codes.append(ended.code)
    scene.expect(set(codes) <= {0, 1, 3, 4}, f"one of them runs, or both one after the other: {codes}")
    scene.left += scene.bench.left()[:4]


@weather("three recoveries at once")
def _recoveries(scene: Scene) -> None:
    running = scene.started()
    running.kill()
    running.ended()
    several = [scene.away().start("recover", *running.named) for _ in range(3)]
    for each in several:
        scene.sane(each.ended())
    scene.recover(running)


@weather("recover, janitor and run undo at once")
def _all_at_once(scene: Scene) -> None:
    running = scene.started()
    several = [scene.away().start("recover", *running.named), scene.away().start("recover")]
    running.signal(signal.SIGINT)
    for each in several:
        scene.sane(each.ended())
    ended = running.ended()
    scene.sane(ended)
    scene.recover(running)


@weather("somebody changes the same field in between")
def _person(scene: Scene) -> None:
    """What a person set stays; it is reported as kept, and the rest is put back."""
    path = "/apis/apps/v1/namespaces/platform/deployments/job-queue-controller"
    running = scene.started("scale", "cordon", hold="3s", recovery={"within": "2s"})
    world, merge = scene.bench.world, "application/merge-patch+json"
    world.ask("PATCH", f"{path}?fieldManager=somebody", {"spec": {"replicas": 1}}, merge)
    ended = running.ended()
    scene.sane(ended)
    now = world.get(path)["spec"]["replicas"]
    scene.expect(now == 1, f"what somebody set stays: {now} replicas")
    told = [e for e in running.events() if e["type"] == "audited" and e["state"] == "kept"]
    scene.expect(told, "what was left to somebody is reported as kept")
    last: dict[str, Any] = next((e for e in reversed(running.events()) if e["type"] == "verdict"), {})
    scene.expect("everything was put back" not in str(last.get("reason")), f"the verdict says so: {last}")
    world.ask("PATCH", path, {"spec": {"replicas": 2}}, merge)
    scene.left += scene.bench.left()[:4]


@weather("somebody writes the same value in between")
def _same_value(scene: Scene) -> None:
    """A value that equals ours and is somebody's own is not ours to take back."""
    running = scene.started("cordon", hold="3s")
    world = scene.bench.world
    apply = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "gpu-0"},
        "spec": {"unschedulable": True},
    }
    path = "/api/v1/nodes/gpu-0"
    world.ask("PATCH", f"{path}?fieldManager=somebody&force=true", apply, "application/apply-patch+yaml")
    ended = running.ended()
    scene.sane(ended)
    scene.expect(world.get(path)["spec"].get("unschedulable"), "the cordon that somebody applied stays")
    body = {"spec": {"unschedulable": None}}
    world.ask("PATCH", path, body, "application/merge-patch+json")
    gone = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-0"}}
    world.ask("PATCH", f"{path}?fieldManager=somebody&force=true", gone, "application/apply-patch+yaml")
    scene.left += scene.bench.left()[:4]


@weather("namespace gameday deleted in the middle")
def _namespace(scene: Scene) -> None:
    running = scene.started(hold="4s")
    scene.bench.world.ask("DELETE", "/api/v1/namespaces/gameday")
    ended = running.ended()
    scene.sane(ended)
    _apart_from_our_namespace(scene)


@weather("namespace gameday deleted, and the run killed")
def _namespace_and_kill(scene: Scene) -> None:
    """The whole ledger is on disk: `gameday recover --from FOLDER` needs nothing else."""
    running = scene.started(hold="60s")
    scene.bench.world.ask("DELETE", "/api/v1/namespaces/gameday")
    running.kill()
    running.ended()
    ended = scene.away()("recover", "--from", running.folder)
    scene.sane(ended)
    scene.expect(ended.code == 0, f"recover --from restores: {ended.output[-400:]}")
    _apart_from_our_namespace(scene)


def _apart_from_our_namespace(scene: Scene) -> None:
    found = scene.bench.left()
    scene.left += [x for x in found if " gameday/" not in x and "Namespace gameday " not in x][:4]
    deadline = time.monotonic() + 60
    while scene.bench.world.get("/api/v1/namespaces/gameday") and time.monotonic() < deadline:
        state = scene.bench.world.get("/api/v1/namespaces/gameday")
        if not state.get("metadata", {}).get("deletionTimestamp"):
            break
        for kind in ("v1/namespaces/gameday/configmaps", "v1/namespaces/gameday/secrets"):
            for obj in scene.bench.world.get(f"/api/{kind}").get("items") or ():
                body = {"metadata": {"finalizers": None}}
                path = f"/api/{kind}/{obj['metadata']['name']}"
                scene.bench.world.ask("PATCH", path, body, "application/merge-patch+json")
        time.sleep(0.3)
    again = scene.bench.direct.run(scene.file("cordon", hold="0.3s")).ended()
    scene.expect(again.code == 0, f"the next run works: {again.output[-400:]}")
    if not scene.left:
        scene.bench.settle()


# -- all of it --------------------------------------------------------------------------------------------


def weathers(found: Figures, up: Platform, bench: Bench, until: float, *, slow: bool) -> None:
    """Every kind of weather, in an order of the seed's, again and again until the time is up."""
    draw = random.Random(found.seed)
    known = {**QUICK, **(SLOW if slow else {})}
    if not slow:
        why = "takes minutes: by hand, with a BUDGET of an hour"
        found.not_run |= {f"weather: {name}": why for name in SLOW}
    order = list(known)
    draw.shuffle(order)
    first = True
    while first or (slow and time.monotonic() < until):
        for name in order:
            if time.monotonic() > until:
                found.not_run.setdefault(f"weather: {name}", "the budget was over") if first else None
                continue
            _case(found, name, Scene(up, bench, random.Random(draw.random()), slow), known[name])
        first = False


def _case(found: Figures, name: str, scene: Scene, case: Weather) -> None:
    began = time.monotonic()
    scene.bench.wires.begin(Fair())
    try:
        case(scene)
    except (AssertionError, TooLong, OSError, subprocess.TimeoutExpired) as error:
        scene.wrong.append(f"{type(error).__name__}: {error}"[-600:])
    scene.bench.wires.begin(Fair())
    if scene.bench.left(0.0):
        scene.bench.mend()
    found.add(
        "weather",
        name,
        tuple(scene.left),
        tuple(scene.wrong),
        f"{time.monotonic() - began:.0f} s",
        scene.refused,
    )
    if scene.left or scene.wrong:
        print(f"  BROKEN {found.broken[-1][:900]}", flush=True)
