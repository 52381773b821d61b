"""How far a run's record has come, beside its key: so that an older record, or none, is seen to be wrong.

The key's Secret holds the mark as an annotation. Whoever may write Leases and ConfigMaps, but no Secrets,
can neither make one nor put back an older one, which the run itself once wrote. The mark is written after
the record, and before any change is made that the record speaks of. Before the record is removed at the end
the mark says so: what is missing then was not lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from gameday.ledger.seal import Seal
from gameday.platform.errors import PlatformError
from gameday.platform.objects import Object, annotations_of

ANNOTATION = "gameday.dev/record"
DONE = "done"  # in place of a digest: all is restored, and the record may be gone
NONE = "none"  # in place of a digest: there is no record yet, and no change was made
LOST = "lost"  # in place of a digest: the run has a key, which does not say how far the record was


class RecordLost(PlatformError):
    """A run's record is gone, or an older version of it is back: what is in force can't be known from it."""


@dataclass(frozen=True)
class Mark:
    """The `serial` of a record's newest write, and the digest of its entries."""

    serial: int
    digest: str

    @classmethod
    def of(cls, secret: Object) -> Mark:
        """The mark beside a key."""
        text = str(annotations_of(secret).get(ANNOTATION) or "")
        serial, _, digest = text.partition(" ")
        return cls(int(serial), digest) if serial.isdecimal() and digest else cls(0, LOST)

    @property
    def annotations(self) -> dict[str, str]:
        """The mark as its Secret holds it."""
        return {ANNOTATION: f"{self.serial} {self.digest}"}

    def check(self, run: str, found: bool, seal: Seal | None) -> None:
        """Hold what is there against the mark; `seal` is the record's, if the run signed it.

        Raises RecordLost.
        """
        if self.digest in (NONE, DONE):
            return
        if not found:
            raise RecordLost(f"the record of run {run} is lost: {what_to_do(run)}")
        if seal is None:
            return  # what it may lack is an entry of its own
        if seal.serial < self.serial or (seal.serial == self.serial and seal.digest != self.digest):
            raise RecordLost(
                f"the record of run {run} is an older one (write {seal.serial}, and {self.serial} was the "
                f"last): {what_to_do(run)}"
            )


def what_to_do(run: str) -> str:
    """How a person restores a run whose record can't be believed."""
    return (
        f"use: gameday recover --run {run} --from FOLDER, with the folder of the run; "
        f"or restore it by hand, and then: gameday recover --run {run} --forget"
    )
