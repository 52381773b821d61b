"""A plan's file is the word of whoever wrote it: only what comes of its experiment is put before people."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.resources import SIGNING_REQUESTS
from gameday.safety.plan import digest_of
from tests.e2e.experiments import SCALE, write
from tests.e2e.test_outside_package import Elsewhere
from tests.safety.test_gate import keep, run
from tests.support.packages import package
from tests.support.program import Program
from tests.support.slack import FakeSlack
from tests.support.snapshot import Snapshot

ON_SLURM = """
from typing import ClassVar

from gameday.extend import Evidence, Fault, FaultPlan, Spec


class AskSpec(Spec):
    job: str


class Ask(Fault[AskSpec]):
    '''Asks Slurm, and nobody else.'''
    Spec: ClassVar = AskSpec
    example: ClassVar = "acmeAsk: {job: trainer}"
    needs_slurm: ClassVar = True
    instant: ClassVar = True

    async def plan(self, spec, world):
        return FaultPlan(spec, (), changes=("a question",))

    async def inject(self, plan, step):
        step.record(jobs=len(await step.world.slurm.jobs()))

    async def settled(self, plan, injected, world):
        return Evidence("in")
"""
CORDON = {"cordon": {"nodes": {"names": ["gpu-0"]}}, "for": "1s"}


def forge(kept: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a plan as somebody does who knows how its digest is made."""
    data = json.loads(kept.read_text())
    del data["digest"]
    change(data)
    kept.write_text(json.dumps({**data, "digest": digest_of(data)}))


def _words(data: dict[str, Any]) -> None:
    data["steps"][0]["changes"] = ["nothing is changed: the replicas are read"]


def _node(data: dict[str, Any]) -> None:
    data["steps"] = json.loads(json.dumps(data["steps"]).replace("gpu-0", "gpu-5"))


def _more(data: dict[str, Any]) -> None:
    data["steps"][0]["effects"] += [{"kind": "other", "ref": data["steps"][0]["victims"][0]["ref"]}]


def _details(data: dict[str, Any]) -> None:
    data["steps"][0]["data"]["already"] = ["gpu-0"]


def _coming(data: dict[str, Any]) -> None:
    for effect in data["steps"][0]["effects"]:
        if effect["kind"] == "pod":  # as if they came with a node, and so were not bounded
            effect |= {"comes": True}
            effect.pop("ends", None)


KILL = {"podKill": {"selector": "app=inference", "namespace": "inference", "pick": 1}, "for": "1s"}


async def test_pods_that_are_counted_otherwise_are_no_less_another_plan(
    gameday: Program, tmp_path: Path
) -> None:
    """The blast radius counts by how pods are lost, so that approvers compare it, too."""
    file = write(tmp_path, method=[KILL], approvals={"required": 1})
    kept = await keep(gameday, file)
    forge(kept, _coming)
    said = await asyncio.to_thread(gameday, "approve", kept, file, "--yes")
    assert said.code == 4, said.output
    assert "not approved: step 1: a pod in inference" in said.output


@pytest.mark.parametrize("change", [_words, _node, _more, _details])
async def test_a_plan_that_says_something_else_is_not_approved(
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
    change: Callable[[dict[str, Any]], None],
) -> None:
    file = write(tmp_path, method=[CORDON], approvals={"required": 1})
    kept = await keep(gameday, file)
    forge(kept, change)
    said = await asyncio.to_thread(gameday, "approve", kept, file, "--yes")
    assert said.code == 4, said.output
    assert "not approved: step 1: " in said.output
    assert "make the plan again" in " ".join(said.output.split())
    found = await kube.list(SIGNING_REQUESTS)
    assert not [o for o in found if o["spec"]["signerName"].startswith("approval.gameday.dev/")]


async def test_nobody_is_asked_in_slack_for_such_a_plan(
    gameday: Program, tmp_path: Path, slack: FakeSlack, world_unchanged: Snapshot
) -> None:
    approvals = {"required": 1, "from": ["slack:U0ALICE"], "slack": "#gpu-gamedays", "within": "5m"}
    file = write(tmp_path, method=[CORDON], approvals=approvals)
    kept = await keep(gameday, file)
    forge(kept, _words)
    environment = {"SLACK_BOT_TOKEN": slack.token, "SLACK_APP_TOKEN": slack.token, "SLACK_API_URL": slack.url}
    ended = await asyncio.to_thread(gameday.run, file, "--plan", kept, env=environment)
    assert ended.code == 4, ended.output
    assert "and the plan says" in " ".join(ended.output.split())
    assert not slack.called("chat.postMessage")


async def test_who_approves_reads_the_plan_first(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Without a terminal nobody says yes."""
    file = write(tmp_path, method=[CORDON], approvals={"required": 1})
    kept = await keep(gameday, file)
    said = await asyncio.to_thread(gameday, "approve", kept, file)
    assert said.code == 4, said.output
    assert "cordon on gpu-0" in said.output
    assert "not approved" in said.output


async def test_a_plan_is_for_the_slurm_that_it_was_made_with(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    step = {"slurm": {"drain": {"names": ["gpu-0"]}}, "for": "1s"}
    file = write(tmp_path, method=[step, {**SCALE, "for": "1s"}])
    kept = await keep(gameday, file)
    ended = await asyncio.to_thread(
        gameday.run, file, "--plan", kept, env={"GAMEDAY_SLURM_URL": "http://127.0.0.1:9"}
    )
    assert ended.code == 4, ended.output
    assert "the plan was made for Slurm at" in " ".join(ended.output.split())
    other = await run(gameday, file, "--plan", kept)
    assert other.code == 0, other.output


async def test_a_plan_of_another_packages_fault_is_for_the_slurm_that_it_was_made_with(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The address of another Slurm is here another name of the same one, so that nothing else refuses it."""
    entries = "[gameday.faults]\nacmeAsk = acme_ask:Ask\n"
    acme = Elsewhere(gameday.platform, tmp_path, Path(sys.executable))
    acme.environment |= package(tmp_path / "installed", "acme_ask", ON_SLURM, entries)
    file = write(tmp_path, method=[{"acmeAsk": {"job": "trainer"}}])
    kept = await keep(acme, file)
    url = acme.environment["GAMEDAY_SLURM_URL"]
    other = {"GAMEDAY_SLURM_URL": url.replace("127.0.0.1", "localhost")}
    assert other["GAMEDAY_SLURM_URL"] != url
    ended = await asyncio.to_thread(acme.run, file, "--plan", kept, env=other)
    assert ended.code == 4, ended.output
    assert "the plan was made for Slurm at" in " ".join(ended.output.split())
    same = await run(acme, file, "--plan", kept)
    assert same.code == 0, same.output
