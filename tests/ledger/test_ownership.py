"""Undo takes back what this run wrote, and not what merely looks like it; in whatever order steps end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gameday.events import Audited, Event
from gameday.ledger.edits import Edit
from gameday.ledger.ledger import Ledger
from gameday.ledger.operations import Evict, Operation, Patch, Refused, Undone
from gameday.ledger.recovery import How, recover
from gameday.ledger.store import ensure_namespace, records, unpack
from gameday.ledger.survey import survey
from gameday.platform.effect import Touch
from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.ledgers import unguarded
from tests.support.platforms import Platform
from tests.support.proxy import ApiProxy

RUN = "owner-test"
CORDON = Edit(("spec", "unschedulable"), True)
TAINT = Edit(
    ("spec", "taints"), {"key": "k", "effect": "NoSchedule"}, item=(("effect", "NoSchedule"), ("key", "k"))
)
REPLICAS = ("spec", "replicas")


@pytest.fixture
async def ours(platform: Platform) -> AsyncIterator[Kube]:
    """The run's own client."""
    async with await Kube.connect(platform.kubeconfig) as client:
        yield client


@pytest.fixture
async def ledger(ours: Kube, tmp_path: Path) -> AsyncIterator[Ledger]:
    await ensure_namespace(ours)
    made = unguarded(ours, RUN, tmp_path, {"experiment": "test"}, lambda _: None)
    yield made
    await made.undo()
    await made.close(restored=True)


@pytest.fixture
async def node(kube: Kube) -> AsyncIterator[Ref]:
    ref = Ref("v1", "Node", "owner-test")
    meta = {"name": ref.name, "labels": {"a": "b"}}  # without a field to own, an API server records no owner
    await kube.create({"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {}})
    yield ref
    await kube.delete(ref)


@pytest.fixture
async def deployment(kube: Kube) -> AsyncIterator[Ref]:
    """Of three replicas that nobody schedules."""
    ref = Ref("apps/v1", "Deployment", "owner-test", "default")
    pod = {
        "containers": [{"name": "app", "image": "nothing.invalid/app"}],
        "nodeName": "",
        "schedulerName": "no",
    }
    labels = {"app": "owner-test"}
    spec = {
        "replicas": 3,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    meta = {"name": ref.name, "namespace": ref.namespace}
    await kube.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})
    yield ref
    await kube.delete(ref)


async def _set(kube: Kube, ref: Ref, manager: str = "kubectl", **spec: Any) -> None:
    """What another person does."""
    await kube.patch(ref, {"spec": spec}, "merge", manager=manager)


async def _spec(kube: Kube, ref: Ref) -> Object:
    return dict((await kube.get(ref))["spec"])


async def _patch(kube: Kube, ref: Ref, *edits: Edit) -> Patch:
    patch = await Patch.of(kube, ref, *edits)
    assert patch is not None
    return patch


async def _scale(ledger: Ledger, step: str, ref: Ref, replicas: int) -> None:
    await ledger.step(step).perform([await _patch(ledger.kube, ref, Edit(REPLICAS, replicas))])


def _recorded(found: list[Object]) -> list[tuple[str, Any, Any]]:
    """State, before and after of each change in the cluster's record of the run."""
    mine = [r for f in found if f["metadata"]["name"] == f"gameday-{RUN}" for r in unpack(f)]
    return [(r["state"], *(r["op"]["edits"][0][k] for k in ("before", "after"))) for r in mine]


async def _by_another_process(kube: Kube) -> list[str]:
    """What `gameday recover` does after a kill -9: it has the record alone. Returns what the audit saw."""
    assert RUN in {r.run for r in (await survey(kube)).runs}
    result = await recover(kube, RUN, lambda _: None, how=How(force=True))
    return [a.state for a in result.audits]


# -- a value that equals ours ----------------------------------------------------------------------


async def test_a_cordon_by_somebody_else_in_between_is_not_ours(
    kube: Kube, ledger: Ledger, node: Ref
) -> None:
    """Our change is refused, since the node is cordoned by now: undo leaves it to who did that."""
    entries = await ledger.intend("1", [await _patch(ledger.kube, node, CORDON)])
    await _set(kube, node, unschedulable=True)
    with pytest.raises(Refused):
        await ledger.make(entries[0])
    assert [state for state, *_ in _recorded(await records(kube))] == ["not-made"]
    await ledger.undo()
    assert (await _spec(kube, node))["unschedulable"] is True
    assert await ledger.audit() == []


async def test_a_run_killed_before_its_change_takes_nobody_elses_back(
    kube: Kube, ledger: Ledger, node: Ref
) -> None:
    await ledger.intend("1", [await _patch(ledger.kube, node, CORDON)])
    await _set(kube, node, unschedulable=True)
    assert await _by_another_process(kube) == ["kept"]
    assert (await _spec(kube, node))["unschedulable"] is True


async def test_a_run_killed_after_its_change_is_put_back(kube: Kube, ledger: Ledger, node: Ref) -> None:
    """The answer never came, so the record says `intended` as if nothing had been made."""
    (entry,) = await ledger.intend("1", [await _patch(ledger.kube, node, CORDON, TAINT)])
    await entry.operation.make(ledger.kube)
    assert await _by_another_process(kube) == ["restored"]
    assert not (await _spec(kube, node)).get("unschedulable")


async def test_who_took_it_back_and_did_it_again_owns_it(kube: Kube, ledger: Ledger, node: Ref) -> None:
    await ledger.step("1").perform([await _patch(ledger.kube, node, CORDON)])
    await _set(kube, node, unschedulable=None)
    await _set(kube, node, unschedulable=True)
    (entry,) = await ledger.undo()
    assert (entry.state, "kubectl" in entry.message) == ("kept", True)
    assert (await _spec(kube, node))["unschedulable"] is True
    assert [a.state for a in await ledger.audit()] == ["kept"]


async def test_a_taint_stays_ours_when_others_edit_the_list(kube: Kube, ledger: Ledger, node: Ref) -> None:
    """The list of taints is one value to managedFields: who adds one owns all of them."""
    await ledger.step("1").perform([await _patch(ledger.kube, node, TAINT)])
    taints = (await _spec(kube, node))["taints"]
    await _set(kube, node, taints=[*taints, {"key": "theirs", "effect": "NoSchedule"}])
    (entry,) = await ledger.undo()
    assert entry.state == "undone"
    left = {t["key"] for t in (await _spec(kube, node))["taints"]}
    assert ("theirs" in left, "k" in left) == (True, False)


async def test_what_is_ours_is_put_back_though_managed_fields_were_cleared(
    kube: Kube, ledger: Ledger, node: Ref
) -> None:
    await ledger.step("1").perform([await _patch(ledger.kube, node, CORDON)])
    await kube.patch(node, {"metadata": {"managedFields": [{}]}}, "merge")
    assert [e.state for e in await ledger.undo()] == ["undone"]
    assert not (await _spec(kube, node)).get("unschedulable")


async def test_an_eviction_that_was_refused_ended_nothing(
    kube: Kube, ledger: Ledger, deployment: Ref
) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "owner-test", "namespace": "default"},
        "spec": {"containers": [{"name": "app", "image": "nothing.invalid/app"}], "schedulerName": "no"},
    }
    ref = Ref.of(await kube.create(pod))
    try:
        await ledger.intend("1", [Evict(ref)])
        assert [e.state for e in await ledger.undo()] == ["undone"]
        assert [a.state for a in await ledger.audit()] == ["restored"]
    finally:
        await kube.delete(ref, grace=0)


# -- changes that lie over each other --------------------------------------------------------------


async def test_overlapping_changes_end_at_the_first_value_whoever_goes_first(
    kube: Kube, ledger: Ledger, deployment: Ref
) -> None:
    for order in (("1.1", "1.2"), ("1.2", "1.1")):
        await _scale(ledger, "1.1", deployment, 1)
        await _scale(ledger, "1.2", deployment, 5)
        seen = []
        for step in order:
            await ledger.undo(step)
            seen.append((await _spec(kube, deployment))["replicas"])
        assert seen == ([5, 3] if order[0] == "1.1" else [1, 3])
    assert {a.state for a in await ledger.audit()} == {"restored"}


async def test_three_changes_over_each_other_and_both_ends_at_once(
    kube: Kube, ledger: Ledger, deployment: Ref
) -> None:
    for step, replicas in (("1", 1), ("2", 3), ("3", 6)):
        await _scale(ledger, step, deployment, replicas)
    await ledger.undo("1")
    assert (await _spec(kube, deployment))["replicas"] == 6
    await asyncio.gather(ledger.undo("2"), ledger.undo("3"))
    assert (await _spec(kube, deployment))["replicas"] == 3


@pytest.mark.parametrize("landed", [True, False], ids=["the later one was made", "the later one was not"])
async def test_a_kill_after_the_earlier_step_was_undone(
    kube: Kube, ledger: Ledger, deployment: Ref, landed: bool
) -> None:
    """The record alone has to say that the later change goes back to what was before both."""
    await _scale(ledger, "1.1", deployment, 1)
    (later,) = await ledger.intend("1.2", [await _patch(ledger.kube, deployment, Edit(REPLICAS, 5))])
    if landed:
        await ledger.make(later)
    await ledger.undo("1.1")
    assert _recorded(await records(kube)) == [("undone", 3, 1), (later.state, 3, 5)]
    assert set(await _by_another_process(kube)) == {"restored"}
    assert (await _spec(kube, deployment))["replicas"] == 3


async def test_a_later_change_that_is_refused_still_takes_back_the_one_below(
    kube: Kube, api_proxy: ApiProxy, deployment: Ref, tmp_path: Path
) -> None:
    async with await Kube.connect(api_proxy.kubeconfig) as unlucky:
        ledger = unguarded(unlucky, RUN, tmp_path, {}, lambda _: None)
        await _scale(ledger, "1.1", deployment, 1)
        (later,) = await ledger.intend("1.2", [await _patch(unlucky, deployment, Edit(REPLICAS, 5))])
        await ledger.undo("1.1")
        api_proxy.fail("PATCH", deployment.name, 403, reason="Forbidden", message="denied by a webhook")
        with pytest.raises(ApiError, match="denied"):
            await ledger.make(later)
        await ledger.undo()
        await ledger.close(restored=True)
    assert (await _spec(kube, deployment))["replicas"] == 3


async def test_a_change_across_one_in_force_is_refused(ledger: Ledger, deployment: Ref) -> None:
    inner = Edit(("spec", "strategy", "rollingUpdate", "maxSurge"), 2)
    await ledger.step("1").perform([await _patch(ledger.kube, deployment, inner)])
    outer = Edit(("spec", "strategy"), {"type": "Recreate"})
    with pytest.raises(Refused, match="step 1 changed it already"):
        await ledger.step("2").perform([await _patch(ledger.kube, deployment, outer)])


@dataclass(frozen=True)
class InTurn(Operation):
    """Notes when its undo begins and ends, which takes a request."""

    kind = "in-turn"
    summary = "in turn"
    ref: Ref
    done: list[str]

    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.ref),)

    def to_data(self) -> dict[str, Any]:
        return {"op": self.kind, "ref": self.ref.to_data()}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> InTurn:
        raise AssertionError("it is never read back")

    async def make(self, kube: Kube) -> None:
        return None

    async def undo(self, kube: Kube) -> Undone:
        self.done.append(f"{self.ref.api_version} begins")
        await kube.find(Ref("v1", "Namespace", "default"))
        self.done.append(f"{self.ref.api_version} ends")
        return Undone("undone")

    async def audit(self, kube: Kube) -> Undone:
        return Undone("undone")


HPA = Ref("autoscaling/v2", "HorizontalPodAutoscaler", "owner-test", "default")
AT_V1 = replace(HPA, api_version="autoscaling/v1")


@pytest.mark.sandbox_only("nothing but the record is written")
async def test_a_change_through_another_version_of_the_api_is_refused(ledger: Ledger) -> None:
    """It was taken for another object's, and the two undos wrote against each other."""
    edit = Edit(("spec", "maxReplicas"), 20, 10)
    await ledger.intend("1", [Patch(HPA, (edit,), ledger.kube.manager)])
    with pytest.raises(Refused, match="step 1 changed it already: through autoscaling/v2"):
        await ledger.intend("2", [Patch(AT_V1, (edit,), ledger.kube.manager)])


@pytest.mark.sandbox_only("nothing but the record is written")
async def test_changes_of_one_object_are_undone_in_turn_whatever_version_they_went_through(
    ledger: Ledger,
) -> None:
    done: list[str] = []
    for ref in (HPA, AT_V1):
        await ledger.step("1").perform([InTurn(ref, done)])
    await ledger.undo()
    assert done == [
        "autoscaling/v1 begins",
        "autoscaling/v1 ends",
        "autoscaling/v2 begins",
        "autoscaling/v2 ends",
    ]
    assert [a.object for a in await ledger.audit()] == [str(HPA)]


# -- objects around a field ------------------------------------------------------------------------


async def test_what_a_controller_drops_around_a_field_is_made_again(kube: Kube, ledger: Ledger) -> None:
    """Argo CD drops a `syncPolicy` that is left empty; the parent of a field is not there for ever."""
    meta = {"name": "owner-test", "namespace": "default", "annotations": {"only": "one"}}
    created = await kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
    ref = Ref.of(created)
    try:
        change = await _patch(ledger.kube, ref, Edit(("metadata", "annotations", "only"), None))
        await ledger.step("1").perform([change])
        assert "annotations" not in (await kube.get(ref))["metadata"]
        assert [e.state for e in await ledger.undo()] == ["undone"]
        assert (await kube.get(ref))["metadata"]["annotations"] == {"only": "one"}
    finally:
        await kube.delete(ref)


async def test_objects_that_came_with_a_field_go_with_it(kube: Kube, ledger: Ledger) -> None:
    meta = {"name": "owner-test", "namespace": "default"}
    ref = Ref.of(await kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta}))
    try:
        edits = [Edit(("metadata", "labels", key), "x") for key in ("a", "b")]
        await ledger.step("1").perform([await _patch(ledger.kube, ref, *edits, Edit(("data", "c"), "x"))])
        now = await kube.get(ref)
        assert (now["metadata"]["labels"], now["data"]) == ({"a": "x", "b": "x"}, {"c": "x"})
        assert [e.state for e in await ledger.undo()] == ["undone"]
        now = await kube.get(ref)
        assert ("labels" in now["metadata"], "data" in now) == (False, False)
    finally:
        await kube.delete(ref)


async def test_a_patch_that_does_not_fit_is_no_race(
    kube: Kube, ours: Kube, api_proxy: ApiProxy, node: Ref
) -> None:
    """Both are a bare 422; what nobody changed in between is not tried eight times."""
    api_proxy.fail("PATCH", node.name, 422, reason="Invalid", message="the request has an error", times=20)
    async with await Kube.connect(api_proxy.kubeconfig) as unlucky:
        patch = await _patch(unlucky, node, CORDON)
        with pytest.raises(ApiError, match="has an error"):
            await patch.make(unlucky)
    asked = len([r for r in api_proxy.requests if r.startswith("PATCH")])
    assert asked <= 3, "a real cluster's own controllers change a new node a time or two"


# -- what the audit finds left ---------------------------------------------------------------------


async def test_what_the_audit_finds_left_is_tried_again(kube: Kube, ledger: Ledger, node: Ref) -> None:
    """Something put our value back under our name after the undo, as a controller with a stale copy does."""
    await ledger.step("1").perform([await _patch(ledger.kube, node, CORDON)])
    await ledger.undo()
    await _set(kube, node, ledger.kube.manager, unschedulable=True)
    assert [a.state for a in await ledger.audit()] == ["left"]
    assert [state for state, *_ in _recorded(await records(kube))] == ["failed"]
    assert [a.state for a in await ledger.restore()] == ["restored"]
    assert not (await _spec(kube, node)).get("unschedulable")


async def test_recover_tries_again_what_the_record_says_was_undone(
    kube: Kube, ledger: Ledger, node: Ref
) -> None:
    await ledger.step("1").perform([await _patch(ledger.kube, node, CORDON)])
    await ledger.undo()
    await _set(kube, node, ledger.kube.manager, unschedulable=True)
    assert await _by_another_process(kube) == ["restored"]
    assert not (await _spec(kube, node)).get("unschedulable")


async def test_an_undo_that_is_refused_for_a_while_is_tried_again_within_the_run(
    kube: Kube, api_proxy: ApiProxy, node: Ref, tmp_path: Path
) -> None:
    heard: list[Event] = []
    async with await Kube.connect(api_proxy.kubeconfig) as unlucky:
        ledger = unguarded(unlucky, RUN, tmp_path, {}, heard.append)
        await ledger.step("1").perform([await _patch(unlucky, node, CORDON)])
        api_proxy.fail("PATCH", f"nodes/{node.name}", 403, reason="Forbidden", message="not now", times=2)
        assert [a.state for a in await ledger.restore()] == ["restored"]
        await ledger.close(restored=True)
    assert [e.state for e in heard if isinstance(e, Audited)] == ["left", "left", "restored"]
    assert not (await _spec(kube, node)).get("unschedulable")


# -- cancellation ----------------------------------------------------------------------------------


class Slow(Operation):
    """Lands when it is told to, as a request that is under way does."""

    kind = "slow"
    ref = Ref("v1", "ConfigMap", "slow", "default")
    summary = "slow"

    def __init__(self) -> None:
        self.begun, self.go, self.landed = asyncio.Event(), asyncio.Event(), False

    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.ref),)

    def to_data(self) -> dict[str, Any]:
        return {"op": self.kind, "ref": self.ref.to_data()}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Slow:
        raise AssertionError("it is never read back")

    async def make(self, kube: Kube) -> None:
        self.begun.set()
        await self.go.wait()
        self.landed = True

    async def undo(self, kube: Kube) -> Undone:
        self.landed = False
        return Undone("undone")

    async def audit(self, kube: Kube) -> Undone:
        return Undone("failed" if self.landed else "undone")


async def test_however_often_it_is_cancelled_a_request_under_way_lands_before_the_undo(
    ledger: Ledger,
) -> None:
    slow = Slow()
    task = asyncio.create_task(ledger.step("1").perform([slow]))
    await slow.begun.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not task.done()
    slow.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ledger.undo()
    assert not slow.landed


@pytest.mark.parametrize("order", [("1", "2"), ("2", "1")])
async def test_what_somebody_set_between_two_steps_is_brought_back(
    order: tuple[str, str], kube: Kube, ledger: Ledger, deployment: Ref
) -> None:
    """3, then 0 by a step, then 4 by a person, then 5 by another step: in the end it is 4, and said."""
    await _scale(ledger, "1", deployment, 0)
    await _set(kube, deployment, replicas=4)
    await _scale(ledger, "2", deployment, 5)
    for step in order:
        await ledger.undo(step)
    assert (await _spec(kube, deployment))["replicas"] == 4
    assert "kept" in [a.state for a in await ledger.audit()]


async def test_a_value_that_moved_to_another_item_is_not_taken_for_gone(
    kube: Kube, ledger: Ledger, node: Ref
) -> None:
    """An item without a name is told by what it says; who edits that makes another one of it."""
    taint = {"key": "x", "effect": "NoSchedule"}
    await _set(kube, node, taints=[taint])
    edit = Edit(("spec", "taints"), "ours", item=(("effect", "NoSchedule"), ("key", "x")), inside=("value",))
    await ledger.step("1").perform([await _patch(ledger.kube, node, edit)])
    moved = taint | {"effect": "PreferNoSchedule", "value": "ours"}
    await _set(kube, node, taints=[moved])
    await ledger.undo()
    assert [a.state for a in await ledger.audit()] == ["left"]
    await _set(kube, node, taints=[taint])
    await ledger.undo()
    assert [a.state for a in await ledger.audit()] == ["restored"]


async def test_a_node_that_was_quarantined_meanwhile_stays_cordoned(
    kube: Kube, ours: Kube, node: Ref
) -> None:
    """NVSentinel cordons a cordoned node by its annotation alone, and takes an uncordon for a repair."""
    cordon = await Patch.of(ours, node, Edit(("spec", "unschedulable"), True))
    assert cordon is not None
    await cordon.make(ours)
    quarantined = {
        "quarantineHealthEventIsCordoned": "True",
        "quarantineHealthEventCordonPreExisting": "True",
    }
    await kube.patch(node, {"metadata": {"annotations": quarantined}}, "merge")
    for seen in (await cordon.undo(ours), await cordon.audit(ours)):
        assert seen.state == "kept"
        assert "NVSentinel" in seen.message
    assert (await kube.get(node))["spec"]["unschedulable"] is True
