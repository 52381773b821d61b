"""A change that a controller carries out is out when the controller has followed, not when it is asked to.

The controller here is the test's own: it takes its time, and one that is away for good never follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gameday.ledger import operations
from gameday.ledger.edits import Edit
from gameday.ledger.keeping import ensure_namespace
from gameday.ledger.ledger import Ledger
from gameday.ledger.operations import Patch
from gameday.ledger.recovery import How, recover
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.support.ledgers import unguarded
from tests.support.polling import eventually

RUN = "follows-test"
REF = Ref("v1", "ConfigMap", "follows", "default")
BEFORE = {"emptied": "no", "wanted": "whole", "state": "whole"}


@pytest.fixture
async def changed(kube: Kube, tmp_path: Path) -> AsyncIterator[Ledger]:
    """Emptied first, then partitioned; the controller has followed so far."""
    await ensure_namespace(kube)
    meta = {"name": REF.name, "namespace": REF.namespace}
    await kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": BEFORE})
    ledger = unguarded(kube, RUN, tmp_path, {}, lambda _: None)
    try:
        await ledger.step("1").perform([await Patch.of(kube, REF, Edit(("data", "emptied"), "yes"))])
        wanted = Edit(("data", "wanted"), "parts")
        await ledger.step("2").perform([await Patch.of(kube, REF, wanted, follows=[("data", "state")])])
        await _controller(kube, "parts")
        yield ledger
    finally:
        await kube.delete(REF)
        await ledger.close(restored=True)


async def _controller(kube: Kube, state: str) -> None:
    await kube.patch(REF, {"data": {"state": state}}, "merge")


async def _data(kube: Kube) -> dict[str, str]:
    return dict((await kube.get(REF))["data"])


@pytest.mark.parametrize("died", [False, True], ids=["alive", "killed"])
async def test_what_came_before_is_undone_after_the_controller(
    died: bool, changed: Ledger, kube: Kube
) -> None:
    """Also by whoever restores it from the record alone."""
    undoing = asyncio.create_task(_recovered(kube) if died else _undone(changed))
    await eventually(lambda: _data(kube), lambda data: data["wanted"] == "whole")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2 * operations.FOLLOW_EVERY):
            await asyncio.shield(undoing)
    assert (await _data(kube))["emptied"] == "yes", "the controller gives up on what is in use"
    await _controller(kube, "whole")
    assert await undoing
    assert await _data(kube) == BEFORE


async def test_steps_that_are_stopped_wait_for_the_controller_of_a_later_one(
    changed: Ledger, kube: Kube
) -> None:
    """Each step undoes its own change at the same time, the earlier one first."""
    undoing = asyncio.gather(changed.undo("1", stopping=True), changed.undo("2", stopping=True))
    await eventually(lambda: _data(kube), lambda data: data["wanted"] == "whole")
    assert (await _data(kube))["emptied"] == "yes", "the controller gives up on what is in use"
    await _controller(kube, "whole")
    assert [[e.number for e in of_step] for of_step in await undoing] == [[1], [2]]
    assert await _data(kube) == BEFORE


async def test_a_step_that_ends_by_itself_waits_for_no_other(changed: Ledger, kube: Kube) -> None:
    """The later one is in force still, as the experiment wants it."""
    await changed.undo("1")
    assert await _data(kube) == BEFORE | {"wanted": "parts", "state": "parts"}
    undoing = asyncio.create_task(_undone(changed))
    await eventually(lambda: _data(kube), lambda data: data["wanted"] == "whole")
    await _controller(kube, "whole")
    assert await undoing


async def _undone(ledger: Ledger) -> bool:
    await ledger.undo()
    return {a.state for a in await ledger.audit()} == {"restored"}


async def _recovered(kube: Kube) -> bool:
    return (await recover(kube, RUN, lambda _: None, how=How(force=True))).restored


async def test_a_controller_that_does_not_follow_is_named(
    changed: Ledger, kube: Kube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Patch, "follow_within", 0.0)
    await changed.undo()
    audits = {(a.state, a.message) for a in await changed.audit()}
    why = "data.state is parts, and was whole: no controller has followed the undo"
    assert ("left", why) in audits, audits
    assert (await _data(kube))["emptied"] == "no", "one change that is left leaves no other"
