"""Undo restores what is still ours, and only that; however often it is asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from gameday.ledger.edits import Edit
from gameday.ledger.operations import Create, Evict, Patch, Refused, from_data
from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref

UNSCHEDULABLE = Edit(("spec", "unschedulable"), True)
TAINT = Edit(
    ("spec", "taints"), {"key": "k", "effect": "NoSchedule"}, item=(("effect", "NoSchedule"), ("key", "k"))
)


@pytest.fixture
async def node(kube: Kube) -> AsyncIterator[Ref]:
    """A node of the test's own; nothing runs on it."""
    ref = Ref("v1", "Node", "ledger-test")
    await kube.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": ref.name}, "spec": {}})
    yield ref
    await kube.delete(ref)


async def _spec(kube: Kube, ref: Ref) -> Object:
    return dict((await kube.get(ref))["spec"])


async def _set(kube: Kube, ref: Ref, **spec: Any) -> None:
    await kube.patch(ref, {"spec": spec}, "merge")


async def _of(kube: Kube, ref: Ref, *edits: Edit) -> Patch:
    patch = await Patch.of(kube, ref, *edits)
    assert patch is not None
    return patch


async def test_a_patch_is_made_and_undone_by_its_data_alone(kube: Kube, node: Ref) -> None:
    before = await _spec(kube, node)
    patch = await _of(kube, node, UNSCHEDULABLE, TAINT)
    await patch.make(kube)
    assert (await _spec(kube, node))["unschedulable"] is True
    read_back = from_data(patch.to_data())
    assert (await read_back.audit(kube)).state == "failed"
    for _ in range(3):
        assert (await read_back.undo(kube)).state == "undone"
    assert (await read_back.audit(kube)).state == "undone"
    after = await _spec(kube, node)
    assert [t for t in after.get("taints", []) if t["key"] == "k"] == []
    assert after.get("unschedulable") == before.get("unschedulable")


async def test_what_is_so_already_is_not_ours(kube: Kube, node: Ref) -> None:
    await _set(kube, node, unschedulable=True)
    assert await Patch.of(kube, node, UNSCHEDULABLE) is None


async def test_a_field_that_someone_else_changed_is_left_and_reported(kube: Kube, node: Ref) -> None:
    patch = await _of(kube, node, TAINT)
    await patch.make(kube)
    theirs = [{"key": "k", "effect": "NoSchedule", "value": "theirs"}]
    await _set(kube, node, taints=theirs)
    undone = await patch.undo(kube)
    assert undone.state == "kept"
    assert "changed" in undone.message
    assert "theirs" in str((await _spec(kube, node))["taints"])


async def test_other_items_of_a_list_are_not_touched(kube: Kube, node: Ref) -> None:
    await _set(kube, node, taints=[{"key": "other", "effect": "NoSchedule"}])
    patch = await _of(kube, node, TAINT)
    await patch.make(kube)
    await patch.undo(kube)
    assert "other" in {t["key"] for t in (await _spec(kube, node))["taints"]}


async def test_a_patch_is_refused_when_the_world_is_not_as_planned(kube: Kube, node: Ref) -> None:
    patch = await _of(kube, node, TAINT)
    await _set(kube, node, taints=[{"key": "k", "effect": "NoSchedule", "value": "first"}])
    with pytest.raises(Refused, match="was planned, but now it is"):
        await patch.make(kube)


async def test_undo_of_a_patch_whose_object_is_gone(kube: Kube, node: Ref) -> None:
    other = Ref("v1", "Node", "ledger-test-2")
    await kube.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": other.name}, "spec": {}})
    patch = await _of(kube, other, TAINT)
    await patch.make(kube)
    await kube.delete(other)
    assert (await patch.undo(kube)).state == "kept"


@pytest.mark.parametrize(
    ("value", "state"),
    [("ours", "failed"), ("b", "kept"), ("theirs", "kept")],
    ids=["copied", "as before", "new"],
)
async def test_an_object_that_was_made_anew_from_its_live_state_is_left(
    value: str, state: str, kube: Kube
) -> None:
    """As by `kubectl get -o json | kubectl replace --force -f -`. It was called gone, and kept."""
    manifest = _config_map("ledger-replaced")
    ref = Ref.of(await kube.create(manifest))
    patch = await _of(kube, ref, Edit(("data", "a"), "ours"))
    await patch.make(kube)
    await kube.delete(ref)
    await kube.create({**manifest, "data": {"a": value}})
    outcomes = [await patch.undo(kube), await patch.audit(kube)]
    found = await kube.get(ref.named)
    await kube.delete(ref.named)
    assert [o.state for o in outcomes] == [state, state]
    assert found["data"] == {"a": value}
    assert all("was replaced by another of its name" in o.message for o in outcomes)
    assert all(("data.a is still ours, and was b" in o.message) is (state == "failed") for o in outcomes)


def _config_map(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"a": "b"},
    }


async def test_a_created_object_goes_again_when_it_is_ours(kube: Kube) -> None:
    create = Create.of(_config_map("ledger-create"), "run-1")
    await create.make(kube)
    read_back = from_data(create.to_data())
    assert (await read_back.audit(kube)).state == "failed"
    for _ in range(2):
        assert (await read_back.undo(kube)).state == "undone"
    assert await kube.find(create.ref) is None


async def test_an_object_of_that_name_which_is_not_ours_stays(kube: Kube) -> None:
    theirs = _config_map("ledger-theirs")
    await kube.create(theirs)
    create = Create.of(theirs, "run-1")
    with pytest.raises(ApiError):
        await create.make(kube)
    assert (await create.undo(kube)).state == "kept"
    assert await kube.delete(Ref.of(theirs))


async def test_a_finalizer_that_nobody_removes_is_reported_and_forced_only_when_told(
    kube: Kube,
) -> None:
    stuck = _config_map("ledger-stuck")
    stuck["metadata"]["finalizers"] = ["gameday.dev/test"]
    create = replace(Create.of(stuck, "run-1"), within=1.0)
    await create.make(kube)
    undone = await create.undo(kube)
    assert undone.state == "failed"
    assert "gameday.dev/test" in undone.message
    forced = await replace(create, force=True).undo(kube)
    assert forced.state == "undone"
    assert "by force" in forced.message


async def test_evicting_a_pod_that_is_gone_is_no_failure(kube: Kube) -> None:
    evict = Evict(Ref("v1", "Pod", "nobody", "default", "0"))
    await evict.make(kube)
    assert (await evict.undo(kube)).state == "irreversible"
