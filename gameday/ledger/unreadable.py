"""A change whose record can't be read: it is told, with what to do, and the rest is undone all the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from gameday import __version__
from gameday.ledger.operations import Operation, Undone, from_data
from gameday.platform.objects import Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

DAMAGED = "damaged"  # the operation of a record of which nothing could be read


@dataclass(frozen=True)
class Unreadable:
    """An operation that this version does not know, or whose data are damaged. Nobody can undo it here."""

    kind: ClassVar[str] = "unreadable"
    ref: Ref
    summary: str
    data: Any  # as it was recorded, so that another version may still read it

    def to_data(self) -> dict[str, Any]:
        return dict(self.data)

    async def make(self, kube: Kube) -> None:
        raise AssertionError("what was read back from a record can only be undone")

    async def undo(self, kube: Kube) -> Undone:
        return Undone("failed", self.summary)

    audit = undo


def read(record: dict[str, Any], where: Ref, run: str) -> Operation:
    """The operation of a record in the object `where`; one that says what is wrong when it can't be read."""
    data = record.get("op")
    try:
        return from_data(record["op"])
    except Exception as error:  # whatever a damaged record holds
        data = data if isinstance(data, dict) else {"op": DAMAGED}
        if error.args[:1] == (data.get("op"),) != (DAMAGED,):
            what = (
                f"run {run} made a change of the kind {data['op']!r}, which gameday {__version__} does not "
                "know: restore it with the version that made it (see gameday status), or by hand"
            )
        else:
            why = data.get("why") or f"{type(error).__name__}: {error}"
            what = f"the record of run {run} is damaged ({why}): see what it touched, and restore it by hand"
        what += f"; then: kubectl -n {where.namespace} delete configmap {where.name}"
        return Unreadable(_ref(data) or where, what, data)


def _ref(data: Any) -> Ref | None:
    try:
        return Ref.from_data(data["ref"])
    except (KeyError, TypeError, AttributeError):
        return None
