"""Who put back what dead runs had left, in one object that outlives their records: `gameday-restored`.

It is for people and reports alone: nothing is executed, and nothing is left undone, because of what it says.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from gameday.ledger.keeping import NAMESPACE
from gameday.platform.conditional import among_others, create_if_absent, write_if
from gameday.platform.objects import Object, Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

RESTORED = Ref("v1", "ConfigMap", "gameday-restored", NAMESPACE)
KEPT = 100  # runs, the newest
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
        changes = f"{self.undone} change{'' if self.undone == 1 else 's'}"
        left = f"; not as before: {', '.join(self.left)}" if self.left else ""
        return f"{changes} undone by {self.by} at {self.at}{left}"


async def keep(kube: Kube, run: str, done: Restoration) -> None:
    """Write it where it stays, the oldest forgotten. Raises PlatformError."""
    text = json.dumps(asdict(done) | {"left": done.left[:NAMED]})
    meta = {"name": RESTORED.name, "namespace": NAMESPACE}

    async def attempt() -> bool:
        found = await kube.find(RESTORED)
        if found is None:
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {run: text}}
            return await create_if_absent(kube, body) is not None
        known = {name: one for name in found.get("data") or {} if (one := _read(found, name))}
        oldest = sorted(known, key=lambda name: known[name].at)[: max(0, len(known) + 1 - KEPT)]
        data = {run: text} | {name: None for name in oldest if name != run}
        return await write_if(kube, found, {"data": data}) is not None

    await among_others(RESTORED, attempt)


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
