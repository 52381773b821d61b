"""What was approved runs, or less, and never more: with a kept plan, and when things change in between."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gameday.experiment import registry
from gameday.experiment.loader import load
from gameday.extend import FaultError, PlanError
from gameday.ledger.operations import Create, Delete, Operation, Refused
from gameday.platform.claims import Devices
from gameday.platform.effect import Effect, Kind, Touch
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref, is_ready
from gameday.platform.resources import PODS
from gameday.platform.world import Victim
from gameday.safety.gate import Admission
from gameday.safety.plan import VERSION, Kept, Plan, digest_of
from gameday.safety.protected_list import why_namespace
from tests.e2e.experiments import REPLICAS, SCALE, write
from tests.platform.arrange import deployment
from tests.safety.test_effects import NODES, made, plan, refused, running_on
from tests.support.polling import eventually
from tests.support.program import Program
from tests.support.snapshot import Snapshot

TARGET = {"namespaces": ["platform", "training", "inference", "default"], "nodes": NODES}
DRAIN = {"drain": {"nodes": {"names": ["gpu-0"]}, "force": True}, "for": "1s"}
RADIUS = {"nodes": 1, "gpus": 64}


async def run(gameday: Program, file: Path, *more: Any) -> Any:
    return await asyncio.to_thread(gameday.run, file, *more)


async def keep(gameday: Program, file: Path, *more: Any) -> Path:
    kept = file.with_name("plan.json")
    ended = await asyncio.to_thread(gameday, "plan", file, "-o", kept, *more)
    assert ended.code == 0, ended.output
    return kept


async def test_a_kept_plan_evicts_no_more_than_was_approved(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """It was: 25 pods were evicted where none was approved."""
    file = write(tmp_path, method=[DRAIN], target=TARGET, blastRadius=RADIUS)
    kept = await keep(gameday, file)
    async with running_on(kube, "gpu-0", "default"), running_on(kube, "gpu-0", "default"):
        refused(await run(gameday, file, "--plan", kept), "pods would be touched now, but", "were approved")


async def test_a_step_evicts_no_more_than_was_approved(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """The pods come while the run waits; the gate looks again when the step comes."""
    file = write(tmp_path, method=[{"wait": "4s"}, DRAIN], target=TARGET, blastRadius=RADIUS)
    with gameday.started(file) as running:
        await asyncio.to_thread(running.until, lambda e: e["type"] == "step-started", "the wait begins")
        async with running_on(kube, "gpu-0", "default"), running_on(kube, "gpu-0", "default"):
            ended = await asyncio.to_thread(running.ended)
    assert ended.code == 3, ended.output
    assert "were approved" in " ".join(ended.output.split())
    assert not ended.of("change")


async def test_a_workload_that_has_grown_is_not_scaled_down(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    ref = Ref("apps/v1", "Deployment", "job-queue-controller", "platform")
    file = write(tmp_path, method=[{**SCALE, "for": "1s"}])
    kept = await keep(gameday, file)
    await kube.patch(ref, {"spec": {"replicas": 3}}, "merge")
    try:
        refused(await run(gameday, file, "--plan", kept), "would lose 3 pods", "but 2")
    finally:
        await kube.patch(ref, {"spec": {"replicas": 2}}, "merge")


async def test_the_seed_is_the_approved_one(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=[{"cordon": {"nodes": {**NODES, "pick": 1}}, "for": "1s"}])
    kept = await keep(gameday, file, "--seed", "4711")
    other = await run(gameday, file, "--plan", kept, "--seed", "5")
    assert other.code == 2
    assert "made with seed 4711" in other.output
    ended = await run(gameday, file, "--plan", kept)
    assert ended.code == 0, ended.output
    assert ended.of("run-started")[0]["seed"] == 4711


async def test_another_cluster_and_another_day(
    gameday: Program, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    file = write(tmp_path, method=[{**SCALE, "for": "1s"}])
    kept = await keep(gameday, file)
    data = json.loads(kept.read_text())
    for change, words in (
        ({"cluster": {**data["cluster"], "uid": "another"}}, "made for another cluster"),
        ({"expires": time.time() - 5400}, "the plan expired 1h"),
    ):
        forged = {**data, **change}
        forged["digest"] = digest_of({k: v for k, v in forged.items() if k != "digest"})
        kept.write_text(json.dumps(forged))
        refused(await run(gameday, file, "--plan", kept), words)


async def test_json_says_first_what_matters_most(gameday: Program, tmp_path: Path) -> None:
    file = write(tmp_path, method=[SCALE])
    ended = await asyncio.to_thread(gameday, "plan", file, "--json")
    data = json.loads(ended.output[ended.output.index("{") :])
    checks = [f["check"] for f in data["findings"]]
    assert checks[:3] == ["target", "cluster", "namespaces"]
    assert {"owners", "blast radius", "way back"} <= set(checks[:9])
    assert data["plan"]["cluster"]["uid"]
    effects = data["plan"]["steps"][0]["effects"]
    assert [(e["kind"], e["pods"]) for e in effects] == [("workload", 2)]


@pytest.mark.parametrize("where", ["Namespace", "Deployment", "Pod", "Node"])
async def test_a_label_protects_whatever_carries_it(
    where: str, gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """An object, its owners, its namespace, and the node that it is on."""
    pods = await kube.list(PODS, "platform", labels="app=job-queue-controller")
    ref = {
        "Namespace": Ref("v1", "Namespace", "platform"),
        "Deployment": Ref("apps/v1", "Deployment", "job-queue-controller", "platform"),
        "Pod": Ref("v1", "Pod", pods[0]["metadata"]["name"], "platform"),
        "Node": Ref("v1", "Node", pods[0]["spec"]["nodeName"]),
    }[where]
    kill = {"podKill": {"selector": "app=job-queue-controller", "namespace": "platform", "pick": "all"}}
    await kube.patch(ref, {"metadata": {"labels": {"gameday.dev/protect": "true"}}}, "merge")
    try:
        refused(await plan(gameday, tmp_path, kill), f"{ref} carries the label gameday.dev/protect")
    finally:
        await kube.patch(ref, {"metadata": {"labels": {"gameday.dev/protect": None}}}, "merge")


async def test_a_labelled_node_protects_the_workloads_on_it(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    pods = await kube.list(PODS, "platform", labels="app=job-queue-controller")
    node = Ref("v1", "Node", pods[0]["spec"]["nodeName"])
    await kube.patch(node, {"metadata": {"labels": {"gameday.dev/protect": "true"}}}, "merge")
    try:
        refused(await plan(gameday, tmp_path, SCALE), f"{node} carries the label gameday.dev/protect")
    finally:
        await kube.patch(node, {"metadata": {"labels": {"gameday.dev/protect": None}}}, "merge")


async def test_a_labelled_pod_protects_its_workload(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """Which of its pods a workload would lose nobody knows."""
    pods = await kube.list(PODS, "platform", labels="app=job-queue-controller")
    pod = Ref("v1", "Pod", pods[0]["metadata"]["name"], "platform")
    await kube.patch(pod, {"metadata": {"labels": {"gameday.dev/protect": "true"}}}, "merge")
    try:
        refused(await plan(gameday, tmp_path, SCALE), f"{pod} carries the label gameday.dev/protect")
    finally:
        await kube.patch(pod, {"metadata": {"labels": {"gameday.dev/protect": None}}}, "merge")


async def test_a_labelled_pod_takes_no_approved_ones_place(
    gameday: Program, kube: Kube, tmp_path: Path
) -> None:
    """The approved pod was replaced, and its successors were labelled since: nothing is killed."""
    kill = {
        "podKill": {"selector": "app=job-queue-controller", "namespace": "platform", "pick": 1, "grace": 0}
    }
    file, kept = write(tmp_path, method=[kill]), tmp_path / "plan.json"
    planned = await asyncio.to_thread(gameday, "plan", file, "-o", kept)
    assert planned.code == 0, planned.output
    (victim,) = json.loads(kept.read_text())["steps"][0]["victims"]
    gone = Ref.from_data(victim["ref"])
    await kube.delete(gone, grace=0)

    async def pods() -> list[Ref]:
        found = await kube.list(PODS, "platform", labels="app=job-queue-controller")
        return [Ref.of({"apiVersion": "v1", "kind": "Pod"} | p) for p in found if is_ready(p)]

    now = await eventually(pods, lambda found: len(found) >= 2 and gone.uid not in {r.uid for r in found})
    for ref in now:
        await kube.patch(ref, {"metadata": {"labels": {"gameday.dev/protect": "true"}}}, "merge")
    try:
        ended = await asyncio.to_thread(gameday.run, file, "--plan", kept)
        assert {r.uid for r in await pods()} == {r.uid for r in now}, ended.output
        assert not ended.of("change"), ended.output
    finally:
        for ref in now:
            await kube.patch(ref, {"metadata": {"labels": {"gameday.dev/protect": None}}}, "merge")


async def test_a_label_that_comes_in_between(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    node = Ref("v1", "Node", "gpu-0")
    cordon = {"cordon": {"nodes": {"names": ["gpu-0"]}}, "for": "1s"}
    with gameday.started(write(tmp_path, method=[{"wait": "4s"}, cordon])) as running:
        await asyncio.to_thread(running.until, lambda e: e["type"] == "step-started", "the wait begins")
        await kube.patch(node, {"metadata": {"labels": {"gameday.dev/protect": ""}}}, "merge")
        try:
            ended = await asyncio.to_thread(running.ended)
        finally:
            await kube.patch(node, {"metadata": {"labels": {"gameday.dev/protect": None}}}, "merge")
    assert ended.code == 3, ended.output
    assert "carries the label gameday.dev/protect" in " ".join(ended.output.split())
    assert not ended.of("change")


async def test_the_clusters_own_namespaces_and_nodes(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    target = {"namespaces": ["kube-system", "platform"], "nodes": NODES}
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "all", "namespace": "kube-system"},
        "spec": {"hard": {"pods": "100"}},
    }
    step = {"quota": {"name": "all", "namespace": "kube-system", "hard": {"pods": "50"}}, "for": "1s"}
    radius = {"namespaces": ["kube-system"]}
    async with made(kube, quota):
        refused(
            await plan(gameday, tmp_path, step, target=target, blastRadius=radius),
            "Namespace kube-system is protected",
            "spec.target.allowProtected: [Namespace/kube-system]",
        )
        target = {**target, "allowProtected": ["Namespace/kube-system"]}
        allowed = await plan(gameday, tmp_path, step, target=target, blastRadius=radius)
        assert allowed.code == 0, allowed.output
    node = Ref("v1", "Node", "gpu-0")
    label = "node-role.kubernetes.io/control-plane"
    await kube.patch(node, {"metadata": {"labels": {label: ""}}}, "merge")
    try:
        cordon = {"cordon": {"nodes": {"names": ["gpu-0"]}}, "for": "1s"}
        refused(await plan(gameday, tmp_path, cordon), "Node gpu-0 is protected: it is of the control plane")
    finally:
        await kube.patch(node, {"metadata": {"labels": {label: None}}}, "merge")


async def test_what_a_cluster_depends_on(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """A node that only runs etcd, and the namespaces of operators and drivers."""
    node, label = Ref("v1", "Node", "gpu-0"), "node-role.kubernetes.io/etcd"
    await kube.patch(node, {"metadata": {"labels": {label: "true"}}}, "merge")
    try:
        cordon = {"cordon": {"nodes": {"names": ["gpu-0"]}}, "for": "1s"}
        refused(await plan(gameday, tmp_path, cordon), "Node gpu-0 is protected: a member of etcd runs there")
    finally:
        await kube.patch(node, {"metadata": {"labels": {label: None}}}, "merge")
    step = {
        "scale": {"workload": "deployment/webhook", "namespace": "cert-manager", "replicas": 0},
        "for": "1s",
    }
    app = deployment("cert-manager", "webhook", replicas=1)
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "cert-manager"}}
    async with made(kube, space), made(kube, app):
        target: dict[str, Any] = {"namespaces": ["cert-manager"]}
        ended = await plan(gameday, tmp_path, step, target=target, blastRadius={"pods": 1})
        refused(ended, "Namespace cert-manager is protected: certificates and secrets come from there")
        target["allowProtected"] = ["Namespace/cert-manager"]
        ended = await plan(gameday, tmp_path, step, target=target, blastRadius={"pods": 1})
        assert ended.code == 0, ended.output


async def test_what_a_cluster_protects_itself(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    policy = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "gameday-policy", "namespace": "gameday"},
        "data": {
            "protectedNamespaces": "# ours\nteam-*\nplat*: the control room is there\n",
            "protectedNodeLabels": "gpu-3.example.com/only: it is the last of its kind",
        },
    }
    node = Ref("v1", "Node", "gpu-3")
    await kube.patch(node, {"metadata": {"labels": {"gpu-3.example.com/only": ""}}}, "merge")
    try:
        async with made(kube, policy):
            ended = await plan(gameday, tmp_path, SCALE | {"for": "1s"})
            refused(ended, "Namespace platform is protected: the control room is there")
            cordon = {"cordon": {"nodes": {"names": ["gpu-3"]}}, "for": "1s"}
            ended = await plan(gameday, tmp_path, cordon)
            refused(ended, "Node gpu-3 is protected: it is the last of its kind")
    finally:
        await kube.patch(node, {"metadata": {"labels": {"gpu-3.example.com/only": None}}}, "merge")


@pytest.mark.fast
def test_pods_that_a_fault_chooses_count_with_their_claims() -> None:
    """A pod that took the place of an approved one may hold its GPUs by a claim, and not by a limit."""
    ref = Ref("v1", "Pod", "other", "training", "uid-2")
    admission = Admission("1", (), 1, 1, frozenset({"training"}), held={"uid-2": Devices(2)})
    with pytest.raises(FaultError, match="more GPUs than were approved"):
        admission.victims([Victim(ref, "pod")])
    admission.held = {"uid-2": Devices(1)}
    admission.victims([Victim(ref, "pod")])


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "words"),
    [
        *(
            (n, "own components")
            for n in ("kube-system", "kube-flannel", "openshift-etcd", "gke-managed-system")
        ),
        *(
            (n, "drivers and plugins")
            for n in ("gpu-operator", "nvidia-network-operator", "kmm-operator-system")
        ),
        *(
            (n, "volumes")
            for n in ("rook-ceph", "longhorn-system", "dell-csi-isilon", "csi-wekafs", "vast-csi")
        ),
        *((n, "network depends") for n in ("calico-system", "cilium", "tigera-operator")),
        *((n, "from outside") for n in ("ingress-nginx", "istio-system", "metallb-system")),
        ("capi-kubeadm-bootstrap-system", "management"),
        ("capa-system", "management"),
        ("kai-resource-reservation", "GPUs"),
        ("gameday", "records"),
        *((n, "") for n in ("default", "inference", "training", "platform", "argocd", "slurm", "monitoring")),
        *((n, "") for n in ("kubeflow", "my-capacity", "cap-system", "physics", "team-gpu-operators")),
    ],
)
def test_the_built_in_list(name: str, words: str) -> None:
    why = why_namespace(name, {})
    assert bool(why) == bool(words)
    assert words in why


async def test_where_consent_is_required(
    gameday: Program, kube: Kube, tmp_path: Path, world_unchanged: Snapshot
) -> None:
    """By our flag, or by the cluster's own policy; then only namespaces that say so."""
    file = write(tmp_path, method=[{**SCALE, "for": "1s"}])
    words = "namespace platform does not carry the label gameday.dev/allow"
    refused(await asyncio.to_thread(gameday, "plan", file, "--require-consent"), words)
    policy = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "gameday-policy", "namespace": "gameday"},
        "data": {"requireConsent": "true"},
    }
    if await kube.find(Ref("v1", "Namespace", "gameday")) is None:
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gameday"}})
    space = Ref("v1", "Namespace", "platform")
    async with made(kube, policy):
        refused(await run(gameday, file), words)
        await kube.patch(space, {"metadata": {"labels": {"gameday.dev/allow": ""}}}, "merge")
        try:
            assert (await asyncio.to_thread(gameday, "plan", file)).code == 0
        finally:
            await kube.patch(space, {"metadata": {"labels": {"gameday.dev/allow": None}}}, "merge")


# -- without a platform ----------------------------------------------------------------------------


def pod_ref(number: int, namespace: str = "a") -> Ref:
    return Ref("v1", "Pod", f"p{number}", namespace, f"uid-{number}")


@pytest.mark.fast
def test_the_ledgers_last_word() -> None:
    """Others that were looked at may take the place of approved pods, but not more of them, nor elsewhere."""
    effects = tuple(Effect(Kind.POD, pod_ref(n), node="n0", gpus=1) for n in range(2))
    admission = Admission("1", effects, 2, 2, frozenset({"a"}))
    with pytest.raises(Refused, match="outside of what was approved"):
        admission.operations([Delete(pod_ref(7))])
    admission.victims([Victim(pod_ref(7), "pod"), Victim(pod_ref(7, "b"), "pod")])
    admission.operations([Delete(pod_ref(7)), Delete(pod_ref(0)), Delete(pod_ref(7))])
    for beyond in (pod_ref(1), pod_ref(9), pod_ref(7, "b"), replace(pod_ref(7), uid="another")):
        with pytest.raises(Refused, match="outside of what was approved"):
            admission.operations([Delete(beyond)])
    with pytest.raises(Refused, match="Deployment a/d is outside"):
        admission.operations([Delete(Ref("apps/v1", "Deployment", "d", "a"))])
    with pytest.raises(FaultError, match="3 pods match now, but 2"):
        admission.victims([Victim(pod_ref(n), "pod") for n in range(3)])


POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": "gameday"}}


@dataclass(frozen=True)
class OnANode(Delete):
    """An operation with a `node`, as a program has one; with `program` it says that it runs there."""

    node: str = "n0"
    program: bool = False

    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.ref, made=True, runs_on=self.node),) if self.program else super().touches()


@pytest.mark.fast
def test_an_operation_is_admitted_for_what_it_is_and_not_for_what_it_says() -> None:
    chaos = Ref("chaos-mesh.org/v1alpha1", "NetworkChaos", "gameday-run-1", "a")
    effects = (Effect(Kind.CREATED, chaos), Effect(Kind.NODE, Ref("v1", "Node", "n0")))
    admission = Admission("1", effects, 0, 0, frozenset())
    manifest = {
        "apiVersion": chaos.api_version,
        "kind": chaos.kind,
        "metadata": {"name": "x", "namespace": "a"},
    }
    program = OnANode(Ref("v1", "Pod", "program", "gameday"), program=True)
    admission.operations([Create.of(manifest, "run"), program])
    for beyond in (
        Delete(replace(chaos, name="somebody-elses")),
        Create.of(manifest | {"apiVersion": "example.com/v1"}, "run"),
        replace(program, node="n1"),
        replace(program, program=False),
        replace(program, ref=replace(program.ref, namespace="a")),
        replace(program, ref=replace(program.ref, kind="Secret")),
        Create.of(POD, "run"),
        OnANode(Ref("v1", "ConfigMap", "gameday-lever", "gameday")),
        OnANode(Ref("v1", "Secret", "gameday-another-run", "gameday")),
    ):
        with pytest.raises(Refused, match="outside of what was approved"):
            admission.operations([beyond])


@pytest.mark.fast
def test_a_program_needs_its_node_and_not_just_a_pod_on_it() -> None:
    """Where a pod is the victim the node is still what a program changes; and a program is no cordon."""
    program = OnANode(Ref("v1", "Pod", "program", "gameday"), program=True)
    on_it = Admission("1", (Effect(Kind.POD, pod_ref(0), node="n0"),), 1, 0, frozenset({"a"}))
    on_it.victims([Victim(pod_ref(0), "pod", "n0")])
    with pytest.raises(Refused, match="outside of what was approved"):
        on_it.operations([program])
    node = Ref("v1", "Node", "n0")
    itself = Admission("1", (Effect(Kind.OBJECT, node),), 0, 0, frozenset())
    itself.operations([program])
    with pytest.raises(Refused, match="outside of what was approved"):
        itself.operations([Delete(node)])


@pytest.mark.fast
@pytest.mark.parametrize("role", ["node", "workload"])
def test_lasting_things_are_those_that_were_approved(role: str) -> None:
    """A fault that chooses anew, as Chaos Mesh's selectors of machines do, chooses among them."""
    known, other = (Ref("example.com/v1", "Machine", name, "a") for name in ("m0", "m1"))
    admission = Admission("1", (Effect(Kind.NODE, known),), 0, 0, frozenset({"a"}))
    admission.victims([Victim(known, role)])
    with pytest.raises(FaultError, match="Machine a/m1 was not approved"):
        admission.victims([Victim(other, role)])


@dataclass(frozen=True)
class Says(Delete):
    """An operation on one object that touches others as well, or gives no answer."""

    said: Any = ()

    def touches(self) -> Any:
        return self.said


@pytest.mark.fast
@pytest.mark.parametrize("said", [(), None, [Touch(pod_ref(0))], (pod_ref(0),), "Pod a/p0", NotImplemented])
def test_an_operation_that_cannot_say_what_it_touches_is_refused(said: Any) -> None:
    admission = Admission("1", (Effect(Kind.POD, pod_ref(0)),), 1, 0, frozenset({"a"}))
    with pytest.raises(Refused, match="Says does not say what it touches"):
        admission.operations([Says(pod_ref(0), said=said)])


@pytest.mark.fast
def test_whatever_an_operation_touches_has_to_be_approved() -> None:
    config = Ref("v1", "ConfigMap", "c", "a")
    admission = Admission("1", (Effect(Kind.OBJECT, config),), 0, 0, frozenset())
    admission.operations([Says(config, said=(Touch(config),))])
    beyond = (Touch(config), Touch(replace(config, name="d")))
    with pytest.raises(Refused, match="ConfigMap a/c, which touches ConfigMap a/d, is outside"):
        admission.operations([Says(config, said=beyond)])


@pytest.mark.fast
@pytest.mark.parametrize("kind", registry.names(registry.OPERATIONS))
def test_every_operation_of_the_catalogue_says_what_it_touches(kind: str) -> None:
    operation = registry.load(registry.OPERATIONS, kind)
    assert operation.touches is not Operation.touches


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
KEYS = ("seed", "cluster", "made", "expires", "steps")
STEP_KEYS = ("path", "victims", "effects", "changes", "warnings", "needs", "endsPods", "data", "basis")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(write(tmp_path_factory.mktemp("plan"), method=[SCALE], steadyState=[REPLICAS])).experiment


@pytest.mark.fast
@given(key=st.sampled_from((*KEYS, *STEP_KEYS)), value=JSON)
@example(key="victims", value=[])
def test_a_damaged_plan_is_refused_in_words(key: str, value: Any, written: Any) -> None:
    """Also one whose digest was made anew: no stack trace, whatever is in it."""
    step = {
        "path": "1",
        "victims": [],
        "effects": [],
        "changes": [],
        "irreversible": [],
        "warnings": [],
        "needs": [],
        "endsPods": False,
        "data": {},
        "basis": {},
    }
    data: dict[str, Any] = {
        "version": VERSION,
        "seed": 1,
        "experiment": digest_of(written.model_dump(mode="json")),
        "cluster": {"uid": "u", "server": "s", "version": "v", "context": "c"},
        "systems": {},
        "made": 0,
        "expires": 1,
        "steps": [step],
    }
    whole = data | step
    if key in STEP_KEYS:
        step[key] = value
    else:
        data[key] = value
    data["digest"] = digest_of(data)
    try:
        assert Plan.from_data(data, written).steps.keys() == {"1"}
    except PlanError:
        assert json.dumps(value) != json.dumps(whole.get(key)), (
            "what is whole is taken"
        )  # in JSON 1 is not true


@pytest.mark.fast
@given(JSON)
def test_what_is_no_plan_at_all(written: Any, data: Any) -> None:
    with pytest.raises(PlanError, match="damaged"):
        Plan.from_data(data, written)


@pytest.mark.fast
def test_the_file_of_a_kept_plan_is_read_once(written: Any, tmp_path: Path) -> None:
    """Its seed and its steps are of one reading: who changes the file in between changes nothing."""
    digest = digest_of(written.model_dump(mode="json"))
    cluster = {"uid": "u", "server": "s", "version": "v", "context": "c"}
    data: dict[str, Any] = {"version": VERSION, "seed": 7, "experiment": digest, "cluster": cluster}
    data |= {"systems": {}, "made": 0, "expires": 1, "steps": []}
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({**data, "digest": digest_of(data)}))
    kept = Kept.read(file)
    file.write_text("another one")
    assert kept.seed == 7
    with pytest.raises(PlanError, match="does not hold all steps"):
        kept.plan(written)
    file.write_text(json.dumps({**data, "digest": digest_of(data), "seed": 8}))
    changed = Kept.read(file)
    assert changed.seed is None
    with pytest.raises(PlanError, match="was changed"):
        changed.plan(written)
