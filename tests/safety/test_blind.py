"""What may not be read is not taken for what is not there: it is refused, or named."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from gameday.events import Preflight
from gameday.extend import FaultPlan
from gameday.faults.budgets import foresee
from gameday.faults.pod_kill import PodKillSpec
from gameday.faults.pods import pod_victim
from gameday.faults.scale import Scale, ScaleSpec
from gameday.platform.effect import Effect, Kind, of_pod, of_victim
from gameday.platform.errors import NotServed, WrongAnswer
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.permission import Permission
from gameday.platform.world import World
from gameday.safety.nogo import no_go
from gameday.safety.plan import Plan, StepPlan
from gameday.safety.protection import protected
from gameday.safety.rbac import needed
from tests.platform.arrange import deployment, pod
from tests.safety.cases import case
from tests.support.polling import eventually
from tests.support.proxy import ApiProxy
from tests.support.unruly import Unruly, unruly

pytestmark = pytest.mark.fast

SPACE = "training"
ALWAYS = 10_000  # more often than anything is asked


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Unruly]:
    async with unruly(tmp_path) as running:
        yield running


@pytest.fixture
async def denied(server: Unruly, tmp_path: Path) -> AsyncIterator[ApiProxy]:
    """What stands before the API server and may refuse to read, as RBAC does."""
    proxy = ApiProxy(server.kubeconfig, tmp_path / "kubeconfig-denied")
    await asyncio.to_thread(proxy.start)
    try:
        yield proxy
    finally:
        await asyncio.to_thread(proxy.close)


@pytest.fixture
async def kube(denied: ApiProxy) -> AsyncIterator[Kube]:
    async with await Kube.connect(denied.kubeconfig) as client:
        for name in (SPACE, "gameday"):
            await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        await client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-0"}, "spec": {}})
        yield client


def owned(obj: Object, owner: Object, is_controller: bool = True) -> Object:
    meta = owner["metadata"]
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"]}
    references = [{**reference, "uid": meta["uid"], "controller": is_controller}]
    return obj | {"metadata": obj["metadata"] | {"ownerReferences": references}}


async def trainer(kube: Kube) -> tuple[Object, Object, Object]:
    """A Deployment, its ReplicaSet, and a pod of it on a node."""
    top = await kube.create(deployment(SPACE, "trainer", 1))
    spec = {k: top["spec"][k] for k in ("selector", "template")} | {"replicas": 1}
    meta = {"name": "trainer-1", "namespace": SPACE}
    middle = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta, "spec": spec}
    middle = await kube.create(owned(middle, top))
    return top, middle, await kube.create(owned(pod(SPACE, {"app": "trainer"}, "gpu-0"), middle))


@pytest.mark.parametrize(("kind", "name"), [("ReplicaSet", "trainer-1"), ("Deployment", "trainer")])
async def test_an_owner_that_may_not_be_read_may_be_protected(
    kind: str, name: str, kube: Kube, denied: ApiProxy
) -> None:
    *_, member = await trainer(kube)
    world = World(kube, namespaces=(SPACE,))
    assert await protected([of_pod(member, ends=True)], world) == []
    denied.fail("GET", f"/{kind.lower()}s/{name}$", 403, reason="Forbidden", times=ALWAYS)
    (found,) = await protected([of_pod(member, ends=True)], world)
    assert found.startswith(f"{kind} {SPACE}/{name} may not be read, so nobody knows whether it carries")


@pytest.mark.parametrize("served", [("v1", "v2"), ("v2",), ()])
@pytest.mark.parametrize("is_controller", [True, False])
async def test_an_owner_protects_in_whatever_version_and_part(
    is_controller: bool, served: tuple[str, ...], kube: Kube
) -> None:
    """Also one that is no controller; where its kind is not served any more, nobody knows whether it does."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [{"name": v, "served": True, "storage": v == "v1", "schema": schema} for v in ("v1", "v2")]
    names = {"plural": "teams", "singular": "team", "kind": "Team"}
    crd = await kube.create(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "teams.example.com"},
            "spec": {"group": "example.com", "scope": "Cluster", "names": names, "versions": versions},
        }
    )
    labels = {"gameday.dev/protect": "true"}
    team: Object = {
        "apiVersion": "example.com/v1",
        "kind": "Team",
        "metadata": {"name": "a", "labels": labels},
    }
    owner = await eventually(lambda: _created(kube, team))
    assert owner is not None
    *_, member = await trainer(kube)
    references = member["metadata"]["ownerReferences"] if not is_controller else []
    more = owned({"metadata": {}}, owner, is_controller)["metadata"]["ownerReferences"]
    ref = Ref.of(member)
    member = await kube.patch(ref, {"metadata": {"ownerReferences": [*references, *more]}}, "merge")
    body = [
        {"op": "replace", "path": f"/spec/versions/{n}/served", "value": v["name"] in served}
        for n, v in enumerate(versions)
    ]
    await kube.patch(Ref.of(crd), body)
    said = "carries the label" if served else "may not be read, so nobody knows whether it carries the label"
    for effect in (of_pod(member), of_victim(pod_victim(member)), Effect(Kind.POD, ref)):
        (found,) = await protected([effect], World(kube, namespaces=(SPACE,)))
        assert re.match(f"Team ({SPACE}/)?a {said} gameday.dev/protect", found), found


async def _created(kube: Kube, obj: Object) -> Object | None:
    try:
        return await kube.create(obj)
    except (NotServed, WrongAnswer):
        return None


async def test_a_protected_pod_whose_owner_may_not_be_read_may_be_of_the_workload(
    kube: Kube, denied: ApiProxy
) -> None:
    top, _, member = await trainer(kube)
    ref = Ref.of(member)
    await kube.patch(ref, {"metadata": {"labels": {"gameday.dev/protect": "true"}}}, "merge")
    spec = ScaleSpec(workload="deployment/trainer", namespace=SPACE, replicas=0)
    world = World(kube, namespaces=(SPACE,))
    effects = await Scale().effects(await Scale().plan(spec, world), world)
    denied.fail("GET", "/replicasets/trainer-1$", 403, reason="Forbidden", times=ALWAYS)
    found = await protected(effects, world)
    assert any(f"{ref.named} carries the label gameday.dev/protect" in text for text in found), found
    assert top["metadata"]["name"] in str(effects[0].ref)


async def test_autoscalers_that_may_not_be_read_are_named(kube: Kube, denied: ApiProxy) -> None:
    await trainer(kube)
    spec = ScaleSpec(workload="deployment/trainer", namespace=SPACE, replicas=0)
    world = World(kube, namespaces=(SPACE,))
    assert (await Scale().plan(spec, world)).warnings == ()
    denied.fail("GET", "/horizontalpodautoscalers", 403, reason="Forbidden", times=ALWAYS)
    (warning,) = (await Scale().plan(spec, world)).warnings
    assert re.search("whether a HorizontalPodAutoscaler fights .* trainer could not be seen", warning)


@pytest.mark.parametrize(
    "status",
    [None, {}, {"disruptionsAllowed": 5, "observedGeneration": 0}, {"disruptionsAllowed": 0}],
    ids=["no status", "an empty one", "one of an older budget", "nothing allowed"],
)
async def test_a_budget_whose_controller_has_not_seen_it_holds_up_a_drain(
    status: Object | None, kube: Kube
) -> None:
    """The server refuses each eviction until then (eviction.go, checkAndDecrement)."""
    _, _, member = await trainer(kube)
    running = member | {"status": {"phase": "Running"}}
    allowed = {"disruptionsAllowed": 1, "observedGeneration": 1}
    assert await holds(kube, "seen", running, allowed) == []
    (text,) = await holds(kube, "unseen", running, status)
    assert text.startswith(f"PodDisruptionBudget {SPACE}/unseen allows no eviction now, and would hold")


async def holds(kube: Kube, name: str, member: Object, status: Object | None) -> Sequence[str]:
    """What a drain of a pod is told of the one budget that covers it, with this status."""
    spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "trainer"}}}
    meta = {"name": name, "namespace": SPACE}
    made = await kube.create(
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta, "spec": spec}
    )
    try:
        if status is not None:
            await kube.patch(Ref.of(made), {"status": status}, "merge", subresource="status")
        stops, held = await foresee([member], kube)
        assert stops == []
        return held
    finally:
        await kube.delete(Ref.of(made))


@pytest.mark.parametrize(("group", "plural"), [("apps", "replicasets"), ("batch", "jobs")])
def test_roles_of_today_read_the_owners_of_tomorrow(group: str, plural: str) -> None:
    """Each update of a Deployment makes another ReplicaSet, which may carry the label as well."""
    path = f"/apis/{group}/v1/namespaces/team/{plural}/of-today"
    heard = Permission.of_request("GET", path, {}, watch=False)
    assert heard is not None
    assert Permission.parse(f"get {plural}.{group} team") in needed(Plan(1), [heard])


def told(findings: Sequence[Preflight]) -> list[tuple[str, str]]:
    return [(f.level, f.message) for f in findings if "may not be read" in f.message]


async def test_an_update_of_what_may_not_be_read_is_not_known(
    kube: Kube, denied: ApiProxy, tmp_path: Path
) -> None:
    *_, member = await trainer(kube)
    fault = FaultPlan(PodKillSpec(selector="app=trainer", namespace=SPACE), (), effects=(of_pod(member),))
    plan = Plan(1, steps={"1": StepPlan("1", "kill", "podKill", None, 1, fault)})
    world = World(kube, namespaces=(SPACE,))
    assert told(await no_go(case(tmp_path, plan, world))) == []
    denied.fail("GET", "/deployments/trainer$", 403, reason="Forbidden", times=ALWAYS)
    ((level, message),) = told(await no_go(case(tmp_path, plan, world)))
    assert level == "warning"
    assert message.startswith(
        f"Deployment {SPACE}/trainer may not be read, so nobody knows whether an update"
    )


@pytest.mark.parametrize("named", ["", "nvsentinel"])
@pytest.mark.parametrize("path", ["/namespaces/nvsentinel$", "/configmaps/circuit-breaker$"])
async def test_a_circuit_breaker_that_may_not_be_read_is_not_closed(
    path: str, named: str, kube: Kube, denied: ApiProxy, tmp_path: Path
) -> None:
    """Where the file names the namespace it is refused; else a warning, since there may be no NVSentinel."""
    world = World(kube, namespaces=(SPACE,))
    asked = case(tmp_path, Plan(1), world, **({"noGo": {"nvsentinel": named}} if named else {}))
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "nvsentinel"}}
    meta = {"name": "circuit-breaker", "namespace": "nvsentinel"}
    await kube.create(space)
    await kube.create(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"status": "CLOSED"}}
    )
    assert await no_go(asked) == []
    denied.fail("GET", path, 403, reason="Forbidden", times=ALWAYS)
    found = told(await no_go(asked))
    if named and "namespaces" in path:
        assert found == []  # the file says that it is there
    else:
        ((level, message),) = found
        assert level == ("refused" if named else "warning")
        assert "nobody knows whether NVSentinel's circuit breaker has tripped" in message
