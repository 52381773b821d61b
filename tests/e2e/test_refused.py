"""What must stop a run before anything is touched, each with words that help."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from gameday.safety.plan import VERSION
from tests.e2e.experiments import CORDON, REPLICAS, SCALE, write
from tests.support.platforms import Platform
from tests.support.program import Ended, Program
from tests.support.proxy import ApiProxy
from tests.support.snapshot import Snapshot

TARGET = {
    "context": "gameday-.*",
    "namespaces": ["platform"],
    "nodes": {"selector": "nvidia.com/gpu.present=true"},
}
ONE = {"namespaces": ["platform"], "labelSelectors": {"app": "job-queue-controller"}}
POD_CHAOS = {
    "chaosMesh": {"kind": "PodChaos", "spec": {"action": "pod-kill", "mode": "one", "selector": ONE}}
}
NODES = {"selector": "nvidia.com/gpu.present=true"}
KILL_BOTH = {"podKill": {"selector": "app=job-queue-controller", "namespace": "platform", "pick": "all"}}
KILL: dict[str, Any] = {"action": "pod-kill", "selector": ONE}
OFTEN: dict[str, Any] = {"schedule": "@every 5s", "type": "PodChaos", "concurrencyPolicy": "Allow"}
OFTEN |= {"historyLimit": 2, "podChaos": {**KILL, "mode": "one"}}


def _flow(*templates: dict[str, Any]) -> dict[str, Any]:
    """A step with a Workflow that begins with its first template."""
    spec = {"entry": templates[0]["name"], "templates": list(templates)}
    return {"chaosMesh": {"kind": "Workflow", "spec": spec}, "for": "10s"}


def _refused(ended: Ended, *words: str) -> None:
    assert ended.code == 4, ended.output
    assert not ended.of("change")
    for word in words:
        assert word in ended.output


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"target": {**TARGET, "context": "production"}}, ["is for 'production'"]),
        ({"target": {**TARGET, "namespaces": ["nowhere"]}}, ["no namespace nowhere", "outside the target"]),
        ({"target": {**TARGET, "namespaces": []}}, ["outside the target (its namespaces: none)"]),
        ({"blastRadius": {"pods": 1}}, ["2 pods (at most 1", "spec.blastRadius.pods"]),
        ({"method": [{"cordon": {"nodes": {"selector": "no=such"}}}]}, ["no node matches no=such"]),
        ({"method": [{"cordon": {"nodes": {"names": ["gpu-99"]}}}]}, ["there is no node gpu-99"]),
        ({"method": [{"cordon": {"nodes": {"names": ["cpu-0"]}}}]}, ["cpu-0", "outside the target's nodes"]),
        ({"method": [{"cordon": {"nodes": NODES}}]}, ["8 nodes (at most 2"]),
        (
            {
                "method": [{"cordon": {"nodes": {"selector": "!no-such-label"}}}],
                "target": {"namespaces": ["platform"]},
                "blastRadius": {"nodes": 1000},
            },
            ["touches all", "nodes of the cluster"],
        ),
        (
            {"method": [{"podKill": {"selector": "app=nobody", "namespace": "platform"}}]},
            ["no running pod matches app=nobody"],
        ),
        (
            {
                "method": [{"repeat": {"times": 3, "steps": [POD_CHAOS]}}],
                "blastRadius": {"pods": 2, "gpus": 8},
            },
            ["3 pods (at most 2"],
        ),
        (
            {"method": [KILL_BOTH, {"wait": "1s"}, KILL_BOTH], "blastRadius": {"pods": 2}},
            ["4 pods (at most 2"],
        ),
        (  # in 20 s it fires four times, and once more before it hears of the end
            {
                "method": [
                    {"chaosMesh": {"kind": "Schedule", "spec": OFTEN, "settleWithin": "10s"}, "for": "10s"}
                ],
                "blastRadius": {"pods": 2},
            },
            ["5 pods (at most 2"],
        ),
        (
            {
                "method": [
                    _flow(
                        {"name": "each", "templateType": "Serial", "children": ["kill", "kill", "kill"]},
                        {"name": "kill", "templateType": "PodChaos", "podChaos": {**KILL, "mode": "all"}},
                    )
                ],
                "blastRadius": {"pods": 2},
            },
            ["6 pods (at most 2"],
        ),
        (
            {
                "method": [
                    _flow(
                        {"name": "both", "templateType": "Parallel", "children": ["often", "often"]},
                        {"name": "often", "templateType": "Schedule", "schedule": OFTEN, "deadline": "15s"},
                    )
                ],
                "blastRadius": {"pods": 2},
            },
            ["8 pods (at most 2"],
        ),
        (
            {"method": [_flow({"name": "a", "templateType": "Serial", "children": ["a"]})]},
            ["template a is inside itself"],
        ),
        ({"steadyState": [{**REPLICAS, "is": ">= 3"}]}, ["steady state does not hold", "2 is not >= 3"]),
        (
            {"method": [{"chaosMesh": {"kind": "NetworkChaos", "spec": {"action": "nonsense"}}}]},
            ["step 1"],
        ),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[0][:40],
)
def test_refused_by_the_experiment(
    spec: dict[str, Any], words: list[str], gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    method = spec.pop("method", [SCALE])
    _refused(gameday.run(write(tmp_path, method=method, **spec)), *words)


async def test_a_drain_that_would_lose_a_pod_for_good(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """A pod that nobody would make again; kubectl drain refuses it too."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "alone", "namespace": "platform"},
        "spec": {
            "nodeName": "gpu-0",
            "containers": [{"name": "c", "image": "example.com/c:1"}],
            "volumes": [{"name": "scratch", "emptyDir": {}}],
        },
    }
    await kube.create(pod)
    try:
        drain: dict[str, Any] = {"nodes": {"names": ["gpu-0"]}}
        file = write(tmp_path, method=[{"drain": drain}])
        _refused(
            await asyncio.to_thread(gameday.run, file),
            "platform/alone",
            "emptyDir",
            "deleteEmptyDirData: true",
        )
        file = write(tmp_path, method=[{"drain": {**drain, "deleteEmptyDirData": True}}])
        _refused(await asyncio.to_thread(gameday.run, file), "platform/alone", "no controller", "force: true")
    finally:
        await kube.delete(Ref.of(pod), grace=0)


def test_no_prometheus_but_a_probe_asks_it(gameday: Program, tmp_path: Path) -> None:
    file = write(tmp_path, method=[SCALE], abortIf=[{"prometheus": "sum(up)", "is": "< 1"}])
    none = gameday.run(file, env={"GAMEDAY_PROMETHEUS_URL": ""})
    _refused(none, "no Prometheus is given, and it is needed for “sum(up) < 1”", "--prometheus URL")
    dead = gameday.run(file, "--prometheus", "http://127.0.0.1:9")
    _refused(dead, "http://127.0.0.1:9")


def test_no_terminal_to_approve_on(gameday: Program, tmp_path: Path) -> None:
    ended = gameday("run", write(tmp_path, method=[SCALE]), "--reports", gameday.reports)
    assert ended.code == 4
    assert "--yes" in ended.output


@pytest.mark.fast
@pytest.mark.parametrize(
    ("environment", "arguments", "words"),
    [
        ({"KUBECONFIG": "/nowhere/config"}, [], ["no kubeconfig at /nowhere/config", "--sandbox"]),
        ({}, ["--context", "mars"], ["mars"]),
    ],
)
def test_no_way_to_a_cluster(
    environment: dict[str, str], arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: earth\n"
        "clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]\nusers: [{name: u, user: {}}]\n"
        "contexts: [{name: earth, context: {cluster: c, user: u}}]\n"
    )
    platform = Platform("none", "earth", tmp_path, config, prometheus_url="", control_url="", api_url="")
    ended = Program(platform, tmp_path).run(write(tmp_path, method=[SCALE]), *arguments, env=environment)
    assert ended.code == 2, ended.output
    for word in words:
        assert word in ended.output


def test_the_api_server_is_down_at_the_start(gameday: Program, tmp_path: Path, api_proxy: ApiProxy) -> None:
    api_proxy.cut()
    ended = gameday.run(write(tmp_path, method=[SCALE]), env={"KUBECONFIG": str(api_proxy.kubeconfig)})
    _refused(ended, "refused the connection")


def test_a_saved_plan_is_run_as_it_is(gameday: Program, tmp_path: Path, world_unchanged: Snapshot) -> None:
    file = write(tmp_path, method=[{**CORDON, "for": "1s"}])
    plan = tmp_path / "plan.json"
    assert gameday("plan", file, "-o", plan).code == 0
    assert gameday.run(file, "--plan", plan).code == 0
    other = gameday.run(write(tmp_path, method=[{**CORDON, "for": "2s"}]), "--plan", plan)
    _refused(other, "made for another experiment")
    whole = plan.read_text()
    plan.write_text(whole.replace(f'"version": {VERSION}', '"version": 4'))
    older = gameday.run(file, "--plan", plan)
    _refused(older, "written by another version of gameday (its format is 4", "make it again with `gameday")
    assert "damaged" not in older.output
    plan.write_text(whole.replace("gpu-1", "gpu-2"))
    _refused(gameday.run(file, "--plan", plan), "changed after it was made")


@pytest.mark.parametrize("text", [None, "", "no JSON", "{}", "[]", '{"version": 5}', "[" * 100_000])
def test_a_file_that_is_no_plan_is_a_wrong_command_line(
    gameday: Program, tmp_path: Path, text: str | None
) -> None:
    """Nobody changed such a plan or damaged it, and a run that never was has no folder."""
    file, plan = write(tmp_path, method=[SCALE]), tmp_path / "plan.json"
    if text is not None:
        plan.write_text(text)
    words = "does not exist" if text is None else "is no plan"
    for ended in (gameday.run(file, "--plan", plan), gameday("approve", plan, file, "--yes")):
        assert (ended.code, ended.folder) == (2, None), ended.output
        assert f"gameday: {plan}: {words}" in ended.output
        assert "damaged" not in ended.output
    assert not gameday.reports.exists()


def test_a_refused_plan_says_so_last_and_shows_no_steps_that_it_does_not_have(
    gameday: Program, tmp_path: Path
) -> None:
    nowhere = {
        "scale": {"workload": "deployment/nowhere", "namespace": "platform", "replicas": 0},
        "for": "1s",
    }
    ended = gameday("plan", write(tmp_path, method=[nowhere]))
    assert ended.code == 4, ended.output
    last = ended.output.strip().splitlines()[-1]
    assert last.startswith("refused by: ") or "checks refuse it: " in last, ended.output
    assert "targets" not in ended.output
    assert "seed" not in ended.output


def test_what_goes_into_a_file_is_not_cut_to_the_width_of_a_terminal(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    del gameday.environment["COLUMNS"]
    ended = gameday("plan", write(tmp_path, method=[SCALE, CORDON]))
    assert ended.code == 0, ended.output
    assert "scale Deployment platform/job-queue-controller from 2 to 0" in ended.output


def test_a_file_that_names_no_context_is_warned_about(gameday: Program, tmp_path: Path) -> None:
    target = {k: v for k, v in TARGET.items() if k != "context"}
    file = write(tmp_path, method=[SCALE], target=target)
    assert "spec.target.context: none is named" in gameday("validate", file).output
    assert "spec.target.context" not in gameday("validate", write(tmp_path, method=[SCALE])).output


def test_the_report_names_the_cluster_to_run_it_again_on(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = gameday.run(write(tmp_path, method=[{**SCALE, "for": "1s"}], abortIf="none"))
    assert ended.folder is not None
    assert f"--context={gameday.platform.context}" in (ended.folder / "report.md").read_text()
