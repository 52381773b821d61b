"""A package outside this one adds a fault with an operation of its own, is killed in force, and recovered."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.e2e.experiments import CORDON, write
from tests.support.packages import package
from tests.support.platforms import ROOT, Platform
from tests.support.polling import until
from tests.support.program import Program
from tests.support.snapshot import Snapshot
from tests.support.wheels import environment_with

FLAGS = Ref("v1", "ConfigMap", "shop", "platform")
FLAG = {
    "acmeFlag": {"service": "shop", "namespace": "platform", "flag": "cache", "value": False},
    "for": "30s",
}


class Elsewhere(Program):
    """`gameday` in another Python environment."""

    def __init__(self, platform: Platform, folder: Path, python: Path) -> None:
        super().__init__(platform, folder)
        self.python = python

    def _start(
        self,
        arguments: Sequence[Any],
        env: Mapping[str, str] | None,
        output: Path,
        errors: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        command = [str(self.python), "-m", "gameday", *map(str, arguments)]
        environment = {**self.environment, **(env or {})}
        with output.open("wb") as out:
            return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment in which the package is installed."""
    return environment_with(tmp_path_factory.mktemp("outside") / "venv", ROOT / "tests/outside_package")


@pytest.fixture
def acme(python: Path, platform: Platform, tmp_path: Path) -> Elsewhere:
    return Elsewhere(platform, tmp_path, python)


@pytest.fixture
async def flags(kube: Kube) -> AsyncIterator[None]:
    """What acme has in the cluster."""
    meta = {"name": FLAGS.name, "namespace": FLAGS.namespace}
    data = {"flags.json": json.dumps({"cache": True, "search": True})}
    await kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
    yield
    await kube.delete(FLAGS)


async def switched(kube: Kube) -> dict[str, bool]:
    found = await kube.get(FLAGS)
    return dict(json.loads(found["data"]["flags.json"]))


def killed_in_force(acme: Elsewhere, folder: Path) -> str:
    """A run that died with both faults in force; its name."""
    with acme.started(write(folder, method=[{"parallel": [FLAG, CORDON]}])) as run:
        until(lambda: {e["step"] for e in run.events if e.get("state") == "in"} == {"1.1", "1.2"}, "both in")
        return run.kill()


async def test_killed_in_force_and_recovered_by_a_process_with_the_package(
    acme: Elsewhere, kube: Kube, world_unchanged: Snapshot, flags: None, tmp_path: Path
) -> None:
    run = killed_in_force(acme, tmp_path)
    assert await switched(kube) == {"cache": False, "search": True}
    theirs = {"data": {"flags.json": json.dumps({"cache": False, "search": False})}}
    await kube.patch(FLAGS, theirs, "merge")  # somebody switches another flag of the same text
    recovered = acme("recover", "--run", run, "--force")
    assert recovered.code == 0, recovered.output
    assert await switched(kube) == {"cache": True, "search": False}
    assert "nothing is in force" in acme("status").output


async def test_without_the_package_its_name_is_told_and_the_rest_restored(
    acme: Elsewhere, gameday: Program, kube: Kube, world_unchanged: Snapshot, flags: None, tmp_path: Path
) -> None:
    run = killed_in_force(acme, tmp_path)
    for _ in range(2):  # what can't be read is kept for who can
        recovered = gameday("recover", "--run", run, "--force")
        assert recovered.code == 5, recovered.output
        words = " ".join(recovered.output.split())
        assert "of the package acme-gameday 1.0, which is not installed here" in words
        assert not (await kube.get(Ref("v1", "Node", "gpu-0")))["spec"].get("unschedulable")
        assert await switched(kube) == {"cache": False, "search": True}
    assert acme("recover", "--run", run, "--force").code == 0
    assert await switched(kube) == {"cache": True, "search": True}


def test_its_fault_is_listed_and_validated_like_ours(acme: Elsewhere, tmp_path: Path) -> None:
    assert "acmeFlag" in acme("faults").output
    assert acme("validate", write(tmp_path, method=[FLAG])).code == 0
    wrong = acme("validate", write(tmp_path, method=[{"acmeFlag": {"service": "shop"}, "for": "1s"}]))
    assert wrong.code == 2, wrong.output
    assert "namespace" in wrong.output


async def test_its_check_refuses_a_run(acme: Elsewhere, kube: Kube, flags: None, tmp_path: Path) -> None:
    await kube.patch(FLAGS, {"metadata": {"annotations": {"acme.example/frozen": "a sale is on"}}}, "merge")
    refused = acme.run(write(tmp_path, method=[FLAG]))
    assert refused.code == 4, refused.output
    assert "are frozen: a sale is on" in " ".join(refused.output.split())
    assert await switched(kube) == {"cache": True, "search": True}


async def test_a_check_that_cannot_be_loaded_refuses_too(
    gameday: Program, kube: Kube, tmp_path: Path
) -> None:
    """Nobody knows what it would have said. Restoring asks no checks."""
    env = package(tmp_path / "packages", "acme_gate", "", "[gameday.checks]\nacme-gate = acme_gate:check\n")
    refused = Elsewhere(gameday.platform, tmp_path, Path(sys.executable)).run(
        write(tmp_path, method=[CORDON]), env=env
    )
    assert refused.code == 4, refused.output
    assert "No module named 'acme_gate'" in refused.output
    assert "mend that package, or uninstall it" in " ".join(refused.output.split())


BRITTLE = """
import os
from gameday.extend import Evidence, Fault, FaultPlan, ObjectName, Ref, Spec, Victim

class BrittleSpec(Spec):
    node: ObjectName

class Brittle(Fault[BrittleSpec]):
    Spec = BrittleSpec

    async def plan(self, spec, world):
        return FaultPlan(spec, (Victim(Ref.of(await world.kube.get(Ref("v1", "Node", spec.node))), "node"),))

    async def effects(self, plan, world):
        return {}[os.environ["BRITTLE"]] if "BRITTLE" in os.environ else ()

    async def inject(self, plan, step): ...

    async def settled(self, plan, injected, world):
        return Evidence("out")
"""


def test_a_defect_of_a_fault_is_no_damage_of_the_kept_plan(platform: Platform, tmp_path: Path) -> None:
    """Whoever kept the plan did nothing wrong: the trace says where to look."""
    gameday = Elsewhere(platform, tmp_path, Path(sys.executable))
    entries = "[gameday.faults]\nbrittle = brittle:Brittle\n"
    gameday.environment |= package(tmp_path / "packages", "brittle", BRITTLE, entries)
    file, kept = write(tmp_path, method=[{"brittle": {"node": "gpu-0"}, "for": "1s"}]), tmp_path / "plan.json"
    planned = gameday("plan", file, "-o", kept)
    assert planned.code == 0, planned.output
    ended = gameday.run(file, "--plan", kept, env={"BRITTLE": "the missing key"})
    assert ended.code == 70, ended.output
    assert "the plan was changed" not in ended.output
    assert ended.folder is not None
    assert "the missing key" in (ended.folder / "internal-error.txt").read_text()
    assert not ended.of("change")
