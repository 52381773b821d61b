"""Whatever becomes of the terminal, the disk and the session, a run is put back, and its exit code tells.

Real processes with real descriptors: pipes that break or are not read, streams closed before the start, a
limit on the size of files as a full disk (to a writer both are an error of write(2)).
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.e2e.experiments import CORDON, SCALE, write
from tests.support.packages import package
from tests.support.platforms import ROOT
from tests.support.polling import until
from tests.support.program import Program, read_events
from tests.support.snapshot import Snapshot

pytestmark = pytest.mark.sandbox_only("about the program's own output")

BOTH = [{"parallel": [SCALE, CORDON]}]
SHORT = [{**CORDON, "for": "1s"}]


class Process:
    """`gameday run`, with its descriptors in our hands."""

    def __init__(self, gameday: Program, file: Path, **options: Any) -> None:
        command = [sys.executable, "-m", "gameday", "run", file, "--yes", "--reports", gameday.reports]
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        self.process = subprocess.Popen(
            list(map(str, command)), cwd=ROOT, env=gameday.environment, **{**given, **options}
        )
        self._reports = gameday.reports

    @property
    def folder(self) -> Path:
        return next(self._reports.iterdir())

    def events(self) -> list[dict[str, Any]]:
        return read_events(self.folder) if self._reports.exists() and any(self._reports.iterdir()) else []

    def until(self, holds: Callable[[dict[str, Any]], bool], what: str) -> None:
        def seen() -> bool:
            found = any(map(holds, self.events()))
            assert found or self.process.poll() is None, f"it ended with {self.process.returncode}"
            return found

        until(seen, what, within=60)

    def fault_is_in(self) -> None:
        self.until(lambda e: e["type"] == "fault" and e["state"] == "in", "a fault is in")

    def limit(self, size: int) -> None:
        """No file of the process may grow beyond this size; RLIM_INFINITY lifts it."""
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size, hard))


@contextmanager
def started(gameday: Program, file: Path, **options: Any) -> Iterator[Process]:
    running = Process(gameday, file, **options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait()


def _states(events: list[dict[str, Any]]) -> set[str]:
    return {e["state"] for e in events if e["type"] == "audited"}


def test_the_reader_goes_away(gameday: Program, tmp_path: Path, world_unchanged: Snapshot) -> None:
    """As `gameday run | head -1`: the run goes on to its end, and leaves its report."""
    with started(gameday, write(tmp_path, method=SHORT)) as run:
        output = run.process.stdout
        assert output is not None
        assert output.readline()
        output.close()
        assert run.process.wait(120) == 0
    assert run.events()[-1]["verdict"] == "passed"
    assert (run.folder / "report.html").exists()


def test_nobody_reads_and_the_session_is_dropped(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The pipe is full before the first word, as behind a pager; then the connection is lost."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    with started(gameday, write(tmp_path, method=BOTH), stdout=writing, stderr=writing) as run:
        run.fault_is_in()
        run.process.send_signal(signal.SIGHUP)
        assert run.process.wait(60) == 130
    events = run.events()
    assert (events[-1]["verdict"], _states(events)) == ("interrupted", {"restored"})
    assert "SIGHUP" in events[-1]["reason"]
    os.close(reading)
    os.close(writing)


def _without_streams() -> None:
    """As `nohup gameday … >&- 2>&- <&-` leaves a program."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for fd in range(3):
        os.close(fd)


def test_no_streams_and_no_hangup(gameday: Program, tmp_path: Path, world_unchanged: Snapshot) -> None:
    options = {"stdin": None, "stdout": None, "stderr": None, "preexec_fn": _without_streams}
    gameday.environment |= {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    with started(gameday, write(tmp_path, method=SHORT), **options) as run:
        run.fault_is_in()
        run.process.send_signal(signal.SIGHUP)
        assert run.process.wait(120) == 0
    assert run.events()[-1]["verdict"] == "passed"


def test_the_disk_is_full_and_ctrl_c_works(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """No room from the moment the faults are in: everything goes back at once, and the exit code tells."""
    with started(gameday, write(tmp_path, method=BOTH)) as run:
        run.fault_is_in()
        run.limit(1)
        run.process.send_signal(signal.SIGINT)
        output, _ = run.process.communicate(timeout=60)
    text = output.decode()
    assert run.process.returncode == 130, text
    assert "events.jsonl can't be written" in text
    assert "interrupted" in text
    assert "was put back" in text
    assert "not everything" not in text
    assert "Traceback" not in text


def test_the_disk_is_full_for_a_while(gameday: Program, tmp_path: Path, world_unchanged: Snapshot) -> None:
    """What happened meanwhile is written as soon as there is room: the log has no hole."""
    with started(gameday, write(tmp_path, method=[{**SCALE, "for": "4s"}]), stderr=subprocess.PIPE) as run:
        run.fault_is_in()
        run.limit(1)
        output = run.process.stdout
        assert output is not None
        _read_until(output, "can't be written")
        run.limit(resource.RLIM_INFINITY)
        rest, errors = run.process.communicate(timeout=120)
    assert run.process.returncode == 0, rest.decode() + errors.decode()
    numbers = [e["seq"] for e in run.events()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert any("can be written again" in e.get("message", "") for e in run.events())
    assert (run.folder / "report.html").exists()


def _read_until(output: IO[bytes], what: str) -> None:
    for line in output:
        if what in line.decode():
            return
    raise AssertionError(f"it never said: {what}")


def test_no_change_without_room_to_write_it_down(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The disk is full before the first change: it is refused, and nothing was made."""
    step = {**CORDON, "for": "1s"}
    with started(gameday, write(tmp_path, method=[{"wait": "3s"}, step])) as run:
        run.until(lambda e: e.get("kind") == "wait", "the wait before the fault")
        run.limit(1)
        output, _ = run.process.communicate(timeout=60)
    assert run.process.returncode == 3, output.decode()
    assert "a change that can't be written down is not made" in output.decode()
    assert not [e for e in run.events() if e["type"] == "change"]


def test_what_a_run_leaves_is_its_owners_alone(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Whatever the umask says. And signs from elsewhere stay signs: markup in a reason breaks nothing."""
    with started(gameday, write(tmp_path, method=BOTH), preexec_fn=lambda: os.umask(0)) as run:
        run.fault_is_in()
        name = run.folder.name
        listed = gameday("status")
        assert name in listed.output
        asked = gameday("abort", name, "--reason", "[/red] [bold]stop\x1b[31m\u202e")
        assert asked.code == 0, asked.output
        output, _ = run.process.communicate(timeout=60)
    text = output.decode()
    assert run.process.returncode == 3, text
    assert "[/red] [bold]stop␛[31m<U+202E>" in text
    assert "\x1b" not in text
    files = [run.folder, *run.folder.rglob("*")]
    assert {p.name: oct(p.stat().st_mode & 0o077) for p in files if p.stat().st_mode & 0o077} == {}


@pytest.mark.parametrize(
    ("environment", "error"),
    [
        ({}, "ZeroDivisionError"),
        ({"ACME_INJECT": "int('many')"}, "ValueError"),  # as what an experiment gets wrong would be
        ({"ACME_INJECT": "open('/nowhere')"}, "FileNotFoundError"),  # as a broken connection would be
        ({"ACME_INJECT": "None", "ACME_OUT": "{}['state']"}, "KeyError"),
    ],
)
def test_a_defect_of_ours_has_an_exit_code_of_its_own(
    gameday: Program,
    defective: dict[str, str],
    tmp_path: Path,
    world_unchanged: Snapshot,
    environment: dict[str, str],
    error: str,
) -> None:
    """A fault from another package fails as only a defect does, with a change in force or just undone."""
    gameday.environment |= {**defective, **environment}
    method = [{"parallel": [CORDON, {"acmeDefect": {"nodes": ["gpu-2"]}, "for": "1s"}]}]
    with started(gameday, write(tmp_path, method=method, blastRadius={"nodes": 3, "gpus": 32})) as run:
        output, _ = run.process.communicate(timeout=120)
    text = output.decode()
    assert run.process.returncode == 70, text
    assert "Traceback" not in text
    verdict = run.events()[-1]
    assert (verdict["verdict"], verdict["exit_code"]) == ("defect", 70)
    assert "everything was put back" in verdict["reason"]
    assert error in (run.folder / "internal-error.txt").read_text()
    assert json.loads((run.folder / "report.json").read_text())["verdict"] == "defect"


def test_a_defect_in_any_command(gameday: Program, defective: dict[str, str]) -> None:
    environment = gameday.environment | {**defective, "ACME": "explode"}
    ended = subprocess.run(
        [sys.executable, "-m", "gameday", "schema"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 70, ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout
    trace = Path(ended.stderr.split("the trace is in ")[1].split(";")[0])
    assert "ZeroDivisionError" in trace.read_text()
    trace.unlink()
    trace.parent.rmdir()


@pytest.fixture
def defective(tmp_path: Path) -> dict[str, str]:
    """The environment of a process with a package whose fault has a defect."""
    return package(
        tmp_path / "packages", "acme_defect", DEFECT, "[gameday.faults]\nacmeDefect = acme_defect:Defect\n"
    )


DEFECT = '''
import os
from typing import Any, ClassVar

from pydantic import Field

from gameday.extend import Edit, Evidence, Fault, FaultPlan, Injected, Patch, Ref, Spec, Step, Victim, World


class DefectSpec(Spec):
    """Which nodes."""

    nodes: list[str] = Field(description="Names.")

    @classmethod
    def __get_pydantic_json_schema__(cls, *arguments: Any) -> Any:
        return super().__get_pydantic_json_schema__(*arguments) if os.environ.get("ACME") is None else 1 / 0


class Defect(Fault[DefectSpec]):
    """Cordons a node, and has a defect."""

    Spec: ClassVar = DefectSpec

    async def plan(self, spec: DefectSpec, world: World) -> FaultPlan[DefectSpec]:
        victims = tuple(Victim(Ref("v1", "Node", n), "node") for n in spec.nodes)
        return FaultPlan(spec, victims, changes=("cordon",), needs=("patch nodes",))

    async def inject(self, plan: FaultPlan[DefectSpec], step: Step) -> None:
        edit = Edit(("spec", "unschedulable"), True)
        await step.ledger.perform([await Patch.of(step.kube, v.ref, edit) for v in plan.victims])
        eval(os.environ.get("ACME_INJECT", "1 / 0"))

    async def settled(self, plan: FaultPlan[DefectSpec], injected: Injected, world: World) -> Evidence:
        node = await world.kube.get(plan.victims[0].ref)
        if node["spec"].get("unschedulable"):
            return Evidence("in")
        return eval(os.environ.get("ACME_OUT", "Evidence('out')"))
'''
