"""Who may change the world for a run, and its record: the process with the run's newest epoch."""

from __future__ import annotations

from typing import Protocol


class Owner(Protocol):
    """The owner of a run, as the ledger and its store ask him."""

    epoch: int  # grows with every takeover; a record says which one wrote it
    holder: str  # no other process ever has it

    def check(self, *, undoing: bool = False) -> None:
        """Whether a change may be sent at this moment. Raises fence.Unsure or fence.Lost."""
        ...

    async def sure(self, *, undoing: bool = False) -> None:
        """Wait until a change may be sent. Raises fence.Lost."""
        ...

    async def note(self, text: str) -> None:
        """Leave a note where others find the run. Raises PlatformError."""
        ...

    def lose(self, why: str) -> None:
        """The run was seen to be somebody else's: nothing may be changed any more."""
        ...

    def stop(self, why: str) -> None:
        """Nothing may be made any more; what was made may be undone."""
        ...
