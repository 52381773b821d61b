"""What is told of the targets, their owners and their nodes, on both platforms."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from gameday.events import ConditionChanged, Event, ObjectEvent, Warn
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.world import Victim, World
from gameday.run.observe import observe
from tests.platform.arrange import pod, running, unique
from tests.support.platforms import Platform
from tests.support.polling import eventually
from tests.support.proxy import ApiProxy
from tests.support.widgets import say, widget, widgets


@pytest.fixture
async def namespace(kube: Kube) -> AsyncIterator[str]:
    name = unique("observe")
    ref = Ref.of(await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
    await eventually(lambda: kube.find(Ref("v1", "ServiceAccount", "default", name)))
    yield name
    await kube.delete(ref)


@pytest.fixture
async def node(kube: Kube) -> AsyncIterator[Ref]:
    """A node without a kubelet."""
    ref = Ref.of(
        await kube.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": unique("node")}})
    )
    yield ref
    await kube.delete(ref)


@contextlib.asynccontextmanager
async def observing(world: World, *victims: Victim) -> AsyncIterator[list[Any]]:
    """What is told from the time on when it is known that changes are seen."""
    told: list[Event] = []
    task = asyncio.create_task(observe(world, victims, told.append))
    try:
        await seen(told, lambda e: e.object.endswith("/sentinel"), poke=lambda: sentinel(world))
        yield told
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def sentinel(world: World) -> None:
    for namespace in world.namespaces:
        await shout(world.kube, namespace, {"kind": "Pod", "namespace": namespace, "name": "sentinel"})


async def seen(told: list[Event], holds: Callable[[Any], bool], poke: Any = None) -> None:
    async def found() -> list[Event]:
        if poke:
            await poke()
        return [e for e in told if not isinstance(e, Warn) and holds(e)]

    await eventually(found)


async def shout(kube: Kube, namespace: str, about: Object, reason: str = "Testing", count: int = 1) -> Ref:
    """A Kubernetes event."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Ref.of(
        await kube.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": unique("event"), "namespace": namespace},
                "involvedObject": about,
                "reason": reason,
                "message": "it  was\nsaid",
                "type": "Warning",
                "count": count,
                "firstTimestamp": now,
                "lastTimestamp": now,
            }
        )
    )


def conditions(told: list[Any], name: str) -> list[tuple[str, str]]:
    return [(e.condition, e.status) for e in told if isinstance(e, ConditionChanged) and e.object == name]


async def test_a_pods_life(kube: Kube, namespace: str) -> None:
    before = await running(kube, pod(namespace), ready=True)
    async with observing(World(kube, namespaces=(namespace,))) as told:
        after = await running(kube, pod(namespace), ready=True)
        await say(kube, before, conditions=[{"type": "Ready", "status": "False", "reason": "Sick"}])
        await seen(told, lambda e: e.object == str(before))
        await kube.delete(before, grace=0)
        await seen(told, lambda e: getattr(e, "condition", "") == "Deleted")
        await seen(told, lambda e: e.object == str(after))
    assert conditions(told, str(before))[0] == ("Ready", "False")
    assert conditions(told, str(before))[-1] == ("Deleted", "True")
    sick = next(e for e in told if isinstance(e, ConditionChanged) and e.reason == "Sick")
    assert sick.status == "False"
    assert set(conditions(told, str(after))) == {("Ready", "True"), ("Phase", "Running")}


async def test_kubernetes_events_are_told_and_repeats_are_counted(kube: Kube, namespace: str) -> None:
    about = {"kind": "Pod", "namespace": namespace, "name": "p"}
    await shout(kube, namespace, about, "LongAgo")
    async with observing(World(kube, namespaces=(namespace,))) as told:
        ref = await shout(kube, namespace, about, "BackOff", count=3)
        await seen(told, lambda e: e.object == f"Pod {namespace}/p")
        await kube.patch(ref, {"count": 7}, "merge")
        await shout(kube, namespace, about, "Last")
        await seen(told, lambda e: getattr(e, "reason", "") == "Last")
    found = [e for e in told if isinstance(e, ObjectEvent) and e.object == f"Pod {namespace}/p"]
    assert [(e.reason, e.count) for e in found] == [("BackOff", 3), ("Last", 1), ("BackOff", 4)]
    assert found[0].message == "it was said"
    assert found[0].level == "Warning"


async def test_nodes_of_the_victims(kube: Kube, namespace: str, node: Ref) -> None:
    victim = Victim(Ref("v1", "Pod", "p", namespace), "pod", node=node.name)
    async with observing(World(kube, namespaces=(namespace,)), victim) as told:
        await kube.patch(node, {"spec": {"unschedulable": True}}, "merge")
        await say(kube, node, conditions=[{"type": "GpuHung", "status": "True", "reason": "XID"}])
        await shout(kube, "default", {"kind": "Node", "name": "not-" + node.name}, "Elsewhere")
        await shout(kube, "default", {"kind": "Node", "name": node.name}, "NodeNotReady")
        await seen(told, lambda e: getattr(e, "reason", "") == "NodeNotReady")
        await seen(told, lambda e: getattr(e, "condition", "") == "GpuHung")
    assert ("Unschedulable", "True") in conditions(told, str(node))
    assert ("GpuHung", "True") in conditions(told, str(node))
    assert not [e for e in told if getattr(e, "reason", "") == "Elsewhere"]


async def test_owners_of_any_kind(kube: Kube, namespace: str) -> None:
    """A victim outside the target's namespaces is followed with its owners, and nothing else there."""
    async with widgets(kube) as kind:
        owner = await widget(kube, kind, namespace, "owner")
        other = await widget(kube, kind, namespace, "other")
        uid = (await kube.get(owner))["metadata"]["uid"]
        reference = {"apiVersion": owner.api_version, "kind": "Widget", "name": "owner", "uid": uid}
        obj = pod(namespace)
        obj["metadata"]["ownerReferences"] = [reference | {"controller": True}]
        victim = Victim(await running(kube, obj), "pod")
        elsewhere = await self_made(kube)
        async with observing(World(kube, namespaces=(elsewhere.name,)), victim) as told:
            for ref in (other, owner):
                await say(kube, ref, conditions=[{"type": "Healthy", "status": "True"}])
            await seen(told, lambda e: e.object == str(owner))
            await say(kube, victim.ref, conditions=[{"type": "Ready", "status": "False"}])
            await seen(told, lambda e: e.object == str(victim.ref))
        await kube.delete(elsewhere)
    assert conditions(told, str(owner)) == [("Healthy", "True")]
    assert not conditions(told, str(other))


async def self_made(kube: Kube) -> Ref:
    name = unique("observe")
    return Ref.of(await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))


async def test_what_is_forbidden_is_said_once_and_the_rest_goes_on(
    platform: Platform, namespace: str, api_proxy: ApiProxy
) -> None:
    api_proxy.fail("GET", rf"{namespace}/pods\?", 403, reason="Forbidden", message="no pods", times=1000)
    async with await Kube.connect(api_proxy.kubeconfig) as kube:
        async with observing(World(kube, namespaces=(namespace,))) as told:
            await shout(kube, namespace, {"kind": "Job", "namespace": namespace, "name": "j"})
            await seen(told, lambda e: e.object == f"Job {namespace}/j")
        (warning,) = [e for e in told if isinstance(e, Warn)]
        assert "no pods" in warning.message
        assert "list pods" in warning.message


async def test_an_api_server_that_was_away(platform: Platform, namespace: str, api_proxy: ApiProxy) -> None:
    """What changed meanwhile is told once; what did not is not told again."""
    async with (
        await Kube.connect(platform.kubeconfig) as kube,
        await Kube.connect(api_proxy.kubeconfig) as ours,
    ):
        still, changed = await running(kube, pod(namespace)), await running(kube, pod(namespace))
        await shout(kube, namespace, {"kind": "Pod", "namespace": namespace, "name": "x"}, "Before")
        async with observing(World(ours, namespaces=(namespace,))) as told:
            api_proxy.cut()
            await say(kube, changed, conditions=[{"type": "Ready", "status": "False"}])
            await shout(kube, namespace, {"kind": "Pod", "namespace": namespace, "name": "x"}, "Meanwhile")
            api_proxy.restore()
            await seen(told, lambda e: e.object == str(changed))
            await seen(told, lambda e: getattr(e, "reason", "") == "Meanwhile")
    assert conditions(told, str(changed)) == [("Ready", "False")]
    assert conditions(told, str(still)) == []
    assert not [e for e in told if getattr(e, "reason", "") == "Before"]
