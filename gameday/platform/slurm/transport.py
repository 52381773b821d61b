"""Ways to Slurm: what each can do, how to name one without its secrets, and how it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from gameday.experiment.text import shorten
from gameday.platform.errors import PlatformError, Unreachable
from gameday.platform.exec import is_killed
from gameday.platform.slurm.model import Job, Node, Partition

LONGEST = 300  # characters of what Slurm said that are quoted
Change = Literal["node", "partition", "requeue"]
# Failures of the way to slurmctld, which may be busy and do it yet, in the words of Slurm
# (src/common/slurm_errno.c) and of the C library.
UNANSWERED = (
    "unable to contact slurm controller",
    "unexpected message rec",  # older versions misspell it
    "communication connection failure",
    "communication shutdown failure",
    "message send failure",
    "message receive failure",
    "insane message length",
    "received zero length message",
    "failed to send entire message",
    "header lengths are longer",
    "socket timed out",
    "zero bytes were transmitted",
    "connection refused",
    "connection reset",
    "connection timed out",
    "broken pipe",
    "no route to host",
    "network is unreachable",
)


class SlurmError(PlatformError):
    """Slurm answered, and said no."""

    may_land = False


def failure(what: str, said: str, code: int = 1) -> PlatformError:
    """The error for what Slurm said: that its controller is away is not the same as a no.

    `code` is the command's exit code: one that was killed says nothing of what it asked for.
    """
    text = shorten(said, LONGEST) or "it said nothing"
    if is_killed(code):
        return Unreachable(f"cannot {what}: scontrol was killed ({code}: {text})")
    if any(words in text.lower() for words in UNANSWERED):
        return Unreachable(f"cannot {what}: slurmctld does not answer ({text}); see `scontrol ping`")
    return SlurmError(f"cannot {what}: {text}")


@dataclass(frozen=True)
class Via:
    """How Slurm is reached, as data that a record may hold: whoever undoes brings a token of their own."""

    url: str = ""  # of slurmrestd: http://, https:// or unix:///path
    user: str = ""  # whom the token is for
    namespace: str = ""  # of the pod that has scontrol
    selector: str = ""
    container: str = ""
    local: bool = False  # scontrol here

    def __str__(self) -> str:
        ways = [self.url] if self.url else []
        ways += [f"scontrol in a pod of {self.namespace} ({self.selector})"] if self.namespace else []
        return ", then ".join([*ways, *(["scontrol here"] if self.local else [])])

    def to_data(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if v}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Via:
        return cls(**data)


class Transport(Protocol):
    """One way to Slurm. All methods raise Unreachable (nobody answered) or SlurmError (it said no)."""

    async def nodes(self) -> list[Node]: ...

    async def jobs(self) -> list[Job]: ...

    async def partitions(self) -> list[Partition]: ...

    async def setting(self, name: str) -> str:
        """What slurm.conf says as it is in force; "" where this way does not tell."""
        ...

    async def cannot(self, change: Change) -> str:
        """Why this way can't make such a change; "" where it can."""
        ...

    async def update_node(self, name: str, state: str, reason: str) -> None:
        """Set a node's state (DRAIN, UNDRAIN, DOWN, RESUME); "" leaves the reason to Slurm."""
        ...

    async def update_partition(self, name: str, state: str) -> None: ...

    async def requeue(self, job: int) -> None: ...
