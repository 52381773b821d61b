"""Updates by Argo Rollouts, aborted, undone, paused and promoted, and what is refused."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gameday.ledger.edits import Edit
from gameday.ledger.keeping import ensure_namespace
from gameday.ledger.rollout import Promote
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.e2e.experiments import write
from tests.support import gitops
from tests.support.ledgers import unguarded
from tests.support.polling import eventually
from tests.support.program import Program
from tests.support.snapshot import Snapshot

pytestmark = pytest.mark.sandbox_only("a real Argo Rollouts is in tests/systems")

REF = Ref("argoproj.io/v1alpha1", "Rollout", "gateway", gitops.NAMESPACE)
TARGET = {"context": "gameday-.*", "namespaces": [gitops.NAMESPACE]}
LABELS = {"app": "gateway"}


def manifest(version: str) -> Object:
    container = {"name": "gateway", "image": f"example.com/gateway:{version}"}
    return {
        "apiVersion": REF.api_version,
        "kind": "Rollout",
        "metadata": {"name": REF.name, "namespace": REF.namespace},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": LABELS},
            "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}},
            "template": {
                "metadata": {"labels": LABELS},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }


def experiment(folder: Path, action: str, hold: str = "1s", **options: Any) -> Path:
    step = {"name": "gateway", "namespace": gitops.NAMESPACE, "action": action, **options}
    return write(folder, method=[{"rollout": step, "for": hold}], target=TARGET)


async def phase(kube: Kube, wanted: str) -> Object:
    return await eventually(lambda: kube.get(REF), lambda r: (r.get("status") or {}).get("phase") == wanted)


async def image(kube: Kube, version: str) -> None:
    containers = manifest(version)["spec"]["template"]["spec"]["containers"]
    await kube.patch(REF, {"spec": {"template": {"spec": {"containers": containers}}}}, "merge")


@pytest.fixture(autouse=True, scope="module")
async def namespace(kube: Kube) -> None:
    await gitops.ensure_namespace(kube)


@pytest.fixture
async def healthy(kube: Kube) -> AsyncIterator[None]:
    """A Rollout of version 2, which has had a version 1."""
    await kube.create(manifest("1"))
    try:
        await phase(kube, "Healthy")
        await image(kube, "2")
        await promoted(kube)
        yield
    finally:
        await kube.delete(REF)
        await eventually(lambda: _pods(kube), lambda pods: not pods)


async def promoted(kube: Kube) -> None:
    """Wait until an update waits, and promote it past all its steps."""
    await reached(kube, "Paused")
    await kube.patch(REF, {"status": {"promoteFull": True}}, "merge", subresource="status")
    await reached(kube, "Healthy")


async def reached(kube: Kube, wanted: str) -> None:
    """Wait for a phase of a Rollout that was just changed, and change it again without meaning.

    The real controller loses a change that comes while it writes itself, until the next one comes: it puts
    what it wrote into its cache, over a version that may be newer (argo-rollouts 1.9, rollout/controller.go,
    persistRolloutToInformer).
    """

    async def looked_at() -> bool:
        rollout = await kube.get(REF)
        looked = {"metadata": {"annotations": {"tests/looked": rollout["metadata"]["resourceVersion"]}}}
        await kube.patch(REF, looked, "merge")
        return bool((rollout.get("status") or {}).get("phase") == wanted)

    await eventually(looked_at, within=60, every=1.0)


async def _pods(kube: Kube) -> list[Object]:
    from gameday.platform.resources import PODS

    return await kube.list(PODS, gitops.NAMESPACE, labels="app=gateway")


@pytest.fixture
async def updating(kube: Kube, healthy: None) -> None:
    """An update to version 3, half done, that waits to be promoted."""
    await image(kube, "3")
    await reached(kube, "Paused")


async def canaries(kube: Kube) -> int:
    return int((await kube.get(REF))["status"].get("updatedReplicas") or 0)


async def test_an_aborted_update_is_retried_afterwards(
    updating: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(experiment(tmp_path, "abort", hold="3s")) as running:
        await asyncio.to_thread(running.fault_is, "in")
        await eventually(lambda: canaries(kube), lambda count: count == 0)
        ended = await asyncio.to_thread(running.ended)
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    await phase(kube, "Paused")
    assert await canaries(kube) == 2
    assert {e["state"] for e in ended.of("audited")} == {"restored"}


async def test_killed_after_an_abort_and_recovered(
    updating: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(experiment(tmp_path, "abort", hold="30s")) as running:
        await asyncio.to_thread(running.fault_is, "in")
        assert (await kube.get(REF))["status"]["abort"]
        name = running.kill()
    ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert not (await phase(kube, "Paused"))["status"].get("abort")


async def test_an_update_is_undone_and_redone(
    healthy: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    before = (await kube.get(REF))["status"]["stableRS"]
    with gameday.started(experiment(tmp_path, "undo", hold="2s")) as running:
        await asyncio.to_thread(running.fault_is, "in")
        now = await kube.get(REF)
        assert now["spec"]["template"]["spec"]["containers"][0]["image"] == "example.com/gateway:1"
        assert now["status"]["currentPodHash"] != before
        ended = await asyncio.to_thread(running.ended)
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert (await phase(kube, "Healthy"))["status"]["stableRS"] == before


async def test_a_rollout_is_paused_and_resumed(
    healthy: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(experiment(tmp_path, "pause", hold="2s")) as running:
        await asyncio.to_thread(running.fault_is, "in")
        assert (await phase(kube, "Paused"))["status"]["message"] == "manually paused"
        ended = await asyncio.to_thread(running.ended)
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    await phase(kube, "Healthy")


async def test_killed_in_a_pause_and_recovered(
    healthy: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    with gameday.started(experiment(tmp_path, "pause", hold="60s")) as running:
        await asyncio.to_thread(running.fault_is, "in")
        name = running.kill()
    assert (await phase(kube, "Paused"))["status"]["message"] == "manually paused"
    ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert not (await phase(kube, "Healthy"))["spec"].get("paused")


async def test_killed_after_a_promotion_and_recovered(
    updating: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """There is nothing to take back, and that is said."""
    with gameday.started(experiment(tmp_path, "promote", hold="60s", full=True)) as running:
        await asyncio.to_thread(running.fault_is, "in")
        name = running.kill()
    ended = await asyncio.to_thread(gameday, "recover", "--run", name, "--force")
    assert ended.code == 0, ended.output
    assert "irreversible Rollout gitops/gateway" in " ".join(ended.output.split())
    status = (await phase(kube, "Healthy"))["status"]
    assert status["stableRS"] == status["currentPodHash"]


@pytest.mark.parametrize("full", [False, True], ids=["one step", "full"])
async def test_a_promotion_stays(
    full: bool, updating: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = await asyncio.to_thread(gameday.run, experiment(tmp_path, "promote", full=full))
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert "irreversible" in {e["state"] for e in ended.of("audited")}
    status = (await phase(kube, "Healthy"))["status"]
    assert status["stableRS"] == status["currentPodHash"]


async def test_an_update_is_promoted_step_by_step(
    healthy: None, gameday: Program, kube: Kube, tmp_path: Path
) -> None:
    """The second promotion is planned on what the first one has left."""
    steps = [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]
    await kube.patch(REF, {"spec": {"strategy": {"canary": {"steps": steps}}}}, "merge")
    await image(kube, "3")
    await reached(kube, "Paused")
    promote = {"rollout": {"name": REF.name, "namespace": REF.namespace, "action": "promote"}, "for": "1s"}
    ended = await asyncio.to_thread(
        gameday.run, write(tmp_path, method=[promote, promote], target=TARGET, blastRadius={"pods": 8})
    )
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    status = (await phase(kube, "Healthy"))["status"]
    assert status["stableRS"] == status["currentPodHash"]


@pytest.mark.parametrize("versions", [["4"], ["2", "3"]], ids=["a newer update", "back, and the same again"])
async def test_a_promotion_that_another_update_follows_is_not_called_undone(
    versions: list[str],
    updating: None,
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
) -> None:
    """What waits at its first pause then is another update, be it to the same template."""
    with gameday.started(experiment(tmp_path, "promote", hold="10m", full=True)) as running:
        await asyncio.to_thread(running.fault_is, "in")
        await reached(kube, "Healthy")
        for version in versions[:-1]:
            await image(kube, version)
            await promoted(kube)
        await image(kube, versions[-1])
        await reached(kube, "Paused")
        running.signal(signal.SIGTERM)
        ended = await asyncio.to_thread(running.ended)
    (audited,) = ended.of("audited")
    assert audited["state"] == "irreversible", ended.output
    assert "another update followed" in audited["message"]


@pytest.mark.parametrize("how", ["another update", "more of it"])
async def test_an_update_that_was_not_approved_is_not_promoted(
    how: str, updating: None, gameday: Program, kube: Kube, tmp_path: Path
) -> None:
    """A plan is kept, and its Rollout goes on: to another template, or to more pods."""
    file, kept = experiment(tmp_path, "promote", full=True), tmp_path / "plan.json"
    planned = await asyncio.to_thread(gameday, "plan", file, "-o", kept)
    assert planned.code == 0, planned.output
    if how == "another update":
        await image(kube, "4")
        await reached(kube, "Paused")
        words = "the template that it updates to was"
    else:
        await kube.patch(REF, {"spec": {"replicas": 8}}, "merge")
        words = "Rollout gitops/gateway would lose"
    ended = await asyncio.to_thread(gameday.run, file, "--plan", kept)
    assert ended.code == 4, ended.output
    assert words in " ".join(ended.output.split())
    assert not ended.of("change")


@pytest.mark.parametrize(
    ("action", "options", "said"),
    [
        ("abort", {}, "has no update under way to abort (Healthy)"),
        ("promote", {}, "has no update under way to promote (Healthy)"),
        ("undo", {"revision": 9}, "has no revision 9 (there are: 1, 2)"),
        ("undo", {"revision": 2}, "revision 2 is what it runs: nothing would change"),
        ("pause", {"name": "gatewey"}, "did you mean `gateway`?"),
    ],
)
async def test_what_cannot_be_done_is_refused(
    action: str,
    options: dict[str, Any],
    said: str,
    healthy: None,
    gameday: Program,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    ended = await asyncio.to_thread(gameday.run, experiment(tmp_path, action, **options))
    assert ended.code == 4, ended.output
    assert said in " ".join(ended.output.split())


TEMPLATE = Ref("apps/v1", "Deployment", "gateway-template", gitops.NAMESPACE)


def referred(version: str, gpus: int = 4) -> Object:
    """A workload without pods, whose template a Rollout uses: four GPUs for each of its pods."""
    spec = manifest(version)["spec"]
    template = spec["template"]
    if gpus:
        template["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": str(gpus)}}
    meta = {"name": TEMPLATE.name, "namespace": TEMPLATE.namespace}
    deployment = {"replicas": 0, "selector": spec["selector"], "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": deployment}


def without_template() -> Object:
    """A Rollout that takes its template from that workload."""
    rollout = manifest("1")
    reference = {"apiVersion": TEMPLATE.api_version, "kind": TEMPLATE.kind, "name": TEMPLATE.name}
    kept = {k: rollout["spec"][k] for k in ("replicas", "strategy")}
    return rollout | {"spec": {**kept, "workloadRef": reference}}


@pytest.fixture
async def referring(kube: Kube) -> AsyncIterator[None]:
    """An update of a Rollout whose template is a Deployment's; its pods need not run."""
    await kube.create(referred("1"))
    await kube.create(without_template())
    try:
        first = await eventually(lambda: kube.get(REF), _stable)  # else the update would not go by steps
        await kube.patch(TEMPLATE, {"spec": {"template": referred("2")["spec"]["template"]}}, "merge")
        await eventually(lambda: kube.get(REF), lambda r: _hash(r) not in ("", _hash(first)))
        await eventually(lambda: canaries(kube), lambda count: count == 2)
        yield
    finally:
        await kube.delete(REF)
        await kube.delete(TEMPLATE)
        await eventually(lambda: _pods(kube), lambda pods: not pods, within=90)  # the collector of a new kind


@pytest.fixture
async def following(kube: Kube) -> AsyncIterator[None]:
    """The same, of pods that run: the update waits at its step."""
    await kube.create(referred("1", gpus=0))
    await kube.create(without_template())
    try:
        await reached(kube, "Healthy")
        await kube.patch(TEMPLATE, {"spec": {"template": referred("2", gpus=0)["spec"]["template"]}}, "merge")
        await reached(kube, "Paused")
        yield
    finally:
        await kube.delete(REF)
        await kube.delete(TEMPLATE)
        await eventually(lambda: _pods(kube), lambda pods: not pods, within=90)


@pytest.mark.parametrize(("action", "shown"), [("abort", "Degraded"), ("pause", "Paused")])
async def test_an_update_of_another_workloads_template_gets_in_and_out(
    action: str,
    shown: str,
    following: None,
    gameday: Program,
    kube: Kube,
    tmp_path: Path,
    world_unchanged: Snapshot,
) -> None:
    with gameday.started(experiment(tmp_path, action, hold="2s")) as running:
        await asyncio.to_thread(running.fault_is, "in")
        assert (await kube.get(REF))["status"]["phase"] == shown
        ended = await asyncio.to_thread(running.ended)
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    status = (await phase(kube, "Paused"))["status"]
    assert status["message"] == "CanaryPauseStep"
    assert not status.get("abort")


async def test_an_update_of_another_workloads_template_is_promoted_and_not_undone(
    following: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = await asyncio.to_thread(gameday.run, experiment(tmp_path, "undo"))
    assert ended.code == 4, ended.output
    assert "undo that one" in " ".join(ended.output.split())
    ended = await asyncio.to_thread(gameday.run, experiment(tmp_path, "promote", full=True))
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    status = (await phase(kube, "Healthy"))["status"]
    assert status["stableRS"] == status["currentPodHash"]


def _hash(rollout: Object) -> str:
    return str((rollout.get("status") or {}).get("currentPodHash") or "")


def _stable(rollout: Object) -> bool:
    return bool(_hash(rollout)) and rollout["status"].get("stableRS") == _hash(rollout)


async def test_a_template_that_another_workload_holds_is_counted(
    referring: None, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    step = {"name": "gateway", "namespace": gitops.NAMESPACE, "action": "abort"}
    for allowed, code in ((1, 4), (8, 0)):
        limits = {"pods": 2, "gpus": allowed}
        file = write(tmp_path, method=[{"rollout": step}], target=TARGET, blastRadius=limits)
        ended = await asyncio.to_thread(gameday, "plan", file)
        assert ended.code == code, ended.output


async def test_a_template_that_cannot_be_read_is_not_counted_as_nothing(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    await kube.create(without_template())
    try:
        ended = await asyncio.to_thread(gameday, "plan", experiment(tmp_path, "pause"))
    finally:
        await kube.delete(REF)
    assert ended.code == 4, ended.output
    text = " ".join(ended.output.split())
    assert "from Deployment gateway-template (spec.workloadRef), which is not there" in text


async def test_a_status_is_a_part_of_its_own(healthy: None, kube: Kube) -> None:
    """As in upstream's definition: a status in a patch of the object itself is passed over."""
    await kube.patch(REF, {"status": {"abort": True}}, "merge")
    assert not (await kube.get(REF))["status"].get("abort")


@pytest.mark.parametrize("full", [False, True])
async def test_only_an_update_that_went_on_is_called_promoted(
    full: bool, kube: Kube, updating: None, tmp_path: Path
) -> None:
    """The run dies before it sends its promotion; another one sends it, and dies then."""
    before = (await kube.get(REF))["status"]
    edit = Edit(("status", "promoteFull"), True) if full else Edit(("status", "pauseConditions"), None)
    await ensure_namespace(kube)
    ledger = unguarded(kube, "promote-test", tmp_path, {}, lambda _: None)
    (entry,) = await ledger.intend("1", [await promotion(kube, edit)])
    await ledger.undo("1")
    assert (entry.state, "waits where it waited" in entry.message) == ("undone", True)
    assert [a.state for a in await ledger.audit()] == ["restored"]
    assert (await kube.get(REF))["status"]["currentStepIndex"] == before["currentStepIndex"]
    await ledger.step("2").perform([await promotion(kube, edit)])
    if full:
        await reached(kube, "Healthy")
    (entry,) = await ledger.undo("2")
    assert (entry.state, "its update went on" in entry.message) == ("irreversible", True)
    await ledger.close(restored=True)


async def promotion(kube: Kube, edit: Edit) -> Promote:
    made = await Promote.of(kube, REF, edit)
    assert made is not None
    return made
