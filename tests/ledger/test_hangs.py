"""An operation of another package that does not end, or swallows its cancellation, holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gameday.events import Audited, Event, Warn
from gameday.ledger.edits import Edit
from gameday.ledger.keeping import ensure_namespace
from gameday.ledger.ledger import Ledger
from gameday.ledger.operations import RESTORED, Operation, Patch, Undone
from gameday.platform.effect import Touch
from gameday.platform.errors import PlatformError
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.support.ledgers import unguarded
from tests.support.unruly import Unruly, connect

pytestmark = pytest.mark.fast

HUNG, OTHER = Ref("v1", "ConfigMap", "hung", "default"), Ref("v1", "ConfigMap", "other", "default")
AT_MOST = 20.0  # seconds for all that a test waits for, so that a hang is a failure


@dataclass
class How:
    """Where an operation hangs, and what became of it."""

    where: str = ""
    obeys: bool = False  # whether it ends when it is cancelled
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[str] = field(default_factory=list)
    refused: str = ""  # the last change of it that was not let through

    async def called(self, where: str, kube: Kube) -> None:
        """Hang, if it is there, then change the object once more."""
        self.calls.append(where)
        if where != self.where:
            return
        self.begun.set()
        try:
            while not self.let_go.is_set():
                with contextlib.suppress(*() if self.obeys else (asyncio.CancelledError,)):
                    await self.let_go.wait()
            await kube.patch(HUNG, {"data": {"n": "late"}}, "merge")
        except PlatformError as error:
            self.refused = type(error).__name__
        finally:
            self.ended.set()


@dataclass(frozen=True)
class Hanging(Operation):
    """Sets a field, and hangs when it is told to."""

    kind: ClassVar[str] = "hanging"
    summary: ClassVar[str] = "hang"
    late: ClassVar[float] = 1.0
    undo_within: ClassVar[float] = 0.3
    how: How
    ref: Ref = HUNG

    def touches(self) -> tuple[Touch, ...]:
        return (Touch(self.ref),)

    def to_data(self) -> dict[str, Any]:
        return {"op": self.kind}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Hanging:
        raise KeyError(data)

    async def make(self, kube: Kube) -> None:
        await kube.patch(self.ref, {"data": {"n": "1"}}, "merge")
        await self.how.called("make", kube)
        if self.how.where == "outdate":
            raise PlatformError("no answer")

    async def outdate(self, kube: Kube) -> None:
        await self.how.called("outdate", kube)

    async def undo(self, kube: Kube) -> Undone:
        await self.how.called("undo", kube)
        await kube.patch(self.ref, {"data": {"n": "0"}}, "merge")
        return RESTORED

    async def audit(self, kube: Kube) -> Undone:
        await self.how.called("audit", kube)
        return Undone("failed", "changed") if (await kube.get(self.ref))["data"]["n"] == "1" else RESTORED


class Interruptible(Hanging):
    interruptible: ClassVar[bool] = True


@pytest.fixture
async def kube(server: Unruly, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Kube]:
    for name in ("MAKE_WITHIN", "CUT_OFF_WITHIN", "AGAIN_WITHIN"):
        monkeypatch.setattr(f"gameday.ledger.ledger.{name}", 0.3, raising=False)
    async with await connect(server) as client:
        await ensure_namespace(client)
        for ref in (HUNG, OTHER):
            meta = {"name": ref.name, "namespace": ref.namespace}
            await client.create(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"n": "0"}}
            )
        yield client


@pytest.fixture
async def how() -> AsyncIterator[How]:
    made = How()
    yield made
    made.let_go.set()


async def _restored(ledger: Ledger, how: How) -> dict[str, Audited]:
    """The audits, and a last undo, without an end of what hangs; it is let go afterwards."""

    async def restore() -> list[Audited]:
        audits = await ledger.restore()
        await ledger.undo()
        return audits

    restoring = asyncio.ensure_future(restore())
    await asyncio.wait({restoring}, timeout=AT_MOST)
    in_time = restoring.done()
    how.let_go.set()
    audits = {a.object: a for a in await restoring}
    await how.ended.wait()
    assert in_time, "the undo waited for it"
    return audits


async def _value(kube: Kube, ref: Ref) -> str:
    return str((await kube.get(ref))["data"]["n"])


@pytest.mark.parametrize(
    ("obeys", "kind"),
    [(True, Hanging), (False, Hanging), (False, Interruptible)],
    ids=["ends when told to", "goes on", "goes on though it says that it can be cut off"],
)
async def test_no_undo_waits_for_a_change_that_does_not_end(
    obeys: bool, kind: type[Hanging], kube: Kube, how: How, tmp_path: Path
) -> None:
    """What it sent may come late, so it is undone again; left behind, it can send nothing more."""
    heard: list[Event] = []
    ledger = unguarded(kube, "hung", tmp_path, {}, heard.append)
    how.where, how.obeys = "make", obeys
    changes = [kind(how), await Patch.of(kube, OTHER, Edit(("data", "n"), "1"))]
    making = asyncio.ensure_future(ledger.step("1").perform(changes))
    await how.begun.wait()
    making.cancel()
    audits = await _restored(ledger, how)
    assert {a.state for a in audits.values()} == {"restored"}, audits
    assert how.refused == ("" if obeys else "Over")
    assert (await _value(kube, HUNG), await _value(kube, OTHER)) == ("0", "0")
    assert how.calls.count("undo") == 2, "when its requests can't come any more"
    said = " ".join(e.message for e in heard if isinstance(e, Warn))
    assert "a request that was not answered may still arrive" in said
    assert kind is Interruptible or f"{HUNG}: the change did not end within 0.3 s" in said
    await asyncio.wait({making})


@pytest.mark.parametrize(
    ("where", "obeys"), [("undo", True), ("undo", False), ("audit", False), ("outdate", False)]
)
async def test_what_does_not_end_of_an_undo_keeps_its_own_change_open_and_no_other(
    where: str, obeys: bool, kube: Kube, how: How, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    within = 0.3
    if where == "audit":  # the limit of the other object's look as well, which a busy machine must not reach
        within = 3.0
        monkeypatch.setattr("gameday.ledger.ledger.AUDIT_WITHIN", within)
    heard: list[Event] = []
    ledger = unguarded(kube, "hung", tmp_path, {}, heard.append)
    how.where, how.obeys = where, obeys
    for change in (await Patch.of(kube, OTHER, Edit(("data", "n"), "1")), Hanging(how)):
        with contextlib.suppress(PlatformError):
            await ledger.step("1").perform([change])
    audits = await _restored(ledger, how)
    assert (audits[str(OTHER)].state, await _value(kube, OTHER)) == ("restored", "0")
    assert audits[str(HUNG)].state == "left", audits
    said = (
        [e.message for e in heard if isinstance(e, Warn)] if where != "audit" else [audits[str(HUNG)].message]
    )
    assert any(f"did not end within {within:g} s" in text for text in said), said
    assert how.refused == ("" if obeys or where == "audit" else "Over")
    assert how.calls.count(where) == 1 or where == "audit", "what may go on is not begun a second time"
