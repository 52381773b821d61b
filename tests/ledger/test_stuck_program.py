"""A program whose pod does not go, or goes without us: what is known of it then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gameday.ledger.node_pod import Settings
from gameday.ledger.node_program import NodeProgram
from gameday.ledger.operations import RUN_LABEL, from_data
from gameday.node.task import Task
from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.polling import eventually
from tests.support.snapshot import Snapshot

RUN, NODE = "stuck-program", "gpu-6"
POD = Ref("v1", "Pod", RUN, "default")
WAITING = {"name": "program", "state": {"waiting": {"reason": "ContainerCreating"}}}


@pytest.fixture
async def pod(kube: Kube) -> AsyncIterator[Ref]:
    """Ours, and something keeps it, as a node does that nobody reaches."""
    meta = {"name": POD.name, "namespace": POD.namespace, "labels": {RUN_LABEL: RUN}}
    spec = {"containers": [{"name": "program", "image": "python"}], "nodeSelector": {"nobody": "has-it"}}
    held = {**meta, "finalizers": ["tests.gameday.dev/held"]}
    made = Ref.of(await kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": held, "spec": spec}))
    yield made
    if await kube.find(made) is not None:
        await kube.patch(made, {"metadata": {"finalizers": None}}, "merge")
        await kube.delete(made, grace=0)
    await eventually(lambda: kube.find(made), lambda found: found is None)


@pytest.mark.parametrize(
    ("status", "state", "words"),
    [
        ({"startTime": "2026-11-29T12:00:00Z", "containerStatuses": [WAITING]}, "failed", "can't be read"),
        ({"startTime": "2026-11-29T12:00:00Z"}, "failed", "can't be read"),
        ({"message": "no kubelet has seen it"}, "undone", "never started"),
    ],
    ids=["about to start", "taken up", "not taken up"],
)
async def test_a_container_that_is_said_to_wait_may_have_run(
    status: Object,
    state: str,
    words: str,
    pod: Ref,
    kube: Kube,
    monkeypatch: pytest.MonkeyPatch,
    world_unchanged: Snapshot,
) -> None:
    """A program that stops its kubelet does so before the kubelet has told of its start."""
    monkeypatch.setattr("gameday.ledger.node_program.END_WITHIN", 1.0)
    await kube.patch(pod, {"status": {"phase": "Pending", **status}}, "merge", subresource="status")
    task = Task(RUN, "kubelet-stop", lease=("gameday", RUN), pod=("default", RUN))
    undone = await NodeProgram(POD, RUN, NODE, task, Settings("python")).undo(kube)
    assert (undone.state, words in undone.message) == (state, True), undone


@pytest.mark.sandbox_only("what is read is the same")
@pytest.mark.parametrize(
    ("status", "how"),
    [
        ({"phase": "Running"}, ""),
        ({"phase": "Failed", "reason": "Evicted", "message": "no disk"}, "on gpu-6 ended: Evicted: no disk"),
        (None, "on gpu-6 was deleted"),
    ],
    ids=["runs", "evicted", "deleted"],
)
async def test_a_program_that_others_ended(status: Object | None, how: str, pod: Ref, kube: Kube) -> None:
    if status is None:
        await kube.delete(pod, grace=0)  # what keeps it does not keep its program
    else:
        await kube.patch(pod, {"status": status}, "merge", subresource="status")
    task = Task(RUN, "kubelet-stop", lease=("gameday", RUN), pod=("default", RUN))
    ended = await NodeProgram(POD, RUN, NODE, task, Settings("python")).ended_by_others(kube)
    assert how in ended.how if ended else not how


@pytest.mark.sandbox_only("what is read is the same")
@pytest.mark.parametrize("known", [True, False], ids=["bound", "of an earlier version"])
async def test_nothing_is_started_on_a_machine_that_nobody_approved(
    known: bool, pod: Ref, kube: Kube, monkeypatch: pytest.MonkeyPatch, world_unchanged: Snapshot
) -> None:
    """Its node was replaced under the same name, and the new machine's kubelet ran the pod."""
    for patience in ("END_WITHIN", "REVERT_WITHIN"):
        monkeypatch.setattr(f"gameday.ledger.node_program.{patience}", 1.0)
    manifest = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "replaced"}}
    node = Ref.of(await kube.create(manifest))
    task = Task(RUN, "kubelet-stop", lease=("gameday", RUN), pod=("default", RUN))
    data = NodeProgram(POD, RUN, node.name, task, Settings("python")).to_data()
    data |= {"nodeUid": node.uid} if known else {}
    await kube.delete(node)
    await kube.create(manifest)
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    await kube.patch(node.named, ready, "merge", subresource="status")
    end = {"exitCode": 0, "message": '{"event": "out"}'} if known else {"exitCode": 137}
    said = {"name": "program", "state": {"terminated": end}}
    status = {"phase": "Succeeded", "startTime": "2026-11-29T12:00:00Z", "containerStatuses": [said]}
    await kube.patch(pod, {"status": status}, "merge", subresource="status")
    await kube.patch(pod, {"metadata": {"finalizers": None}}, "merge")
    program = from_data(data)
    sent = kube.create
    started: list[str] = []

    async def create(made: Object, **options: Any) -> Object:
        started.append(f"{made['kind']} {made['metadata']['name']}")
        return await sent(made, **options)

    monkeypatch.setattr(kube, "create", create)
    try:
        ended = await program.ended_by_others(kube)
        undone, audited = await program.undo(kube), await program.audit(kube)
        if known:
            assert (ended is not None, started) == (True, []), (ended, started)
            with pytest.raises(PlatformError, match="another one than was approved"):
                await program.make(kube)
            await program.undo(kube)
    finally:
        await kube.delete(node.named)
    if known:
        assert not [name for name in started if name.startswith("Pod ")], started
        assert (undone.state, audited.state) == ("kept", "kept"), (undone, audited)
        assert "was replaced by another" in audited.message
    else:
        assert f"Pod {RUN}-revert" in started
