"""A version of an API that is not served any more says nothing of its objects, which stay in force."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from gameday.ledger.edits import Edit
from gameday.ledger.operations import Create, Patch
from gameday.ledger.store import ensure_namespace
from gameday.platform.errors import NotServed, WrongAnswer
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.states import Change
from tests.support.ledgers import unguarded
from tests.support.polling import eventually

RUN = "not-served"
OWN, OTHER = "v1alpha1", "v1"


@pytest.fixture
async def definition(kube: Kube) -> AsyncIterator[Ref]:
    """A kind in two versions, in a group of its own."""
    group = f"s{uuid4().hex[:8]}.example.com"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions = [{"name": v, "served": True, "storage": v == OTHER, "schema": schema} for v in (OWN, OTHER)]
    names = {"plural": "gadgets", "singular": "gadget", "kind": "Gadget"}
    crd: Object = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"gadgets.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": versions},
    }
    ref = Ref.of(await kube.create(crd))
    try:
        for version in (OWN, OTHER):
            await eventually(lambda version=version: _is_served(kube, group, version))  # type: ignore[misc]
        yield ref
    finally:
        await kube.delete(ref)


async def _is_served(kube: Kube, group: str, version: str) -> bool:
    try:
        return await kube.find(Ref(f"{group}/{version}", "Gadget", "nobody", "default")) is None
    except (NotServed, WrongAnswer):
        return False


async def _serve(kube: Kube, crd: Ref, *served: str) -> None:
    """Serve these versions and no other, and wait until the API server says so."""
    body = [
        {"op": "replace", "path": f"/spec/versions/{n}/served", "value": version in served}
        for n, version in enumerate((OWN, OTHER))
    ]
    await kube.patch(crd, body)
    group = crd.name.partition(".")[2]
    for version in (OWN, OTHER):
        await eventually(
            lambda version=version: _is_served(kube, group, version),  # type: ignore[misc]
            lambda there, version=version: there == (version in served),  # type: ignore[misc]
        )


async def test_an_undo_goes_by_a_version_that_is_served_or_fails(
    kube: Kube, definition: Ref, tmp_path: Path
) -> None:
    await ensure_namespace(kube)
    group = definition.name.partition(".")[2]

    def gadget(name: str) -> Object:
        meta = {"name": name, "namespace": "default"}
        return {"apiVersion": f"{group}/{OWN}", "kind": "Gadget", "metadata": meta, "spec": {"size": 1}}

    made, changed = Ref.of(gadget("made")), Ref.of(gadget("changed"))
    await kube.create(gadget("changed"))
    ledger = unguarded(kube, RUN, tmp_path, {}, lambda _: None)
    try:
        patch = await Patch.of(kube, changed, Edit(("spec", "size"), 2))
        assert patch is not None
        entries = await ledger.intend("1", [Create.of(gadget("made"), RUN), patch])
        for entry in entries:
            await ledger.make(entry)

        await _serve(kube, definition)  # nothing
        for entry in entries:
            with pytest.raises(NotServed):
                await entry.operation.ended_by_others(kube)
        await ledger.undo()
        assert [e.state for e in entries] == [Change.FAILED] * 2, [e.message for e in entries]
        assert all(f"serves no Gadget in any version of {group}" in e.message for e in entries)
        assert {a.state for a in await ledger.audit()} == {"left"}

        await _serve(kube, definition, OTHER)
        assert {a.state for a in await ledger.audit()} == {"left"}
        await ledger.undo()
        assert [e.state for e in entries] == [Change.UNDONE] * 2, [e.message for e in entries]
        assert {a.state for a in await ledger.audit()} == {"restored"}
        there = Ref(f"{group}/{OTHER}", "Gadget", "", "default")
        assert await kube.find(_named(there, made.name)) is None
        assert (await kube.get(_named(there, changed.name)))["spec"] == {"size": 1}
    finally:
        await ledger.close(restored=True)


def _named(ref: Ref, name: str) -> Ref:
    return Ref(ref.api_version, ref.kind, name, ref.namespace)


async def test_a_field_that_the_other_version_does_not_show_is_not_taken_for_restored(
    kube: Kube, definition: Ref, tmp_path: Path
) -> None:
    """A conversion may give a field another name: here somebody else's change does the same."""
    await ensure_namespace(kube)
    group = definition.name.partition(".")[2]
    ref = Ref(f"{group}/{OWN}", "Gadget", "changed", "default")
    meta = {"name": ref.name, "namespace": ref.namespace}
    await kube.create({"apiVersion": ref.api_version, "kind": ref.kind, "metadata": meta, "spec": {}})
    ledger = unguarded(kube, RUN, tmp_path, {}, lambda _: None)
    try:
        patch = await Patch.of(kube, ref, Edit(("spec", "size"), 2))
        assert patch is not None
        entry = (await ledger.intend("1", [patch]))[0]
        await ledger.make(entry)
        await kube.patch(ref, {"spec": {"size": None, "width": 2}}, "merge")
        await _serve(kube, definition, OTHER)
        await ledger.undo()
        assert (entry.state, entry.open) == (Change.FAILED, True), entry.message
        assert {a.state for a in await ledger.audit()} == {"left"}
    finally:
        await ledger.close(restored=True)
