"""An API server that refuses, stumbles or goes away in the middle: nothing is lost, nothing is left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.e2e.experiments import CORDON, SCALE, write
from tests.support.platforms import Platform
from tests.support.program import Program
from tests.support.proxy import ApiProxy
from tests.support.snapshot import Snapshot

SHORT = [{**SCALE, "for": "3s"}]
DEPLOYMENT = "deployments/job-queue-controller"
NODE = "nodes/gpu-0"


@pytest.fixture
def through(gameday: Program, api_proxy: ApiProxy) -> Program:
    """The program, with the proxy between it and the API server."""
    gameday.environment["KUBECONFIG"] = str(api_proxy.kubeconfig)
    return gameday


def test_the_api_server_goes_away_while_a_fault_is_in(
    through: Program, api_proxy: ApiProxy, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with through.started(write(tmp_path, method=SHORT)) as run:
        run.fault_is("in")
        api_proxy.cut()
        run.fault_is("undoing")
        run.until(lambda e: e["type"] == "probed" and e["state"] == "unreachable", "the probe says so")
        api_proxy.restore()
        ended = run.ended()
    assert ended.code == 0, ended.output
    assert {e["state"] for e in ended.of("audited")} == {"restored"}


def test_the_api_server_is_killed_and_comes_back(
    platform: Platform, gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(write(tmp_path, method=SHORT)) as run:
        run.fault_is("in")
        platform.stop_api()
        try:
            run.fault_is("undoing")
        finally:
            platform.start_api()
        ended = run.ended()
    assert {e["state"] for e in ended.of("audited")} == {"restored"}, ended.output
    assert ended.verdict in ("passed", "deviated"), ended.output


@pytest.mark.parametrize(
    ("status", "reason"), [(500, "InternalError"), (503, "ServiceUnavailable"), (429, "TooManyRequests")]
)
def test_reads_are_tried_again(
    status: int, reason: str, through: Program, api_proxy: ApiProxy, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    api_proxy.fail("GET", DEPLOYMENT, status, reason=reason, message="not now", times=3)
    ended = through.run(write(tmp_path, method=SHORT))
    assert ended.code == 0, ended.output


def test_a_conflict_is_resolved(
    through: Program, api_proxy: ApiProxy, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    api_proxy.fail(
        "PATCH", DEPLOYMENT, 409, reason="Conflict", message="the object has been modified", times=2
    )
    ended = through.run(write(tmp_path, method=SHORT))
    assert ended.code == 0, ended.output


def test_a_change_that_is_refused_ends_the_run_and_names_the_permission(
    through: Program, api_proxy: ApiProxy, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    message = 'nodes "gpu-0" is forbidden: User "x" cannot patch resource "nodes" in API group ""'
    api_proxy.fail("PATCH", NODE, 403, reason="Forbidden", message=message, times=100)
    ended = through.run(write(tmp_path, method=[{**CORDON, "for": "1s"}]))
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert 'cannot patch resource "nodes"' in ended.output


def test_an_undo_that_a_policy_refuses_is_said_at_once_and_tried_until_it_is_lifted(
    through: Program, api_proxy: ApiProxy, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The step waited two minutes for its fault to be out, without a word, and without a second attempt."""
    denied = "ValidatingAdmissionPolicy 'hands-off' with binding 'all' denied request: not on a Monday"
    refused = {"reason": "Invalid", "message": denied, "causes": [{"message": denied}]}
    with through.started(write(tmp_path, method=SHORT)) as run:
        run.fault_is("in")
        api_proxy.fail("PATCH", DEPLOYMENT, 422, times=1000, **refused)  # type: ignore[arg-type]
        run.until(lambda e: e["type"] == "warn" and denied in e["message"], "the refusal is said", within=30)
        assert not [e for e in run.events if e["type"] == "fault" and e["state"] in ("out", "failed")]
        api_proxy.relent()
        ended = run.ended()
    assert ended.code == 0, ended.output
    assert sum(denied in e["message"] for e in ended.of("warn")) == 1


def test_an_undo_that_fails_is_tried_again(
    through: Program, api_proxy: ApiProxy, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with through.started(write(tmp_path, method=SHORT)) as run:
        run.fault_is("in")
        api_proxy.fail(
            "PATCH", DEPLOYMENT, 500, reason="InternalError", message="etcd has no leader", times=3
        )
        ended = run.ended()
    assert ended.code == 0, ended.output


def test_credentials_that_are_not_accepted(
    through: Program, api_proxy: ApiProxy, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    api_proxy.fail("GET", ".", 401, reason="Unauthorized", message="Unauthorized", times=10_000)
    ended = through.run(write(tmp_path, method=SHORT))
    assert ended.code == 4, ended.output
    assert "credentials in the kubeconfig are not accepted" in ended.output


def test_a_drain_asks_again_where_a_namespace_ends(
    through: Program, api_proxy: ApiProxy, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """kubectl drain waits there; a 403 of another cause is a permission that is missing."""
    causes = [{"reason": "NamespaceTerminating", "message": "namespace training is being terminated"}]
    message = "pods is forbidden: because it is being terminated"
    api_proxy.fail("POST", "/eviction", 403, reason="Forbidden", message=message, causes=causes)
    drain = {
        "drain": {"nodes": {"selector": "nvidia.com/gpu.present=true", "pick": 2}, "deleteEmptyDirData": True}
    }
    radius = {"nodes": 2, "gpus": 16}
    ended = through.run(write(tmp_path, method=[{**drain, "for": "2s"}], blastRadius=radius))
    assert ended.code == 0, ended.output
    asked = [r for r in api_proxy.requests if "/eviction" in r]
    assert len(asked) > len(set(asked))


def test_watches_that_end_or_are_too_old_do_not_stop_a_drain(
    through: Program, api_proxy: ApiProxy, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    expired = "too old resource version"
    api_proxy.fail("GET", "pods.*watch=1", 410, reason="Expired", message=expired, times=2)
    drain = {
        "drain": {"nodes": {"selector": "nvidia.com/gpu.present=true", "pick": 2}, "deleteEmptyDirData": True}
    }
    radius = {"nodes": 2, "gpus": 16}
    with through.started(write(tmp_path, method=[{**drain, "for": "2s"}], blastRadius=radius)) as run:
        run.fault_is("injecting")
        api_proxy.end_connections()
        ended = run.ended()
    assert ended.code == 0, ended.output


def test_a_kind_that_the_cluster_does_not_serve(gameday: Program, tmp_path: Path) -> None:
    chaos = {
        "chaosMesh": {
            "kind": "NoSuchChaos",
            "spec": {"mode": "all", "selector": {"namespaces": ["platform"]}},
        }
    }
    ended = gameday.run(write(tmp_path, method=[chaos]))
    assert ended.code == 4, ended.output
    assert "NoSuchChaos" in ended.output


async def test_a_target_that_is_deleted_after_the_plan(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "passing", "namespace": "platform"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "passing"}},
            "template": {
                "metadata": {"labels": {"app": "passing"}},
                "spec": {"containers": [{"name": "c", "image": "example.com/c:1"}]},
            },
        },
    }
    await kube.create(manifest)
    scale = {"scale": {"workload": "deployment/passing", "namespace": "platform", "replicas": 0}}
    file, plan = write(tmp_path, method=[scale]), tmp_path / "plan.json"
    made = await asyncio.to_thread(gameday, "plan", file, "-o", plan)
    await kube.delete(Ref.of(manifest))
    assert made.code == 0, made.output
    ended = await asyncio.to_thread(gameday.run, file, "--plan", plan)
    assert (ended.code, ended.verdict) == (1, "deviated"), ended.output
    assert "Deployment platform/passing vanished since the plan" in ended.output
    assert not ended.of("change")
