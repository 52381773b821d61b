"""The run's Lease: whoever renews it owns the run; once it runs out, anybody may take it and restore.

As in client-go's leader election (k8s.io/client-go/tools/leaderelection), the holder counts from when it
*sent* the last renewal that succeeded, and stops `deadline` seconds after; an observer counts how long it saw
the Lease unchanged, on its own monotonic clock (`observer`). No two clocks are ever compared. The epoch is
`spec.leaseTransitions`. Unlike there every renewal and every taking is conditional on the version that was
read, so that nobody takes a Lease back that was taken from him.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from gameday.ledger.holder import PROCESS_ANNOTATION, Holding, holder_of, holding, new_holder, this_process
from gameday.ledger.keeping import NAMESPACE, check_is_of, metadata, name_of, remove
from gameday.ledger.observer import Observer, duration_of, renewal_of
from gameday.platform import fallback
from gameday.platform.conditional import ATTEMPTS, among_others, write_if
from gameday.platform.errors import ApiError, PlatformError, Unreachable, not_found
from gameday.platform.fence import Lost, Unsure
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, annotations_of
from gameday.platform.resources import LEASES

SAID_ANNOTATION = "gameday.dev/said"


@dataclass(frozen=True)
class Timing:
    """Seconds. The defaults are client-go's recommended ones."""

    duration: int = 15  # unchanged for so long, as an observer saw it: the Lease may be taken
    deadline: float = 10.0  # so long after its last renewal was sent the holder changes nothing any more
    retry: float = 2.0  # between renewals
    answer: float = 5.0  # a renewal without an answer is sent again


DEFAULTS = Timing()


class RunLease:
    """Holds `gameday-<run>`: the owner of the run, for as long as the Lease can be renewed.

    `clock` is monotonic, in seconds. `epoch` is 0 until the Lease is held.
    """

    def __init__(
        self, kube: Kube, run: str, *, timing: Timing = DEFAULTS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kube = kube
        self.ref = ref_of(run)
        self._run = run
        self._timing, self._clock = timing, clock
        self.holder = new_holder()
        self.epoch = 0
        self._lease: Object = {}  # as it was last read or written
        self._sent = float("-inf")  # when the last renewal that succeeded was sent
        self.said = ""  # what the run notes on its Lease: every renewal carries it
        self._lost = ""  # why nothing may be changed any more
        self._stopped = ""  # why nothing may be made any more; what was made may be undone
        self._alone = False  # there is no Lease, and nobody can make one
        self._renewing = asyncio.Lock()

    # -- owning --------------------------------------------------------------------------------

    def check(self, *, undoing: bool = False) -> None:
        """Whether the Lease is certainly ours at this moment. Raises Unsure or Lost."""
        if self._lost or (self._stopped and not undoing):
            raise Lost(self._lost or self._stopped)
        if self._alone:
            return
        age = self._clock() - self._sent
        if age >= self._timing.deadline:
            raise Unsure(f"the Lease of run {self._run} was last renewed {age:.0f} s ago")

    async def sure(self, *, undoing: bool = False) -> None:
        """Wait until it is. Raises Lost."""
        while True:
            try:
                self.check(undoing=undoing)
                return
            except Unsure:
                try:
                    await self.renew()
                except Lost:
                    raise
                except PlatformError:
                    await asyncio.sleep(min(0.2, self._timing.retry))

    def lose(self, why: str) -> None:
        """The run is somebody else's."""
        self._lost = self._lost or why

    def stop(self, why: str) -> None:
        """The run is ours still, but nothing may be made any more."""
        self._stopped = self._stopped or why

    async def note(self, text: str) -> None:
        """Write a note on the Lease. Raises as `renew`."""
        self.said = text
        await self.renew()

    def _annotations(self) -> dict[str, str]:
        return {SAID_ANNOTATION: self.said} if self.said else {}

    # -- taking --------------------------------------------------------------------------------

    async def acquire(self) -> None:
        """The Lease of a new run. Raises Lost when there is one."""
        await self._create(1)

    async def take(self, *, least: int = 0, force: bool = False, observer: Observer | None = None) -> None:
        """Take over the Lease of a run that is not renewed any more, for an epoch above `least`.

        Watches it for its duration, unless it was given back or its holder is provably gone. Raises Lost when
        it is renewed, or when somebody else is quicker. `force` takes it from a holder that may be alive,
        and then waits until that one has certainly stopped.
        """
        found = await self._kube.find(self.ref)
        if found is None:
            await self._create(least + 1)
            return
        check_is_of(found, self._run)
        held = holding(found) is Holding.HELD
        if held and not force:
            found = await (observer or Observer(self._clock)).until_expired(self._kube, self._run)
            held = False
        await self._replace(found, max(least, epoch_of(found)) + 1, force)
        if held:
            await self._outlast(duration_of(found))

    async def _create(self, epoch: int) -> None:
        meta = metadata(self._run, annotations={PROCESS_ANNOTATION: this_process()})
        manifest = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": meta}
        self.epoch = epoch
        for attempt in range(ATTEMPTS):
            sent = self._clock()
            try:
                self._renewed(sent, await self._kube.create(manifest | {"spec": self._spec()}))
                return
            except (ApiError, Unreachable) as error:
                if isinstance(error, ApiError) and error.status != 409:
                    raise
                if attempt == ATTEMPTS - 1 and isinstance(error, Unreachable):
                    raise
            if (found := await self._kube.find(self.ref)) is not None:
                if holder_of(found) != self.holder:
                    raise Lost(f"run {self._run} is alive: {holder_of(found)} renews its lease")
                self._renewed(sent, found)
                return
        raise Lost(f"the Lease of run {self._run} keeps coming and going")

    async def _replace(self, found: Object, epoch: int, force: bool) -> None:
        """Take a Lease as it was judged, or not at all; a note that was left on it changes nothing."""
        self.epoch = epoch
        meta = {"annotations": {PROCESS_ANNOTATION: this_process()}}
        for _ in range(ATTEMPTS):
            sent, now = self._clock(), None
            with contextlib.suppress(Unreachable):  # the next look shows whether it is in
                body = {"metadata": meta, "spec": self._spec() | {"acquireTime": _now()}}
                now = await write_if(self._kube, found, body)
            if (now := now or await self._kube.find(self.ref)) is None:
                raise Lost(f"the Lease of run {self._run} was deleted: somebody else has restored it")
            if holder_of(now) == self.holder:
                self._renewed(sent, now)
                self.said = said_of(now)
                return
            same = _told(now) == _told(found) if force else renewal_of(now) == renewal_of(found)
            if not same:
                raise Lost(f"{holder_of(now) or 'somebody'} was quicker at run {self._run}")
            found = now
        raise Lost(f"the Lease of run {self._run} keeps changing")

    async def _outlast(self, seconds: float) -> None:
        """Renew until a holder that was not asked can't believe any more that the Lease is its own."""
        end = self._clock() + seconds
        while self._clock() < end:
            await asyncio.sleep(min(self._timing.retry, max(0.0, end - self._clock())))
            await self.sure()
            await self.renew()

    # -- renewing ------------------------------------------------------------------------------

    async def renew(self) -> None:
        """Renew once. Raises Lost when the Lease is another's; PlatformError when it could not be done."""
        try:
            async with self._renewing, asyncio.timeout(self._timing.answer):
                with fallback.to_ourselves():
                    await self._renew()
        except TimeoutError:
            raise Unreachable(f"{self.ref} could not be renewed: no answer") from None

    async def _renew(self) -> None:
        for _ in range(ATTEMPTS):
            if self._lost:
                raise Lost(self._lost)
            if self._alone:
                return
            if not self._lease:
                await self._look()
            sent = self._clock()
            body = {"metadata": {"annotations": self._annotations()}, "spec": self._spec()}
            if (done := await write_if(self._kube, self._lease, body)) is not None:
                self._renewed(sent, done)
                return
            await self._look()
        raise Unreachable(f"{self.ref} could not be renewed: others keep changing it")

    async def _look(self) -> None:
        """Learn whose the Lease is now: notes and aborts change it, too. Raises Lost."""
        found = await self._kube.find(self.ref)
        if found is None:
            await self._without()
            return
        if not self._is_ours(found):
            self.lose(f"{holder_of(found) or 'somebody'} took the run over and restores it")
            raise Lost(self._lost)
        self._lease = found

    async def _without(self) -> None:
        """The Lease was deleted, past its finalizer. Nothing is made any more; undoing needs a new one.

        Whoever makes the new one owns the run. Where the namespace is going nobody can.
        """
        self.stop("its Lease was deleted")
        try:
            await self._create(self.epoch + 1)
        except Lost as lost:
            self.lose(str(lost))
            raise
        except ApiError as error:
            if error.status != 403 and not not_found(error):
                raise
            self._alone = True

    def _renewed(self, sent: float, lease: Object) -> None:
        self._lease, self._sent = lease, sent

    @property
    def going(self) -> bool:
        """Whether somebody deletes the Lease, with its namespace say: our finalizer keeps it until we end."""
        return "deletionTimestamp" in self._lease.get("metadata", {})

    async def keep(self, lost: Callable[[str], None]) -> None:
        """Renew for ever. An API server that is away is waited for: nothing can be changed then anyway."""
        told = False
        while True:
            await asyncio.sleep(self._timing.retry)
            try:
                await self.renew()
            except Lost as taken:
                lost(str(taken))
                return
            except Unreachable:
                continue
            except PlatformError as refused:
                if not told and self._clock() - self._sent >= self._timing.deadline:
                    told = True
                    lost(f"its Lease can't be renewed: {refused}")
            if self.going:
                self.stop("its Lease is being deleted, perhaps with its namespace")
            if self._stopped and not told:
                told = True
                lost(self._stopped)

    # -- giving back ---------------------------------------------------------------------------

    async def release(self, *, restored: bool = True) -> None:
        """Remove the Lease, if it is ours still; where something is left, only give it back.

        Raises PlatformError when that is not known to have been done.
        """

        async def attempt() -> bool:
            if self._lost or self._alone:
                return True
            found, self._lease = self._lease or await self._kube.find(self.ref), {}
            if found is None or not self._is_ours(found):
                return True
            if not await (remove(self._kube, found) if restored else self._give_back(found)):
                return False
            self.lose("its Lease was given back")
            return True

        async with self._renewing:
            await among_others(self.ref, attempt)

    def _is_ours(self, lease: Object) -> bool:
        return (holder_of(lease), epoch_of(lease)) == (self.holder, self.epoch)

    async def _give_back(self, found: Object) -> bool:
        """As client-go's ReleaseOnCancel does: no holder, so that anybody may take it at once."""
        return await write_if(self._kube, found, {"spec": {"holderIdentity": ""}}) is not None

    def _spec(self) -> dict[str, object]:
        return {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": self._timing.duration,
            "renewTime": _now(),
            "leaseTransitions": self.epoch,
        }


def _now() -> str:
    """For people and for telling renewals apart; no decision is made by it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _told(lease: Object) -> tuple[str, int]:
    return holder_of(lease), epoch_of(lease)


def ref_of(run: str) -> Ref:
    """The Lease of a run."""
    return Ref("coordination.k8s.io/v1", "Lease", name_of(run), NAMESPACE)


def said_of(lease: Object) -> str:
    """The run's note on its Lease; "" where there is none."""
    return str(annotations_of(lease).get(SAID_ANNOTATION) or "")


def epoch_of(lease: Object) -> int:
    """The epoch that a Lease stands at."""
    number = (lease.get("spec") or {}).get("leaseTransitions")
    return number if isinstance(number, int) else 0
