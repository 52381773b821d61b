"""Pods that come between the gate and the injection are held to the same as those that were approved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gameday.experiment.loader import load
from gameday.extend import FaultError, Step
from gameday.faults.drain import Drain
from gameday.ledger.ledger import Ledger
from gameday.ledger.operations import Evict
from gameday.ledger.store import ensure_namespace
from gameday.platform.kube import Kube
from gameday.platform.objects import Object
from gameday.platform.world import World
from gameday.safety.gate import Gate
from gameday.safety.plan import make_plan
from tests.e2e.experiments import write
from tests.faults.test_drain import nodes
from tests.platform.arrange import pod
from tests.support.kinds import create
from tests.support.ledgers import Alone
from tests.support.unruly import connect, unruly

pytestmark = pytest.mark.fast

DRAIN = {"drain": {"nodes": {"names": ["gpu-0"]}, "force": True, "timeout": "5s"}, "for": "1s"}
TARGET = {"context": ".*", "namespaces": ["training"], "nodes": {"selector": "!spare"}}
GPUS = {"limits": {"nvidia.com/gpu": "4"}, "requests": {"nvidia.com/gpu": "4"}}


def _pod(owner: Object | None, labels: dict[str, str] | None = None, **container: Any) -> Object:
    made = pod("training", labels, node="gpu-0")
    made["spec"]["containers"][0] |= container
    if owner is not None:
        ref = {"apiVersion": "v1", "kind": "ConfigMap", "controller": True}
        made["metadata"]["ownerReferences"] = [ref | {k: owner["metadata"][k] for k in ("name", "uid")}]
    return made


@pytest.mark.parametrize(
    ("owned", "rest", "words"),
    [
        pytest.param(True, {"labels": {"gameday.dev/protect": ""}}, "carries the label", id="protected"),
        pytest.param(True, {"resources": GPUS}, "more GPUs than were approved", id="with GPUs"),
        pytest.param(False, {}, "would be lost for good, which was not approved", id="alone"),
    ],
)
async def test_a_drain_evicts_none_that_the_gate_would_not_let_it(
    owned: bool, rest: dict[str, Any], words: str, tmp_path: Path
) -> None:
    async with unruly(tmp_path) as server, await connect(server) as kube:
        await nodes(kube)
        await ensure_namespace(kube)
        owner = await kube.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": "training"}}
        )
        filler = await create(kube, _pod(None), phase="Running")
        drain, world, ledger = await _admitted(kube, tmp_path)
        await kube.delete(filler, grace=0)
        late = await create(kube, _pod(owner if owned else None, **rest), phase="Running")
        with pytest.raises(FaultError, match=words):
            await Drain().inject(drain, Step(world, ledger.step("1")))
        assert await kube.find(late)
        assert not [e for e in ledger.entries if e.operation.kind == Evict.kind]
        await ledger.undo()


async def _admitted(kube: Kube, folder: Path) -> tuple[Any, World, Ledger]:
    """The one step of a run once its gate has let it in: its plan, its world, and the run's ledger."""
    file = write(folder, method=[DRAIN], target=TARGET, blastRadius={"nodes": 1, "pods": 1, "gpus": 8})
    experiment = load(file).experiment
    world = World(kube, run="x", namespaces=("training",), node_selector="!spare")
    plan = await make_plan(experiment, world)
    assert not plan.problems
    gate = Gate(experiment, plan, world)
    drain, inside, _ = await gate.admit(plan.steps["1"], world.at("1", 1.0), ())
    ledger = Ledger.begin(
        kube, "x", folder, {}, lambda event: None, admit=gate.check, owner=Alone(), scope=None
    )
    return drain, inside, ledger
