"""Who put back what dead runs had left, in one object that outlives their records: `gameday-restored`.

It is for people and reports alone: nothing is executed, and nothing is left undone, because of what it says.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from gameday.experiment.text import plural
from gameday.ledger.keeping import NAMESPACE
from gameday.ledger.remembered import remember
from gameday.platform.objects import Object, Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

RESTORED = Ref("v1", "ConfigMap", "gameday-restored", NAMESPACE)
NAMED = 20  # objects of one run


@dataclass(frozen=True)
class Restoration:
    """One restorer's work. `at`: RFC 3339, UTC; `left`: objects that are not as before."""

    by: str
    at: str
    undone: int
    left: tuple[str, ...] = ()

    @property
    def when(self) -> float:
        """`at` in Unix seconds; 0 where it can't be read."""
        try:
            return datetime.fromisoformat(self.at).timestamp()
        except ValueError:
            return 0.0

    def __str__(self) -> str:
        changes = plural(self.undone, "change")
        left = f"; not as before: {', '.join(self.left)}" if self.left else ""
        return f"{changes} undone by {self.by} at {self.at}{left}"


async def keep(kube: Kube, run: str, done: Restoration) -> None:
    """Write it where it stays, the oldest forgotten. Raises PlatformError."""
    text = json.dumps(asdict(done) | {"left": done.left[:NAMED]})
    await remember(kube, RESTORED, run, text)


async def read(kube: Kube, run: str) -> Restoration | None:
    """The last word on a run; None where there is none. Raises PlatformError."""
    found = await kube.find(RESTORED)
    return _read(found, run) if found else None


def _read(found: Object, run: str) -> Restoration | None:
    try:
        told = json.loads((found.get("data") or {})[run])
        return Restoration(
            str(told["by"]), str(told["at"]), int(told["undone"]), tuple(map(str, told["left"]))
        )
    except (KeyError, TypeError, ValueError):
        return None
