"""The lever, and asking runs to abort: who pulls it is heard, and is told whether he was."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gameday.ledger.keeping import ensure_namespace
from gameday.platform.kube import Kube
from gameday.safety.lever import LEVER
from tests.e2e.experiments import CORDON, SCALE, write
from tests.support.polling import until
from tests.support.program import Program
from tests.support.proxy import ApiProxy
from tests.support.snapshot import Snapshot

LOGIN = "<html><body>Please log in</body></html>"
LEVER_PATH = "configmaps/gameday-lever"


@pytest.fixture(autouse=True)
async def no_lever(kube: Kube) -> AsyncIterator[None]:
    """The lever is nobody's but the test's: neither a run nor a recovery takes it away."""
    await ensure_namespace(kube)
    yield
    await kube.delete(LEVER)


@pytest.fixture
def through(gameday: Program, api_proxy: ApiProxy) -> Program:
    """The program, with the proxy between it and the API server."""
    gameday.environment["KUBECONFIG"] = str(api_proxy.kubeconfig)
    return gameday


async def lever(kube: Kube, **data: Any) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": LEVER.name, "namespace": "gameday"}}
    await kube.create(body | {"data": data})


def test_the_lever_aborts_runs_and_refuses_new_ones(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=[SCALE], abortIf="none")
    with gameday.started(file) as run:
        run.fault_is("in")
        began = time.time()
        halted = gameday("halt", "--reason", "a real [red]incident[/]")
        assert halted.code == 0, halted.output
        assert f"{run.folder.name} aborts" in halted.output
        ended = run.ended()
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    (abort,) = ended.of("abort")
    assert abort["by"] == "lever"
    assert abort["at"] >= began
    assert "a real [red]incident[/]" in abort["reason"]
    assert "no run may begin: halted by" in gameday("status").output
    refused = gameday.run(file)
    assert (refused.code, refused.verdict) == (4, "refused"), refused.output
    assert "lever: halted by" in refused.output
    assert not refused.of("change")
    assert "runs may begin" in gameday("unhalt").output
    assert gameday("plan", file).code == 0


async def test_a_halt_that_is_over_stops_nobody(gameday: Program, kube: Kube, tmp_path: Path) -> None:
    await lever(kube, halt=json.dumps({"reason": "over", "until": "2020-01-01T00:00:00Z"}))
    planned = await asyncio.to_thread(gameday, "plan", write(tmp_path, method=[SCALE], abortIf="none"))
    assert planned.code == 0, planned.output


def test_freeze_windows(gameday: Program, tmp_path: Path) -> None:
    file = write(tmp_path, method=[SCALE], abortIf="none")
    for begin, to, reason in [("2h", "3h", "later"), ("10m", "20m", "soon"), ("-", "-", "")]:
        asked = gameday("halt", "--from", begin, "--to", to, "--reason", reason)
        assert asked.code == (0 if reason else 2), asked.output
    planned = gameday("plan", file)
    assert planned.code == 0, planned.output
    assert "a freeze window comes, and would abort the run" in " ".join(planned.output.split())
    assert gameday("halt", "--from", "2020-01-01T00:00:00Z", "--to", "1h", "--reason", "now").code == 0
    refused = gameday("plan", file)
    assert refused.code == 4, refused.output
    assert "lever: in a freeze window" in " ".join(refused.output.split())
    assert "freeze window 2: " in gameday("status").output
    for number, code in [(9, 2), (1, 0)]:
        assert gameday("unhalt", "--window", number).code == code
    assert gameday("plan", file).code == 0


@pytest.mark.parametrize(
    "data",
    [{"halt": "yes"}, {"hatl": "{}"}, {"halt": "[" * 100_000}, {"freeze": '[{"from": "2020-01-01"}]'}],
    ids=["no JSON", "misspelt", "deep", "half a window"],
)
async def test_a_lever_that_nobody_understands_counts_as_pulled(
    data: dict[str, str], gameday: Program, kube: Kube, tmp_path: Path
) -> None:
    await lever(kube, **data)
    planned = await asyncio.to_thread(gameday, "plan", write(tmp_path, method=[SCALE], abortIf="none"))
    assert planned.code == 4, planned.output
    assert "kubectl -n gameday delete configmap gameday-lever" in " ".join(planned.output.split())


@pytest.mark.parametrize("answer", [403, 401, 200, 404])
def test_a_lever_that_can_not_be_read_is_pulled(
    answer: int, through: Program, api_proxy: ApiProxy, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    def refuse() -> None:
        if answer in (200, 404):
            page = LOGIN if answer == 200 else "404 page not found\n"  # as Go's proxies say of no backend
            api_proxy.answer_page("GET", LEVER_PATH, page, status=answer, times=1000)
        else:
            api_proxy.fail("GET", LEVER_PATH, answer, reason="Forbidden", message="no", times=1000)

    file = write(tmp_path, method=[SCALE], abortIf="none")
    with through.started(file) as run:
        run.fault_is("in")
        refuse()
        ended = run.ended()
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert "the lever ended, and without it nobody keeps this run safe" in ended.output
    refused = through.run(file)
    assert (refused.code, refused.verdict) == (4, "refused"), refused.output
    assert not refused.of("change")


async def test_the_lever_is_looked_at_before_each_fault(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Pulled between the plan and the first fault."""
    with gameday.started(write(tmp_path, method=[{"wait": "1s"}, SCALE], abortIf="none")) as run:
        await asyncio.to_thread(run.until, lambda e: e.get("phase") == "baseline", "the baseline")
        await lever(kube, halt="{}")
        ended = await asyncio.to_thread(run.ended)
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert not ended.of("change")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_one_refused_read_makes_no_run_deaf(
    status: int, through: Program, api_proxy: ApiProxy, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with through.started(write(tmp_path, method=[CORDON], abortIf="none")) as run:
        run.fault_is("in")
        api_proxy.fail("GET", "leases.*(watch|limit)=", status, reason="Forbidden", message="no", times=2)
        api_proxy.fail("GET", "configmaps.*(watch|limit)=", status, reason="Forbidden", message="no", times=2)
        api_proxy.end_connections()
        asked = through("abort", run.folder.name)
        assert asked.code == 0, asked.output
        assert "heard it, and puts everything back" in asked.output
        ended = run.ended()
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output


def test_a_run_that_can_hear_nobody_aborts(
    through: Program, api_proxy: ApiProxy, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with through.started(write(tmp_path, method=[CORDON], abortIf="none")) as run:
        run.fault_is("in")
        api_proxy.fail("GET", "leases/gameday-test-", 403, reason="Forbidden", message="no", times=10_000)
        run.until(lambda e: e["type"] == "abort", "the run aborts")
        api_proxy.relent()
        ended = run.ended()
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output


def _asks_for_its_lease(proxy: ApiProxy, since: int) -> bool:
    return sum("PATCH" in r and "/leases/" in r for r in proxy.requests[since:]) > 5


@pytest.mark.parametrize("cut", [True, False])
def test_a_run_that_is_cut_off_from_the_api_server_aborts(
    cut: bool, through: Program, api_proxy: ApiProxy, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Nobody could tell the run to stop: cut off for longer than a restart takes, it stops by itself.

    Or where a proxy without a backend answers 404 to all, which says of no object that it is gone.
    """
    with through.started(write(tmp_path, method=[{**CORDON, "for": "5m"}], abortIf="none")) as run:
        run.fault_is("in")
        if cut:
            api_proxy.cut()
        for method in () if cut else ("GET", "PATCH", "POST", "DELETE"):
            api_proxy.answer_page(method, "", "404 page not found\n", status=404, times=100_000)
        try:
            run.until(lambda e: e["type"] == "abort", "the run aborts")
            asked = len(api_proxy.requests)  # of a Lease that it thinks gone a run asks no more
            still = partial(_asks_for_its_lease, api_proxy, asked)
            until(lambda: cut or still(), "the run goes on renewing its Lease")
        finally:
            api_proxy.relent()
            if cut:
                api_proxy.restore()
        ended = run.ended()
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert [e["state"] for e in ended.of("change")][-1] == "undone", ended.output


async def test_who_asks_a_dead_run_to_abort_is_told_so(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(write(tmp_path, method=[CORDON], abortIf="none")) as run:
        await asyncio.to_thread(run.fault_is, "in")
        name = run.kill()
    asked = await asyncio.to_thread(gameday, "abort", name, "--wait", "1")
    assert asked.code == 3, asked.output
    assert f"{name} did not answer within 1 s" in asked.output
    assert f"gameday recover --run {name}" in asked.output
    recovered = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
    assert recovered.code == 0, recovered.output


def test_abort_all(gameday: Program, tmp_path: Path, world_unchanged: Snapshot) -> None:
    assert gameday("abort").code == 2
    assert gameday("abort", "some-run", "--all").code == 2
    with gameday.started(write(tmp_path, method=[CORDON], abortIf="none")) as run:
        run.until(lambda e: e.get("phase") == "baseline", "the run is registered")
        run.fault_is("in")
        asked = gameday("abort", "--all", "--reason", "fire alarm")
        assert asked.code == 0, asked.output
        assert f"{run.folder.name} heard it" in asked.output
        ended = run.ended()
    assert (ended.code, ended.verdict) == (3, "aborted"), ended.output
    assert "fire alarm" in ended.output
    assert "no run is alive" in gameday("abort", "--all").output
