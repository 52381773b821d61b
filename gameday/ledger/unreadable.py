"""Changes that can't be undone from their record: told, with what to do; the rest is undone all the same.

Some can't be read. Others must not be executed: nobody can prove that the run wrote them, or they are outside
of what the run might touch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from gameday import __version__
from gameday.experiment.registry import NotInstalled, RegistryError
from gameday.ledger.concealed import MissingSecret, reveal
from gameday.ledger.mark import what_to_do
from gameday.ledger.operations import Operation, Undone, from_data
from gameday.ledger.packing import UNPROVED
from gameday.platform.objects import Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

DAMAGED = "damaged"  # the operation of a record of which nothing could be read


@dataclass(frozen=True)
class NotUndone(Operation):
    """An operation of a record that is not undone here; `summary` says why, and what to do."""

    hopeless: ClassVar[bool] = True
    ref: Ref
    summary: str
    data: Any  # as it was recorded, so that another version may still read it

    def to_data(self) -> dict[str, Any]:
        return dict(self.data)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Operation:
        raise AssertionError("a record is read again with `read`")

    async def make(self, kube: Kube) -> None:
        raise AssertionError("what was read back from a record can only be undone")

    async def undo(self, kube: Kube) -> Undone:
        return Undone("failed", self.summary)

    audit = undo


class Unreadable(NotUndone):
    """An operation that this version does not know, or whose data are damaged. Nobody can undo it here."""

    kind: ClassVar[str] = "unreadable"


class Withheld(NotUndone):
    """An operation that is known, but is not executed; its summary shows it in full."""

    kind: ClassVar[str] = "withheld"


def withhold(operation: Operation, data: Any, why: str) -> Withheld:
    """The operation of a record, not to be executed."""
    return Withheld(operation.ref, f"{why}: {json.dumps(data, sort_keys=True, default=str)}", data)


def read(record: dict[str, Any], where: Ref, run: str) -> Operation:
    """The operation of a record in the object `where`; one that says what is wrong when it can't be read."""
    data = record.get("op")
    try:
        return from_data(reveal(record["op"]))
    except MissingSecret as missing:
        return Unreadable(_ref(data) or where, str(missing), data)
    except (Exception, SystemExit) as error:  # whatever a damaged record holds, or a foreign class does
        data = data if isinstance(data, dict) else {"op": DAMAGED}
        if data.get("op") == UNPROVED:
            what = f"the record of run {run} may lack changes ({data.get('why')}): {what_to_do(run)}"
            return Unreadable(where, what, data)
        if isinstance(error, RegistryError) and data["op"] != DAMAGED:
            what = (
                f"run {run} made a change of the kind {data['op']!r}, {_why_not(record, error)}, or by hand"
            )
        else:
            why = data.get("why") or f"{type(error).__name__}: {error}"
            what = f"the record of run {run} is damaged ({why}): see what it touched, and restore it by hand"
        what += f"; then: gameday recover --run {run} --forget"
        return Unreadable(_ref(data) or where, what, data)


def _why_not(record: dict[str, Any], error: RegistryError) -> str:
    """Why an operation is not to be had here, and who can restore it."""
    if not isinstance(error, NotInstalled):
        return f"and {error}: mend that package and restore it then"
    if package := record.get("package"):
        return f"of the package {package}, which is not installed here: install it and restore it then"
    return (
        f"which gameday {__version__} does not know: restore it with the version that made it "
        "(see gameday status)"
    )


def _ref(data: Any) -> Ref | None:
    try:
        return Ref.from_data(data["ref"])
    except (KeyError, TypeError, AttributeError):
        return None
