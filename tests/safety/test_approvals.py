"""Who approved a plan is the API server's word: nobody approves in another one's name, nor another plan."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from gameday.experiment.quantity import parse_duration
from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import SIGNING_REQUESTS
from tests.e2e.experiments import SCALE, write
from tests.safety.test_effects import refused
from tests.safety.test_gate import keep, run
from tests.support.accounts import User, user
from tests.support.platforms import ROOT, Platform
from tests.support.program import Program
from tests.support.snapshot import Snapshot

STEP = {**SCALE, "for": "1s"}
APPROVER = yaml.safe_load((ROOT / "deploy" / "approvals.yaml").read_text())["rules"]
# Whoever runs game days may make ConfigMaps in gameday; this one may even make approvals.
# An approver makes the plan again, and so reads what it reads.
READING = {"apiGroups": ["", "apps", "autoscaling"], "resources": ["*"], "verbs": ["get", "list"]}
MAKING = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create", "patch"]}
APPROVER = [*APPROVER, READING]
RUNNER = [MAKING, *APPROVER]


@pytest.fixture
async def approver(platform: Platform, kube: Kube, tmp_path: Path) -> AsyncIterator[User]:
    async with user(platform, kube, tmp_path, "approver", APPROVER) as made:
        yield made


@pytest.fixture
async def runner(platform: Platform, kube: Kube, tmp_path: Path) -> AsyncIterator[User]:
    async with user(platform, kube, tmp_path, "runner", RUNNER) as made:
        yield made


@pytest.fixture(autouse=True)
async def no_approvals(kube: Kube) -> AsyncIterator[None]:
    yield
    for obj in await approvals(kube):
        await kube.delete(Ref.of(obj))


async def approvals(kube: Kube) -> list[Object]:
    found = await kube.list(SIGNING_REQUESTS)
    return [o for o in found if o["spec"]["signerName"].startswith("approval.gameday.dev/")]


async def approve(gameday: Program, kept: Path, who: User, *more: str) -> str:
    file = kept.with_name("experiment.yaml")
    said = await asyncio.to_thread(gameday, "approve", kept, file, "--yes", *more, env=who.env)
    assert said.code == 0, said.output
    assert f"approved by {who.name} until" in said.output
    return said.output


async def test_nobody_approves_in_another_ones_name(
    gameday: Program, kube: Kube, tmp_path: Path, approver: User, runner: User, world_unchanged: Snapshot
) -> None:
    """It was: whoever may create ConfigMaps in namespace gameday, as every run may, wrote who approved."""
    file = write(tmp_path, method=[STEP], approvals={"required": 1, "from": [approver.name]})
    kept = await keep(gameday, file)
    await approve(gameday, kept, runner)
    (own,) = await approvals(kube)
    digest = yaml.safe_load(kept.read_text())["digest"]
    spec = own["spec"] | {"username": approver.name, "groups": ["system:masters"], "uid": ""}
    async with await Kube.connect(runner.kubeconfig) as forger:
        await forger.create({**_bare(own), "metadata": {"name": "forged"}, "spec": spec})
        with_labels = {"gameday.dev/approval": digest[:16]}
        data = {"by": approver.name, "digest": digest, "until": "9999999999"}
        meta = {"name": "forged", "namespace": "gameday", "labels": with_labels}
        config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
        await forger.create(config_map)
    try:
        refused(
            await run(gameday, file, "--plan", kept),
            "1 approvals are required, approved by nobody",
            f"({runner.name} may not approve)",
        )
    finally:
        await kube.delete(Ref.of(config_map))
    await approve(gameday, kept, approver)
    ended = await run(gameday, file, "--plan", kept)
    assert ended.code == 0, ended.output


async def test_an_approval_is_not_made_over(
    gameday: Program, kube: Kube, tmp_path: Path, approver: User, runner: User, world_unchanged: Snapshot
) -> None:
    """Even who may change everything changes neither who approved nor what."""
    other = await keep(gameday, write(tmp_path, method=[{**STEP, "name": "another one"}]))
    await approve(gameday, other, approver)
    file = write(tmp_path, method=[STEP], approvals={"required": 1, "from": [approver.name]})
    kept = await keep(gameday, file)
    await approve(gameday, kept, runner)
    both = await approvals(kube)
    mine = next(o["spec"]["signerName"] for o in both if o["spec"]["username"] == runner.name)
    for obj in both:
        change = {"spec": {"username": approver.name, "signerName": mine}}
        with contextlib.suppress(ApiError):  # refused is as good as ignored
            await kube.patch(Ref.of(obj), change, "merge")
    ended = await run(gameday, file, "--plan", kept)
    refused(ended, "approved by nobody", f"({runner.name} may not approve)")


async def test_two_different_people_must_have_approved(
    gameday: Program, tmp_path: Path, approver: User, runner: User, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=[STEP], approvals={"required": 2})
    kept = await keep(gameday, file)
    await approve(gameday, kept, approver)
    await approve(gameday, kept, approver, "--for", "2h")
    refused(
        await run(gameday, file, "--plan", kept), f"2 approvals are required, approved by {approver.name}"
    )
    await approve(gameday, kept, runner)
    ended = await run(gameday, file, "--plan", kept)
    assert ended.code == 0, ended.output


async def test_no_approval_outlives_its_plan(
    gameday: Program, tmp_path: Path, approver: User, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=[STEP], approvals={"required": 1})
    kept = await keep(gameday, file, "--valid-for", "5m")
    await approve(gameday, kept, approver, "--for", "3h")
    ended = await run(gameday, file, "--plan", kept)
    assert ended.code == 0, ended.output
    told = next(e["message"] for e in ended.of("preflight") if e["check"] == "approvals")
    left = re.fullmatch(rf"plan \w+ is approved by {approver.name}, for (\S+) more", told)
    assert left, told
    assert parse_duration(left[1]) <= 300
    short = await asyncio.to_thread(gameday, "approve", kept, file, "--for", "1m", env=approver.env)
    assert short.code == 2
    assert "at least 10m" in short.output


async def test_who_runs_must_be_able_to_see_approvals(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The Role that is printed lets a run read them, and make none."""
    printed = await asyncio.to_thread(
        gameday, "rbac", write(tmp_path, method=[STEP], approvals={"required": 1}), stderr=False
    )
    assert printed.code == 0, printed.output
    rules = [r for made in yaml.safe_load_all(printed.output) for r in made.get("rules", ())]
    (rule,) = [r for r in rules if r["resources"] == [SIGNING_REQUESTS.plural]]
    assert rule["verbs"] == ["list"]


def _bare(obj: Object) -> Object:
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"]}
