"""One person's yes to one plan, and where such approvals come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from gameday.safety.plan import Plan


@dataclass(frozen=True)
class Approval:
    """`by` is a name that the source vouches for; `until` is in seconds since the epoch."""

    by: str
    until: float
    where: str  # the source's name, for people


class Source(ABC):
    """Where people approve. What a source can't vouch for is no approval.

    `lasting`: it can be asked again later, so that what was withdrawn there does not count any more.
    """

    lasting: ClassVar[bool] = True

    @abstractmethod
    async def approvals(self, plan: Plan) -> list[Approval]:
        """The approvals of just this plan, expired ones included. Raises PlatformError. Read only."""

    async def __aenter__(self) -> Self:
        """Entered where a run waits for approvals: a source may ask people then. Raises PlatformError."""
        return self

    async def __aexit__(  # noqa: B027
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Left when the wait is over."""
