"""`gameday run --as-run-identity`: each run is a user of its own, with the rights that it needs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gameday.events import Event
from gameday.ledger.operations import RUN_LABEL
from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.platform.permission import Permission
from gameday.safety.identity import RunIdentity
from tests.e2e.experiments import SCALE, write
from tests.support.accounts import ACCOUNTS, config_of, token
from tests.support.ledgers import unguarded
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.program import Program, Running
from tests.support.snapshot import Snapshot
from tests.torture.catalogue import cases

CORDON = {"cordon": {"nodes": {"names": ["gpu-0"]}}, "for": "1s"}
METHOD: list[dict[str, Any]] = [CORDON, {**SCALE, "for": "1s"}]
FLAG = "--as-run-identity"


@pytest.fixture
def rbac(platform: Platform) -> None:
    """An API server that denies what no Role allows."""
    if platform.name == "sandbox":
        pytest.skip("the embedded API lets everybody do everything")


@asynccontextmanager
async def cordoned(gameday: Program, folder: Path) -> AsyncIterator[tuple[Running, str]]:
    """A run with an identity of its own, whose cordon of gpu-0 is in; and the name of its account."""
    with gameday.started(write(folder, method=[{**CORDON, "for": "60s"}]), FLAG) as running:
        await asyncio.to_thread(running.fault_is, "in")
        yield running, f"gameday-{running.events[0]['run']}"


async def none_left(kube: Kube) -> None:
    assert [a["metadata"]["name"] for a in await kube.list(ACCOUNTS, "gameday", labels=RUN_LABEL)] == []


async def test_everything_is_done_as_its_own_user(
    platform: Platform, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=METHOD)
    ended = await asyncio.to_thread(gameday.run, file, FLAG)
    assert ended.code == 0, ended.output
    told = next(e["message"] for e in ended.of("preflight") if e["check"] == "identity")
    assert f"done as system:serviceaccount:gameday:gameday-{ended.of('run-started')[0]['run']}" in told
    assert {e["state"] for e in ended.of("audited")} == {"restored"}
    made = [e["object"] for e in ended.of("change") if e["step"] == "identity" and e["state"] == "made"]
    assert {o.split()[0] for o in made} >= {"ServiceAccount", "Role", "ClusterRole", "RoleBinding"}
    await none_left(kube)


@pytest.mark.parametrize("name", ["drain", "vf", "chaosMesh", "argocd: rollback"])
async def test_faults_have_all_the_rights_that_they_need(
    platform: Platform,
    rbac: None,
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    name: str,
    world_unchanged: Snapshot,
) -> None:
    """As of budgets that a drain asks for late, a binding whose Role is new, and what observing watches."""
    (case,) = [c for c in cases(tmp_path) if c.name == name]
    ended = await asyncio.to_thread(gameday.run, case.write(tmp_path), FLAG)
    assert ended.code == 0, ended.output
    assert "forbidden" not in ended.output
    await none_left(kube)


async def test_who_started_it_changes_nothing_but_the_identity(
    platform: Platform, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Each patch of a node by whoever starts the run fails; the run's own user does not notice."""
    if platform.name != "sandbox":
        pytest.skip("only the sandbox fails requests by their user")
    failures = f"{platform.api_url}/sandbox/failures"
    match = {"user": "gameday", "verb": "patch", "path": "/nodes/"}
    async with aiohttp.ClientSession() as session:
        async with session.put(failures, json={"match": match, "status": 418, "count": 0}) as answer:
            assert answer.status < 300, await answer.text()
        try:
            file = write(tmp_path, method=[CORDON])
            ours = await asyncio.to_thread(gameday.run, file)
            own = await asyncio.to_thread(gameday.run, file, FLAG)
        finally:
            await session.delete(failures)
    assert ours.code not in (0, 4), ours.output
    assert own.code == 0, own.output


async def test_its_token_is_denied_one_node_further(
    platform: Platform, rbac: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with cordoned(gameday, tmp_path) as (running, name):
        config = tmp_path / "its.kubeconfig"
        config.write_text(json.dumps(config_of(platform, await token(kube, name, "gameday"))))
        async with await Kube.connect(config) as its:
            body = [{"op": "test", "path": "/kind", "value": "Node"}]
            await its.dry_patch(Ref("v1", "Node", "gpu-0"), body)
            for further in (
                Ref("v1", "Node", "gpu-1"),
                Ref("v1", "Secret", "any", "kube-system"),
                Ref("v1", "Secret", "gameday-slack", "gameday"),
                Ref("v1", "ConfigMap", "gameday-lever", "gameday"),
                Ref("coordination.k8s.io/v1", "Lease", "gameday-other", "gameday"),
            ):
                with pytest.raises(ApiError) as denied:
                    await its.dry_patch(further, body)
                assert denied.value.status == 403
                assert name in denied.value.message
            ended = await _abort(gameday, running)
            assert ended.code == 3, ended.output
            with pytest.raises(ApiError) as gone:
                await its.get(Ref("v1", "Node", "gpu-0"))
            assert gone.value.status in (401, 403)  # by its account, or by its Roles, which went with it
    await none_left(kube)


async def test_its_role_names_what_its_run_keeps(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Neither the Secrets of the namespace, nor the lever, the policy, or what other runs keep."""
    async with cordoned(gameday, tmp_path) as (running, name):
        role = await kube.get(Ref("rbac.authorization.k8s.io/v1", "Role", name, "gameday"))
        await _abort(gameday, running)
    kept = [r for r in role["rules"] if {*r["resources"]} & {"configmaps", "leases", "secrets"}]
    assert not [r for r in kept if "secrets" in r["resources"]]
    assert {v for r in kept if "resourceNames" not in r for v in r["verbs"]} == {"create"}
    named = [(v, n) for r in kept for v in r["verbs"] for n in r.get("resourceNames", ())]
    assert {n for v, n in named if v not in ("get", "list", "watch")} == {name}
    assert {n for _, n in named} == {name, "gameday-lever", "gameday-policy"}


async def test_a_killed_run_leaves_no_identity(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    async with cordoned(gameday, tmp_path) as (running, _):
        run = running.kill()
    assert len(await kube.list(ACCOUNTS, "gameday", labels=f"{RUN_LABEL}={run}")) == 1
    recovered = await asyncio.to_thread(gameday, "recover", "--run", run)
    assert recovered.code == 0, recovered.output
    await none_left(kube)


async def test_rights_that_are_taken_away_keep_nothing_in_force(
    rbac: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """What its own user may not undo any more is undone by whoever started the run."""
    async with cordoned(gameday, tmp_path) as (running, name):
        await kube.delete(Ref("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", name))
        ended = await _abort(gameday, running)
    undone = [e for e in ended.of("change") if e["state"] == "undone"]
    assert "Node gpu-0" in {e["object"] for e in undone}, ended.output
    assert not [e for e in ended.of("audited") if e["state"] == "left"], ended.output
    node = await kube.get(Ref("v1", "Node", "gpu-0"))
    assert not node["spec"].get("unschedulable")
    await none_left(kube)


async def test_a_lease_that_it_may_not_renew_keeps_nothing_in_force(
    platform: Platform, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Whoever started the run renews it then, answers the abort, and puts everything back at once."""
    node = Ref("v1", "Node", "gpu-0")
    async with cordoned(gameday, tmp_path) as (running, name), unrenewed(platform, kube, name):
        said = await asyncio.to_thread(gameday, "abort", running.events[0]["run"])
        await eventually(lambda: kube.get(node), lambda found: not found["spec"].get("unschedulable"))
        ended = await asyncio.to_thread(running.ended)
    assert said.code == 0, said.output
    assert ended.code == 3, ended.output
    assert not [e for e in ended.of("audited") if e["state"] == "left"], ended.output
    await none_left(kube)


@asynccontextmanager
async def unrenewed(platform: Platform, kube: Kube, name: str) -> AsyncIterator[None]:
    """While it lasts, a run's own user may not patch Leases."""
    if platform.name != "sandbox":
        role = Ref("rbac.authorization.k8s.io/v1", "Role", name, "gameday")
        rules = (await kube.get(role))["rules"]
        left = [
            r | {"verbs": [v for v in r["verbs"] if v != "patch"]} if "leases" in r["resources"] else r
            for r in rules
        ]
        await kube.patch(role, {"rules": left}, "merge")
        yield
        return
    denials = f"{platform.api_url}/sandbox/denials"
    user = f"system:serviceaccount:gameday:{name}"
    async with aiohttp.ClientSession() as session:
        denial = {"user": user, "verb": "patch", "resource": "leases"}
        async with session.put(denials, json=denial) as answer:
            assert answer.status < 300, await answer.text()
        try:
            yield
        finally:
            await session.delete(denials)


async def test_activities_have_no_part_in_it(
    platform: Platform, gameday: Program, tmp_path: Path, kube: Kube, world_unchanged: Snapshot
) -> None:
    """An activity asks the cluster by itself, with the credentials of whoever runs it."""
    activity = {
        "type": "action",
        "name": "nothing",
        "provider": {"type": "process", "path": "true"},
    }
    file = write(tmp_path, method=[{"chaostoolkit": activity}], blastRadius={"others": ["nothing"]})
    ended = await asyncio.to_thread(gameday.run, file, FLAG)
    assert ended.code == 4, ended.output
    assert "asks the cluster by itself" in " ".join(ended.output.split())
    await none_left(kube)


async def test_the_token_is_renewed_before_it_ends(
    platform: Platform, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    if platform.name == "sandbox":
        pytest.skip("the sandbox's tokens never end")
    heard: list[Event] = []
    async with await Kube.connect(platform.kubeconfig) as client:
        ledger = unguarded(client, "renewed", tmp_path, {}, heard.append)
        identity = RunIdentity(client, "renewed", [Permission.parse("get nodes - gpu-0")])
        await identity.assume(ledger, heard.append)
        first = await _value(identity)
        keeping = asyncio.create_task(identity.keep(heard.append, at=1e-4))
        await eventually(lambda: _value(identity), lambda now: now != first)
        keeping.cancel()
        await client.get(Ref("v1", "Node", "gpu-0"))
        with pytest.raises(ApiError) as denied:
            await client.get(Ref("v1", "Node", "gpu-1"))
        assert denied.value.status == 403
        # A token that is refused is fetched again, whatever the clock says.
        assert client._acting is not None
        client._acting._api.configuration.api_key["BearerToken"] = "Bearer nobody"
        await client.get(Ref("v1", "Node", "gpu-0"))
        await identity.close()
        audits = await ledger.restore()
        assert {a.state for a in audits} == {"restored"}
        await ledger.close(restored=True)
    await none_left(kube)


async def _value(identity: RunIdentity) -> str | None:
    return identity._token.token if identity._token else None


async def _abort(gameday: Program, running: Any) -> Any:
    said = await asyncio.to_thread(gameday, "abort", running.events[0]["run"])
    assert said.code == 0, said.output
    return await asyncio.to_thread(running.ended)
