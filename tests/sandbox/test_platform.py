"""The platform as its users see it: workloads, their consequences in Prometheus, alerts; on either API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, is_ready, is_true
from gameday.platform.prometheus import Prometheus
from gameday.platform.resources import PODS
from gameday.sandbox.facts import seconds_of
from tests.sandbox.conftest import Ask
from tests.support import gitops
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.snapshot import Snapshot

LATENCY = "histogram_quantile(0.99, sum by (le) (rate(inference_request_duration_seconds_bucket[5s])))"
TRAINING = "sum(rate(training_samples_total[5s]))"
INFERENCE = Ref("apps/v1", "Deployment", "inference", "inference")
QUEUE = Ref("apps/v1", "Deployment", "job-queue-controller", "platform")


async def test_its_steady_state(platform: Platform, ask: Ask) -> None:
    """Which comes back by itself after whatever another test did."""
    async with Prometheus(platform.prometheus_url) as prometheus:
        await eventually(lambda: _firing(prometheus), lambda names: not names, within=60)
    await eventually(lambda: ask(TRAINING), lambda rate: 1900 < (rate or 0) < 2100, within=60)
    assert (await ask('sum(up{job="inference"})')) == 12
    assert 0.1 < (await ask(LATENCY) or 0) < 0.5
    assert await ask('count(DCGM_FI_DEV_GPU_UTIL{node="gpu-0"})') == 8
    assert await ask('sum(kube_pod_status_ready{namespace="training", condition="true"})') == 4


async def _firing(prometheus: Prometheus) -> set[str]:
    return {a.name for a in await prometheus.alerts() if a.state == "firing"}


async def test_a_cordon_is_seen_and_an_alert_fires(kube: Kube, ask: Ask, world_unchanged: Snapshot) -> None:
    node = Ref("v1", "Node", "gpu-4")
    await kube.patch(node, {"spec": {"unschedulable": True}}, "merge")
    try:
        await eventually(lambda: kube.get(node), lambda n: bool(n["spec"].get("taints")))
        fires = 'ALERTS{alertname="GPUNodeUnschedulable", node="gpu-4", alertstate="firing"}'
        await eventually(lambda: ask(fires), lambda value: value == 1)
    finally:
        await kube.patch(node, {"spec": {"unschedulable": None}}, "merge")


async def test_a_budget_bounds_evictions_and_evicted_pods_come_back(kube: Kube) -> None:
    budget = Ref("policy/v1", "PodDisruptionBudget", "inference", "inference")
    before = await eventually(lambda: kube.get(budget), lambda b: b["status"].get("disruptionsAllowed") == 4)
    assert before["status"]["desiredHealthy"] == 8
    answers = [await _evict(kube, pod) for pod in await kube.list(PODS, "inference")]
    assert sorted(answers) == [201] * 4 + [429] * 8
    await _whole(kube)


async def test_a_killed_worker_stalls_training_until_its_successor_runs(kube: Kube, ask: Ask) -> None:
    await eventually(lambda: ask(TRAINING), lambda rate: (rate or 0) > 1900, within=60)
    workers = [p for p in await kube.list(PODS, "training") if is_ready(p)]
    await kube.delete(Ref.of(workers[0]))
    await eventually(lambda: ask(TRAINING), lambda rate: rate is not None and rate < 1700)
    await eventually(lambda: ask(TRAINING), lambda rate: (rate or 0) > 1900, within=60)
    assert workers[0]["metadata"]["uid"] not in {
        p["metadata"]["uid"] for p in await kube.list(PODS, "training")
    }


async def test_a_delay_on_inference_shows_in_its_latency(kube: Kube, ask: Ask) -> None:
    spec = {
        "action": "delay",
        "mode": "all",
        "selector": {"namespaces": ["inference"], "labelSelectors": {"app": "inference"}},
        "delay": {"latency": "800ms"},
        "duration": "1m",
    }
    metadata = {"name": "slow", "namespace": "inference"}
    chaos = {
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": "NetworkChaos",
        "metadata": metadata,
        "spec": spec,
    }
    ref = Ref.of(await kube.create(chaos))
    try:
        await eventually(lambda: kube.get(ref), lambda o: is_true(o, "AllInjected"))
        await eventually(lambda: ask(LATENCY), lambda p99: (p99 or 0) > 0.8)
        await eventually(lambda: ask('ALERTS{alertname="InferenceLatencyHigh", alertstate="firing"}'), bool)
    finally:
        await kube.delete(ref)
    await eventually(lambda: kube.find(ref), lambda o: o is None)
    await eventually(lambda: ask(LATENCY), lambda p99: 0 < (p99 or 0) < 0.5)


async def test_without_its_controller_the_queue_grows_and_the_application_is_out_of_sync(
    kube: Kube, ask: Ask
) -> None:
    await kube.patch(QUEUE, {"spec": {"replicas": 0}}, "merge")
    try:
        await eventually(lambda: ask("job_queue_depth"), lambda depth: (depth or 0) > 8)
        await eventually(lambda: ask('ALERTS{alertname="JobQueueStalled", alertstate="firing"}'), bool)
    finally:
        await kube.patch(QUEUE, {"spec": {"replicas": 2}}, "merge")
    await eventually(lambda: ask("job_queue_depth"), lambda depth: (depth or 99) < 4)


async def test_the_application_notices_a_change_by_hand_and_heals_it(kube: Kube) -> None:
    await gitops.heals_at_once(kube, gitops.INFERENCE)

    def shows(health: str, sync: str) -> object:
        return lambda a: (a["status"]["health"]["status"], a["status"]["sync"]["status"]) == (health, sync)

    async def look() -> Object:
        return await kube.get(gitops.INFERENCE)

    before = await eventually(look, shows("Healthy", "Synced"))  # type: ignore[arg-type]
    await kube.patch(INFERENCE, {"spec": {"replicas": 13}}, "merge")
    await eventually(look, shows("Progressing", "OutOfSync"))  # type: ignore[arg-type]
    healed = await eventually(look, shows("Healthy", "Synced"))  # type: ignore[arg-type]
    assert (await kube.get(INFERENCE))["spec"]["replicas"] == 12
    operation = healed["status"]["operationState"]["operation"]
    assert operation["initiatedBy"] == {"automated": True}
    assert operation["sync"]["autoHealAttemptsCount"] >= 1
    assert healed["status"]["history"] == before["status"]["history"]  # a part is no deployment
    await _whole(kube)


async def test_attempts_at_healing_of_long_ago_delay_no_new_one(kube: Kube) -> None:
    """They count while the last one is younger than 330 s (Argo CD's selfHealBackoffCooldownElapsed)."""
    await eventually(lambda: kube.get(gitops.INFERENCE), gitops.is_synced)
    ended = datetime.now(UTC) - timedelta(seconds=331)
    past = {
        "finishedAt": ended.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "operation": {"sync": {"autoHealAttemptsCount": 7}},
    }
    await kube.patch(gitops.INFERENCE, {"status": {"operationState": past}}, "merge")
    await kube.patch(INFERENCE, {"spec": {"replicas": 13}}, "merge")
    try:
        healed = await eventually(
            lambda: kube.get(gitops.INFERENCE),
            lambda a: _finished(a) > ended.timestamp() + 60,
        )
    finally:
        await kube.patch(INFERENCE, {"spec": {"replicas": 12}}, "merge")
    assert healed["status"]["operationState"]["operation"]["sync"]["autoHealAttemptsCount"] == 1
    await _whole(kube)


def _finished(application: Object) -> float:
    """When its last operation ended, in Unix seconds; 0 while one runs."""
    at = (application["status"].get("operationState") or {}).get("finishedAt")
    return seconds_of(at) if at else 0.0


async def _whole(kube: Kube) -> None:
    await eventually(
        lambda: kube.list(PODS, "inference"), lambda pods: sum(map(is_ready, pods)) == len(pods) == 12
    )


async def _evict(kube: Kube, pod: Object) -> int:
    """The answer's HTTP status."""
    try:
        await kube.evict(Ref.of(pod))
    except ApiError as error:
        return error.status
    return 201
