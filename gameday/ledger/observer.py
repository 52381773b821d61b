"""Whether a Lease has run out, as an observer may say: unchanged for its duration on his own clock.

So does client-go's leader election, since clocks of two machines are never right enough to be compared.
Time in which the observer could not ask counts little: after an outage of the API server the holder, which
could not renew either, must be given the time to do so.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gameday.ledger.holder import Holding, holder_of, holding
from gameday.ledger.keeping import NAMESPACE, name_of
from gameday.platform.fence import Lost
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref

DEFAULT_DURATION, LONGEST = 15.0, 60.0  # seconds; a Lease that claims more is not believed
LOOK_EVERY = 0.5  # seconds


@dataclass
class _Seen:
    """Looks at one Lease: its renewal, when it was last looked at, and since how long it stands."""

    renewal: tuple[object, ...]
    at: float
    stale: float = 0.0


class Observer:
    """Remembers Leases from one look to the next. `gap`: seconds between looks that count in full."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, gap: float = 4 * LOOK_EVERY) -> None:
        self._clock, self._gap = clock, gap
        self._seen: dict[str, _Seen] = {}

    def look(self, lease: Object) -> bool:
        """Whether its holder has lost it: given back, provably gone, or not renewed for its duration."""
        if holding(lease) is not Holding.HELD:
            return True
        uid, now = str(lease["metadata"].get("uid")), self._clock()
        seen = self._seen.setdefault(uid, _Seen(renewal_of(lease), now))
        if seen.renewal != renewal_of(lease):
            self._seen[uid] = _Seen(renewal_of(lease), now)
            return False
        seen.stale += min(now - seen.at, self._gap)
        seen.at = now
        return seen.stale >= duration_of(lease)

    def forget(self, others: Iterable[Object]) -> None:
        """Remember only these."""
        alive = {str(lease["metadata"].get("uid")) for lease in others}
        self._seen = {uid: seen for uid, seen in self._seen.items() if uid in alive}

    async def until_expired(self, kube: Kube, run: str) -> Object:
        """The Lease once it has run out. Raises Lost when it is renewed, or gone; PlatformError."""
        ref = Ref("coordination.k8s.io/v1", "Lease", name_of(run), NAMESPACE)
        first: tuple[object, ...] | None = None
        while True:
            lease = await kube.find(ref)
            if lease is None:
                raise Lost(f"run {run} has ended: its Lease is gone")
            if self.look(lease):
                return lease
            first = first or renewal_of(lease)
            if first != renewal_of(lease):
                raise Lost(f"run {run} is alive: {holder_of(lease)} renews its lease")
            await asyncio.sleep(LOOK_EVERY)


def duration_of(lease: Object) -> float:
    """Seconds for which a Lease holds without being renewed."""
    told = (lease.get("spec") or {}).get("leaseDurationSeconds")
    return min(float(told), LONGEST) if isinstance(told, int) and told > 0 else DEFAULT_DURATION


def renewal_of(lease: Object) -> tuple[object, ...]:
    """The fields that change with every renewal and every taking of a Lease, and with nothing else."""
    spec = lease.get("spec") or {}
    return spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions")
