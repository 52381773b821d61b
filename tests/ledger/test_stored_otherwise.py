"""What an API server stored otherwise than it was sent is ours all the same, and is said."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gameday.events import Event, Warn
from gameday.ledger.edits import Edit, alterations
from gameday.ledger.keeping import ensure_namespace
from gameday.ledger.ledger import Ledger
from gameday.ledger.node_pod import Settings
from gameday.ledger.node_program import NodeProgram
from gameday.ledger.operations import Create, Operation, Patch
from gameday.ledger.recovery import How, recover
from gameday.node.task import Task
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from tests.support.ledgers import unguarded
from tests.support.unruly import Unruly

pytestmark = pytest.mark.fast

RUN = "stored-otherwise"
MAP: Object = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "map", "namespace": "default"},
    "data": {"mode": "one"},
}
PROGRAM = Ref("v1", "Pod", "program", "default")
TASK = Task("program", "kubelet-stop", lease=("gameday", RUN), pod=("default", "program"))
OPERATIONS: dict[str, Callable[[], Operation]] = {
    "an object": lambda: Create.of(MAP, RUN),
    "a program": lambda: NodeProgram(PROGRAM, RUN, "gpu-0", TASK, Settings("python")),
}


class Admitted(Kube):
    """A client whose writes in `default` and of nodes are changed on their way, as by mutating admission."""

    admit: Callable[[Any], object] = staticmethod(lambda obj: None)

    async def request(self, method: str, path: str, **more: Any) -> bytes:
        new = method == "POST" and "/namespaces/default/" in path
        if new or (method == "PATCH" and "/nodes/" in path):
            more["body"] = copy.deepcopy(more["body"])
            self.admit(more["body"])
        return await super().request(method, path, **more)


@pytest.fixture
async def kube(server: Unruly) -> AsyncIterator[Admitted]:
    async with await Admitted.connect(server.kubeconfig) as client:
        assert isinstance(client, Admitted)
        await ensure_namespace(client)
        yield client


@pytest.fixture
def heard() -> list[Event]:
    return []


@pytest.fixture
def ledger(kube: Kube, tmp_path: Path, heard: list[Event]) -> Ledger:
    return unguarded(kube, RUN, tmp_path, {}, heard.append)


def _bare(obj: Object) -> None:
    obj["metadata"].pop("labels")


@pytest.mark.parametrize("by", ["this process", "another process"])
@pytest.mark.parametrize("what", OPERATIONS)
async def test_an_object_without_the_runs_label_is_ours_by_its_uid(
    what: str,
    by: str,
    kube: Admitted,
    ledger: Ledger,
    heard: list[Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was "kept", as somebody else's, or "restored", and stayed where it was."""
    monkeypatch.setattr("gameday.ledger.node_program.END_WITHIN", 1.0)
    kube.admit = _bare
    (entry,) = await ledger.step("1").perform([OPERATIONS[what]()])
    assert await kube.find(entry.operation.ref) is not None
    (said,) = (e.message for e in heard if isinstance(e, Warn))
    assert "the API server's admission changed metadata.labels: {" in said
    assert await _restored(by, kube, ledger) == ["restored"]
    assert await kube.find(entry.operation.ref) is None


async def test_one_that_took_its_name_is_left(kube: Admitted, ledger: Ledger) -> None:
    await ledger.step("1").perform([Create.of(MAP, RUN)])
    await kube.delete(Ref.of(MAP))
    kube.admit = _bare
    theirs = Ref.of(await kube.create(MAP | {"metadata": MAP["metadata"] | {"labels": {"a": "b"}}}))
    assert [a.state for a in await ledger.restore()] == ["restored"]
    assert await kube.find(theirs) is not None


async def test_whatever_was_stored_otherwise_is_said(
    kube: Admitted, ledger: Ledger, heard: list[Event]
) -> None:
    """What was approved is not in force, so nobody waits for it to be."""
    kube.admit = lambda obj: obj["data"].update(mode="all", more="of it")
    (entry,) = await ledger.step("1").perform([Create.of(MAP, RUN)])
    said = "the API server's admission changed data.mode: one was written, all was stored"
    assert [e.message for e in heard if isinstance(e, Warn)] == [f"{Ref.of(MAP)}: {said}"]
    assert entry.altered == said


KEEP = {"key": "keep", "effect": "NoSchedule"}
OURS = {"key": "gameday.dev/broken", "value": "true", "effect": "NoExecute"}
TAINTS: dict[str, tuple[list[Object], Object]] = {
    "its effect": ([KEEP], {"effect": "PreferNoSchedule"}),
    "its key": ([KEEP], {"key": "example.com/broken"}),
    "its key, of one that was there": ([KEEP, OURS | {"value": "theirs"}], {"key": "example.com/broken"}),
    "its effect, to that of one that was there": (
        [KEEP, {"key": OURS["key"], "effect": "NoSchedule"}],
        {"effect": "NoSchedule"},
    ),
}


@pytest.mark.parametrize("by", ["this process", "another process"])
@pytest.mark.parametrize("what", TAINTS)
async def test_a_taint_that_was_stored_as_another_one_goes_again(
    what: str, by: str, kube: Admitted, ledger: Ledger, heard: list[Event]
) -> None:
    """It stayed on the node, and the audit called the node restored."""
    before, changed = TAINTS[what]

    def admit(patch: list[Object]) -> None:
        for step in (s for s in patch if s["path"] == "/spec/taints"):
            ours = next(t for t in step["value"] if t == OURS) | changed
            others = [t for t in step["value"] if t != OURS and _item(t) != _item(ours)]
            step["value"] = [ours, *others]

    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"taints": before}}
    ref = Ref.of(await kube.create(node))
    kube.admit = admit
    edit = Edit(("spec", "taints"), OURS, item=(("effect", OURS["effect"]), ("key", OURS["key"])))
    (entry,) = await ledger.step("1").perform([await Patch.of(kube, ref, edit)])
    kube.admit = lambda patch: None
    (said,) = (e.message for e in heard if isinstance(e, Warn))
    assert f"{json.dumps(OURS)} was written, {json.dumps(OURS | changed)} was stored" in said
    assert entry.altered
    stored = (await kube.get(ref))["spec"]["taints"]
    assert OURS | changed in stored
    assert [a.state for a in await ledger.audit()] == ["left"]
    assert await _restored(by, kube, ledger) == ["restored"]
    assert not [e for e in heard if "not restored" in getattr(e, "message", "")]
    assert sorted((await kube.get(ref))["spec"]["taints"], key=str) == sorted(before, key=str)


def _item(taint: Object) -> Object:
    return {"key": taint["key"], "effect": taint["effect"]}


async def _restored(by: str, kube: Kube, ledger: Ledger) -> list[str]:
    """What the audit sees when this process has undone it, or one that has the record alone."""
    if by == "this process":
        return [a.state for a in await ledger.restore()]
    return [a.state for a in (await recover(kube, RUN, lambda _: None, how=How(force=True))).audits]


BOX = {"name": "box", "image": "python", "env": [{"name": "A", "value": "1"}]}
SENT: Object = {
    "kind": "Pod",
    "metadata": {"labels": {}, "annotations": None},
    "spec": {"containers": [BOX], "tolerations": [{"operator": "Exists"}], "hostPID": False, "names": ["a"]},
}


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({}, []),
        ({"containers": [{**BOX, "env": [*BOX["env"], {"name": "B"}]}, {"name": "sidecar"}]}, []),
        ({"tolerations": [{"key": "a"}, {"operator": "Exists", "effect": "NoExecute"}]}, []),
        ({"containers": [BOX | {"image": "mirror/python"}]}, ["spec.containers[name=box].image"]),
        ({"containers": [{"name": "sidecar"}]}, ["spec.containers[name=box]"]),
        ({"tolerations": [{"key": "a"}]}, ["spec.tolerations"]),
        ({"hostPID": True}, ["spec.hostPID"]),
        ({"names": ["a", "b"]}, ["spec.names"]),
    ],
)
def test_what_counts_as_stored_otherwise(stored: Object, said: list[str]) -> None:
    """What the server adds does not: but another word in a list of words says something else."""
    spec = {k: v for k, v in SENT["spec"].items() if v is not False} | stored
    found = {"kind": "Pod", "metadata": {"annotations": {"a": "b"}}, "spec": spec, "status": {}}
    assert [e.name for e in alterations(SENT, found)] == said


def test_nobody_is_shown_what_a_secret_holds() -> None:
    sent = {"kind": "Secret", "stringData": {"b": "hidden"}, "data": {"a": "aGlkZGVu"}}
    (edit,) = alterations(sent, {"kind": "Secret", "data": {"a": "b3RoZXI="}})
    assert not any(value in str(edit) for value in ("aGlkZGVu", "b3RoZXI="))
