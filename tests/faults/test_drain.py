"""A drain is in when nothing runs on its nodes, whatever objects are left of what ran there."""

from __future__ import annotations

from pathlib import Path

import pytest

from gameday.extend import Injected
from gameday.faults.drain import Drain, DrainSpec
from gameday.faults.losing import by_removal, by_taint
from gameday.ledger.operations import RUN_LABEL
from gameday.platform.kube import Kube
from gameday.platform.objects import MIRROR_POD, Object, Ref
from gameday.platform.world import World
from tests.platform.arrange import pod
from tests.support.kinds import create
from tests.support.unruly import connect, unruly

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(("phase", "state"), [("Running", "partial"), ("Failed", "in")])
async def test_a_pod_that_a_finalizer_keeps(phase: str, state: str, tmp_path: Path) -> None:
    """Kueue keeps the ended pods of its plain groups until others have taken their places."""
    async with unruly(tmp_path) as server, await connect(server) as kube:
        await nodes(kube)
        held: Object = pod("training", node="gpu-0")
        held["metadata"]["finalizers"] = ["kueue.x-k8s.io/managed"]
        await create(kube, held, phase="Running")
        world = World(kube, namespaces=("training",))
        spec = DrainSpec.model_validate({"nodes": {"names": ["gpu-0"]}, "force": True})
        planned = await Drain().plan(spec, world)
        await kube.patch(Ref("v1", "Node", "gpu-0"), {"spec": {"unschedulable": True}}, "merge")
        kept = Ref("v1", "Pod", held["metadata"]["name"], "training")
        await kube.patch(kept, {"status": {"phase": phase}}, "merge", subresource="status")
        await kube.delete(kept)
        assert (await Drain().settled(planned, Injected(), world)).state == state


PROGRAM = "x-1-gpu-0"


@pytest.mark.parametrize(
    ("mark", "namespace", "spec"),
    [
        pytest.param({"labels": {RUN_LABEL: "x"}}, "training", {}, id="the run's label"),
        pytest.param({"labels": {RUN_LABEL: "x"}}, "gameday", {}, id="the run's label in its namespace"),
        pytest.param(
            {"labels": {RUN_LABEL: "y"}},
            "gameday",
            {"serviceAccountName": PROGRAM},
            id="another run's program",
        ),
        pytest.param({"annotations": {MIRROR_POD: "a1"}}, "training", {}, id="a mirror pod's annotation"),
    ],
)
async def test_a_mark_hides_nobodys_pod(mark: Object, namespace: str, spec: Object, tmp_path: Path) -> None:
    async with unruly(tmp_path) as server, await connect(server) as kube:
        await nodes(kube)
        theirs: Object = pod(namespace, node="gpu-0")
        theirs["metadata"] |= {"name": PROGRAM, **mark}
        theirs["spec"] |= spec
        await create(kube, theirs, phase="Running")
        world = World(kube, run="x", namespaces=("training", "gameday"))
        drain = DrainSpec.model_validate({"nodes": {"names": ["gpu-0"]}, "force": True})
        taint = {"key": "a", "value": "", "effect": "NoExecute"}
        for effects in (
            (await Drain().plan(drain, world)).effects,
            await by_taint(["gpu-0"], taint, "", world),
            await by_removal(["gpu-0"], "", world),
        ):
            assert [e.ref.name for e in effects] == [PROGRAM]


async def test_a_run_leaves_its_own_program_and_the_kubelets_where_they_are(tmp_path: Path) -> None:
    async with unruly(tmp_path) as server, await connect(server) as kube:
        await nodes(kube)
        ours, static = pod("gameday", {RUN_LABEL: "x"}, node="gpu-0"), pod("training", node="gpu-0")
        ours["metadata"]["name"] = ours["spec"]["serviceAccountName"] = PROGRAM
        by_node = {"apiVersion": "v1", "kind": "Node", "name": "gpu-0", "uid": "u", "controller": True}
        static["metadata"] |= {"annotations": {MIRROR_POD: "a1"}, "ownerReferences": [by_node]}
        for made in (ours, static):
            await create(kube, made, phase="Running")
        world = World(kube, run="x", namespaces=("training",))
        drain = DrainSpec.model_validate({"nodes": {"names": ["gpu-0"]}})
        assert (await Drain().plan(drain, world)).effects == ()
        assert await by_removal(["gpu-0"], "", world) == ()


async def nodes(kube: Kube) -> None:
    for space in ("training", "gameday"):
        await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}})
    for name in ("gpu-0", "gpu-1"):
        await kube.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {}})
