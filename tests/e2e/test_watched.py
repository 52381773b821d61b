"""A run whose view is taken away: what can't be seen is not healthy, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.e2e.experiments import REPLICAS, SCALE, write
from tests.support.program import Program
from tests.support.promlike import PrometheusLike
from tests.support.proxy import ApiProxy
from tests.support.snapshot import Snapshot
from tests.support.threads import LoopThread

pytestmark = pytest.mark.sandbox_only("about answers of the tests' own proxy")

LOGIN = "<html><body>Please log in</body></html>"
ONE = b'{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}'
NOTHING = b'{"status":"success","data":{"resultType":"vector","result":[]}}'
INFERENCE = {
    "name": "inference is available",
    "kubernetes": {"resource": "deployment/inference", "namespace": "inference", "condition": "Available"},
    "is": True,
    "during": "ignore",
    "interval": "500ms",
}
STOP = {
    "name": "somebody says stop",
    "kubernetes": {"resource": "configmaps", "namespace": "platform", "selector": "stop=yes", "count": True},
    "is": "> 0",
    "interval": "500ms",
}
FLAG = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "stop", "namespace": "platform", "labels": {"stop": "yes"}},
}


@pytest.fixture
def through(gameday: Program, api_proxy: ApiProxy) -> Program:
    """The program, with the proxy between it and the API server."""
    gameday.environment["KUBECONFIG"] = str(api_proxy.kubeconfig)
    return gameday


@pytest.fixture
def prometheus(gameday: Program) -> Iterator[PrometheusLike]:
    """What answers as a Prometheus does, until it lies."""
    thread, fake = LoopThread("prometheus"), PrometheusLike()
    fake.lie = ONE
    thread.call(fake.start())
    gameday.environment["GAMEDAY_PROMETHEUS_URL"] = fake.url
    yield fake
    thread.call(fake.stop())
    thread.close()


async def test_a_page_instead_of_an_answer_blinds_no_other_check(
    through: Program, api_proxy: ApiProxy, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=[SCALE], steadyState=[REPLICAS, INFERENCE], abortIf=[STOP])
    with through.started(file) as run:
        await asyncio.to_thread(run.fault_is, "in")
        api_proxy.answer_page("GET", "deployments/inference", LOGIN, times=1000)
        await asyncio.to_thread(
            run.until, lambda e: e["type"] == "probed" and e["state"] == "unreachable", "the page is read"
        )
        await kube.create(FLAG)
        try:
            ended = await asyncio.to_thread(run.ended)
        finally:
            await kube.delete(Ref.of(FLAG))
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert "somebody says stop: 1 is > 0" in ended.output


def test_a_page_instead_of_an_answer_is_never_steady_again(
    through: Program, api_proxy: ApiProxy, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    method = [{**SCALE, "for": "1s"}]
    file = write(tmp_path, method=method, steadyState=[INFERENCE], recovery={"within": "4s"}, abortIf="none")
    with through.started(file) as run:
        run.fault_is("undoing")
        api_proxy.answer_page("GET", "deployments/inference", LOGIN, times=1000)
        ended = run.ended()
    assert (ended.code, ended.verdict) == (1, "deviated"), ended.output
    assert "inference is available: could not be asked" in ended.output


def test_an_abort_condition_that_loses_its_data_aborts(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """At 0 replicas there is no series left that could be below its bound."""
    condition = {
        "name": "the queue is going down",
        "prometheus": 'sum(kube_deployment_status_replicas_available{deployment="job-queue-controller"} > 0)',
        "is": "< 1",
        "interval": "500ms",
    }
    ended = gameday.run(write(tmp_path, method=[SCALE], abortIf=[condition]))
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert "blind: the abort condition “the queue is going down”: no data, for" in ended.output


def test_a_misspelt_abort_condition_is_refused(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    condition = {"prometheus": "sum(inference_request_total)", "is": "< 1", "interval": "500ms"}
    ended = gameday.run(write(tmp_path, method=[SCALE], abortIf=[condition]))
    assert (ended.code, ended.verdict) == (4, "refused"), ended.output
    assert "`sum(inference_request_total)`) is blind before anything is touched" in " ".join(
        ended.output.split()
    )
    assert not ended.of("change")


@pytest.mark.parametrize("lie", [NOTHING, LOGIN.encode(), b""], ids=["nothing", "a page", "no answer"])
def test_a_prometheus_that_lies_aborts(
    lie: bytes, gameday: Program, prometheus: PrometheusLike, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    condition = {"name": "down", "prometheus": "up", "is": "< 1", "interval": "500ms"}
    with gameday.started(write(tmp_path, method=[SCALE], abortIf=[condition])) as run:
        run.fault_is("in")
        prometheus.lie, prometheus.up = lie, bool(lie)
        ended = run.ended()
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert "blind: the abort condition “down”: " in ended.output
    assert {e["state"] for e in ended.of("audited")} == {"restored"}


def test_a_run_that_takes_longer_than_it_may_aborts(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    method = [{**SCALE, "for": "8s"}]
    ended = gameday.run(write(tmp_path, method=method, maxDuration="8s", abortIf="none"))
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert "longer than its maxDuration of 8 s" in ended.output


def test_without_abort_conditions_the_plan_warns(gameday: Program, tmp_path: Path) -> None:
    planned = gameday("plan", write(tmp_path, method=[SCALE]))
    assert planned.code == 0, planned.output
    assert "only a person ends this run early" in planned.output
    planned = gameday("plan", write(tmp_path, method=[SCALE], abortIf="none"))
    assert "only a person ends this run early" not in planned.output
