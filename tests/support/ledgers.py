"""A ledger without guards, for tests of what becomes of changes: any is admitted, and nobody owns the run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gameday.events import Emit
from gameday.ledger.holder import new_holder
from gameday.ledger.ledger import Ledger
from gameday.ledger.operations import Operation
from gameday.ledger.owner import Owner
from gameday.ledger.scope import Scope
from gameday.platform.kube import Kube


class Alone:
    """The owner of a ledger that nobody can take over."""

    def __init__(self) -> None:
        self.epoch, self.holder = 1, new_holder()

    def check(self, *, undoing: bool = False) -> None:
        return None

    async def sure(self, *, undoing: bool = False) -> None:
        return None

    def lose(self, why: str) -> None:
        return None

    def stop(self, why: str) -> None:
        return None

    async def note(self, mark: str) -> None:
        return None


def admit_all(step: str, operations: Sequence[Operation]) -> None:
    return None


def unguarded(
    kube: Kube,
    run: str,
    folder: Path,
    about: dict[str, str],
    emit: Emit,
    owner: Owner | None = None,
    scope: Scope | None = None,
) -> Ledger:
    """As Ledger.begin, without what a run has to say of who may change what."""
    return Ledger.begin(kube, run, folder, about, emit, admit=admit_all, owner=owner or Alone(), scope=scope)
