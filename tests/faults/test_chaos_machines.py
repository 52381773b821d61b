"""Chaos Mesh faults on machines, which the cluster knows little of: they count as nodes, and that is said."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gameday.extend import PlanError
from gameday.faults.chaos_targets import resolve
from gameday.platform.chaos_mesh import API_VERSION
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.faults.chaos import step_of
from tests.support.kinds import Served, create, serving

MACHINES = Served(API_VERSION, "PhysicalMachine", "physicalmachines")


@pytest.fixture
async def machines(kube: Kube) -> AsyncIterator[None]:
    """Three physical machines in the namespace `training`; the sandbox does not know the kind by itself."""
    async with serving(kube, [MACHINES]):
        made: list[Ref] = []
        for number in range(3):
            meta = {"name": f"host-{number}", "namespace": "training", "labels": {"rack": f"r{number % 2}"}}
            body = {"apiVersion": API_VERSION, "kind": "PhysicalMachine", "metadata": meta}
            made.append(await create(kube, body | {"spec": {"address": f"http://127.0.0.1:{number + 1}"}}))
        yield
        for ref in made:
            await kube.delete(ref)


def chaos(kind: str, **spec: Any) -> Object:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "x"}, "spec": spec}


async def test_physical_machines_are_chosen_like_pods(kube: Kube, tmp_path: Path, machines: None) -> None:
    selector = {"namespaces": ["training"], "labelSelectors": {"rack": "r0"}}
    manifest = chaos(
        "PhysicalMachineChaos", action="stress-cpu", mode="one", selector=selector, duration="1m"
    )
    async with step_of(kube, tmp_path, ["training"]) as step:
        (victim,) = (await resolve(manifest, None, step.world, 60)).victims
        assert (victim.role, victim.ref.kind) == ("node", "PhysicalMachine")
        assert victim.ref.name in ("host-0", "host-2")
        assert manifest["spec"]["selector"]["physicalMachines"] == {"training": [victim.ref.name]}
        assert manifest["spec"]["mode"] == "all"
    async with step_of(kube, tmp_path, ["inference"]) as step:
        with pytest.raises(PlanError, match="training is outside the target"):
            await resolve(chaos("PhysicalMachineChaos", mode="all", selector=selector), None, step.world, 60)


@pytest.mark.parametrize(
    ("manifest", "machine", "lost"),
    [
        (chaos("PhysicalMachineChaos", action="clock", address=["10.0.0.1:31767"]), "10.0.0.1:31767", False),
        (chaos("AWSChaos", action="ec2-restart", ec2Instance="i-1"), "i-1", True),
        (chaos("GCPChaos", action="node-stop", instance="vm-1"), "vm-1", False),
        (chaos("AzureChaos", action="vm-restart", vmName="vm-2"), "vm-2", True),
    ],
)
async def test_machines_elsewhere_count_as_nodes(
    kube: Kube, tmp_path: Path, manifest: Object, machine: str, lost: bool
) -> None:
    async with step_of(kube, tmp_path) as step:
        targets = await resolve(manifest, None, step.world, 60)
    assert [(v.role, v.ref.name) for v in targets.victims] == [("node", machine)]
    assert "the target does not bound it" in targets.unknown[0].text
    assert bool(targets.irreversible) is lost
