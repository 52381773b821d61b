"""Devices are tainted on a real control plane: its scheduler allocates them, its controller ends their pods.

The tests publish ResourceSlices as a driver does; the kubelets are simulated, as everywhere here.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from gameday.platform.effect import of_pod
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import PODS
from gameday.safety.held import with_claims
from tests.e2e.experiments import write
from tests.safety.test_gate import keep
from tests.support.accounts import user
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.program import Ended, Program
from tests.support.snapshot import Snapshot

DRIVER, NODE, SPACE = "gpu.example.com", "gpu-3", "training"
API = "resource.k8s.io/v1"
RULE = ("resource.k8s.io/v1beta2", "DeviceTaintRule")
LABELS = {"app": "device-holder"}
NAMES = ("plain", "half", "patient")
TOLERATION = {"key": "gameday.dev/broken", "operator": "Exists"}
PROBES = [  # nothing of our own: kinds that the cluster is asked for
    {
        "name": "devices",
        "kubernetes": {"resource": "resourceslices.resource.k8s.io", "count": True},
        "is": ">= 1",
    },
    {
        "name": "claims",
        "kubernetes": {"resource": "resourceclaims.resource.k8s.io", "namespace": SPACE, "count": True},
        "is": ">= 2",
        "during": "ignore",
    },
]


def _step(effect: str, devices: list[str] | None = None, hold: str = "1s") -> list[dict[str, Any]]:
    wanted: dict[str, Any] = {"driver": DRIVER, "effect": effect}
    if devices:
        wanted["devices"] = devices
    return [{"gpu": {"nodes": {"names": [NODE]}, "deviceTaint": wanted}, "for": hold}]


def _template(name: str, tolerations: list[Object]) -> Object:
    exactly: Object = {"deviceClassName": DRIVER, "count": 1}
    if tolerations:
        exactly["tolerations"] = tolerations
    devices = {"requests": [{"name": "gpu", "exactly": exactly}]}
    metadata = {"name": name, "namespace": SPACE}
    return {
        "apiVersion": API,
        "kind": "ResourceClaimTemplate",
        "metadata": metadata,
        "spec": {"spec": {"devices": devices}},
    }


def _holders(name: str) -> Object:
    """A Deployment of one pod that claims one device by the template of that name."""
    labels = {**LABELS, "claim": name}
    container = {"name": "main", "image": "busybox", "resources": {"claims": [{"name": "gpu"}]}}
    pod = {
        "nodeSelector": {"kubernetes.io/hostname": NODE},
        "tolerations": [{"operator": "Exists"}],
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": name}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": SPACE},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


@pytest.fixture
async def holders(platform: Platform, kube: Kube) -> AsyncIterator[None]:
    """Three devices on one node, and who holds them: `plain` tolerates nothing, `patient` the taint.

    `half` tolerates every effect of the taint by naming none: the scheduler heeds that, eviction does not.
    """
    if platform.name == "sandbox":
        pytest.skip("only a real API server serves resource.k8s.io")
    made = [
        {"apiVersion": API, "kind": "DeviceClass", "metadata": {"name": DRIVER}, "spec": {"selectors": [
            {"cel": {"expression": f'device.driver == "{DRIVER}"'}}
        ]}},
        {"apiVersion": API, "kind": "ResourceSlice", "metadata": {"name": "test-devices"}, "spec": {
            "driver": DRIVER,
            "nodeName": NODE,
            "pool": {"name": NODE, "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "dev-0"}, {"name": "dev-1"}, {"name": "dev-2"}],
        }},
        _template("plain", []),
        _template("half", [TOLERATION]),
        _template("patient", [TOLERATION | {"effect": "NoExecute"}]),
        *map(_holders, NAMES),
    ]  # fmt: skip
    for manifest in made:
        await kube.create(manifest)
    try:
        for name in NAMES:
            await eventually(partial(_ready, kube, name))
        yield
    finally:
        for manifest in reversed(made):
            await kube.delete(Ref.of(manifest))
        await eventually(lambda: _gone(kube))


async def _pods(kube: Kube, name: str) -> list[Object]:
    return await kube.list(PODS, SPACE, labels=f"claim={name}")


async def _ready(kube: Kube, name: str) -> bool:
    pods = await _pods(kube, name)
    return [p["status"].get("phase") for p in pods] == ["Running"] and "deletionTimestamp" not in pods[0][
        "metadata"
    ]


async def _gone(kube: Kube) -> bool:
    return not await kube.list(PODS, SPACE, labels="app=device-holder")


async def _uid(kube: Kube, name: str) -> str:
    return str((await _pods(kube, name))[0]["metadata"]["uid"])


async def _rules(kube: Kube) -> list[Object]:
    return await kube.list(await kube.resource(*RULE))


async def _device(kube: Kube, name: str) -> str:
    """The device that a holder's pod was given."""
    pod = (await _pods(kube, name))[0]
    claim = pod["status"]["resourceClaimStatuses"][0]["resourceClaimName"]
    found = await kube.get(Ref(API, "ResourceClaim", claim, SPACE))
    return str(found["status"]["allocation"]["devices"]["results"][0]["device"])


def _evidence(ended: Ended) -> dict[str, list[str]]:
    return {e["state"]: e.get("evidence") or [] for e in ended.of("fault")}


async def test_no_execute_ends_the_pod_that_tolerates_nothing_and_no_other(
    gameday: Program, kube: Kube, tmp_path: Path, holders: None
) -> None:
    plain, patient = await _uid(kube, "plain"), await _uid(kube, "patient")
    file = write(tmp_path, method=_step("NoExecute", [await _device(kube, "plain")]))
    planned = gameday("plan", file)
    assert planned.code == 0, planned.output
    assert "claim of it does not tolerate" in " ".join(planned.output.split()), planned.output
    ended = gameday.run(file)
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    assert _evidence(ended)["out"] == ["1 DeviceTaintRules are gone"]
    assert await _rules(kube) == []
    await eventually(lambda: _ready(kube, "plain"))
    assert await _uid(kube, "plain") != plain
    assert await _uid(kube, "patient") == patient


async def test_what_the_plan_foretells_of_tolerations_is_what_happens(
    gameday: Program, kube: Kube, tmp_path: Path, holders: None
) -> None:
    before = {name: (await _pods(kube, name))[0]["metadata"] for name in NAMES}
    file = write(tmp_path, method=_step("NoExecute"), steadyState=PROBES)
    planned = gameday("plan", file)
    assert planned.code == 0, planned.output
    told = {name for name, meta in before.items() if meta["name"] in planned.output}
    ended = gameday.run(file)
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    for name in NAMES:
        await eventually(partial(_ready, kube, name))
    after = {name: await _uid(kube, name) for name in NAMES}
    assert {name for name in NAMES if after[name] != before[name]["uid"]} == told == {"plain", "half"}


async def test_a_blast_radius_counts_the_pods_and_roles_name_the_rules(
    gameday: Program, kube: Kube, tmp_path: Path, holders: None
) -> None:
    radius = {"nodes": 1, "gpus": 8, "pods": 1}
    refused = gameday("plan", write(tmp_path, method=_step("NoExecute"), blastRadius=radius))
    assert refused.code == 4, refused.output
    file = write(tmp_path, method=_step("NoExecute"))
    printed = gameday("rbac", file, "--account", "default/narrow", stderr=False)
    assert printed.code == 0, printed.output
    documents = yaml.safe_load_all(printed.output)
    rules = [r for d in documents for r in d.get("rules") or () if r["resources"] == ["devicetaintrules"]]
    verbs = {verb: len(r.get("resourceNames") or ()) for r in rules for verb in r["verbs"]}
    assert (verbs["create"], verbs["delete"]) == (0, 3)


async def test_gpus_that_are_held_by_claims_are_counted(
    gameday: Program, kube: Kube, tmp_path: Path, holders: None
) -> None:
    """Of a pod as the scheduler allocated them, of a workload as its template asks for them."""
    steps: list[dict[str, Any]] = [
        {"podKill": {"selector": "claim=plain", "namespace": SPACE, "grace": 0}},
        {"scale": {"workload": "deployment/plain", "namespace": SPACE, "replicas": 0}, "for": "1s"},
    ]
    for step in steps:
        radius = {"pods": 1, "gpus": 0}
        refused = gameday("plan", write(tmp_path, method=[step], blastRadius=radius))
        assert refused.code == 4, refused.output
        assert "the plan touches 1 gpu (at most 0)" in " ".join(refused.output.split()), refused.output
        radius = {"pods": 1, "gpus": 1}
        ended = gameday.run(write(tmp_path, method=[step], blastRadius=radius, steadyState=PROBES))
        assert (ended.code, ended.verdict) == (0, "passed"), ended.output
        await eventually(lambda: _ready(kube, "plain"))


async def test_claims_that_may_not_be_read_are_named(
    platform: Platform, kube: Kube, tmp_path: Path, holders: None
) -> None:
    """Only where pods have some: a narrow account on a cluster without any claims loses nothing."""
    (claiming,) = await _pods(kube, "plain")
    without = {"metadata": claiming["metadata"] | {"uid": "another", "name": "another"}, "spec": {}}
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    async with (
        user(platform, kube, tmp_path, "claimless", rules) as narrow,
        await Kube.connect(narrow.kubeconfig) as client,
    ):
        found = await with_claims([of_pod(without), of_pod(claiming)], client)
    assert [e.name for e in found[2:]] == [f"resourceclaims/{SPACE}"]
    assert found[2].text.startswith(f"Pod {SPACE}/{claiming['metadata']['name']} holds")


@pytest.mark.parametrize("effect", ["None", "NoSchedule"])
async def test_other_effects_end_nothing(
    effect: str, gameday: Program, kube: Kube, tmp_path: Path, holders: None
) -> None:
    before = [await _uid(kube, name) for name in NAMES]
    ended = gameday.run(write(tmp_path, method=_step(effect)))
    assert (ended.code, ended.verdict) == (0, "passed"), ended.output
    seen = " ".join(_evidence(ended)["in"])
    assert ("pod would be evicted" in seen) == (effect == "None"), seen
    assert [await _uid(kube, name) for name in NAMES] == before
    assert await _rules(kube) == []


async def test_no_schedule_keeps_new_pods_waiting_until_a_killed_run_is_recovered(
    gameday: Program, kube: Kube, tmp_path: Path, holders: None
) -> None:
    with gameday.started(write(tmp_path, method=_step("NoSchedule", hold="60s"))) as run:
        run.fault_is("in")
        assert len(await _rules(kube)) == 3
        (pod,) = await _pods(kube, "plain")
        await kube.delete(Ref("v1", "Pod", pod["metadata"]["name"], SPACE))

        async def waits() -> bool:
            pods = [p for p in await _pods(kube, "plain") if p["metadata"]["uid"] != pod["metadata"]["uid"]]
            conditions = [c for p in pods for c in p["status"].get("conditions") or ()]
            return any(c["type"] == "PodScheduled" and c["status"] == "False" for c in conditions)

        await eventually(waits)
        run.signal(signal.SIGKILL)
        run.ended()
        ended = gameday("recover", "--run", run.folder.name, "--force")
        assert ended.code == 0, ended.output
    assert await _rules(kube) == []
    await eventually(lambda: _ready(kube, "plain"))


async def test_what_is_not_there_is_refused(
    gameday: Program, platform: Platform, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ended = gameday("plan", write(tmp_path, method=_step("NoExecute")))
    why = (
        "serves no DeviceTaintRule of resource.k8s.io: device taints need Kubernetes 1.35"
        if platform.name == "sandbox"
        else f"{DRIVER} publishes no device there"
    )
    assert why in " ".join(ended.output.split()), ended.output
    assert ended.code != 0


async def test_a_device_that_is_published_later_is_left(
    gameday: Program, kube: Kube, holders: None, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=_step("NoSchedule"), blastRadius={"nodes": 1, "gpus": 16})
    kept = await keep(gameday, file)
    ref = Ref(API, "ResourceSlice", "test-devices")
    spec = (await kube.get(ref))["spec"]
    pool = {**spec["pool"], "generation": 2}
    devices = [{"name": "dev-00"}, *({"name": f"dev-{n}"} for n in range(3))]
    await kube.patch(ref, {"spec": {**spec, "pool": pool, "devices": devices}}, "merge")
    ended = await asyncio.to_thread(gameday.run, file, "--plan", kept)
    assert ended.code == 0, ended.output
    assert len({e["object"] for e in ended.of("change")}) == 3
