"""The run's Lease: as long as it is renewed, the run lives; once it expires, anybody may restore.

A Lease is the dead-man's switch of the orchestrator itself. Durations are seconds.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from gameday.ledger.operations import RUN_LABEL
from gameday.ledger.store import NAMESPACE
from gameday.platform.errors import ApiError, PlatformError, not_found
from gameday.platform.following import follow
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref
from gameday.platform.resources import LEASES

DURATION = 30
RENEW_EVERY = 5.0
ABORT_ANNOTATION = "gameday.dev/abort"  # set by `gameday abort`: its text is the reason
NOTE_ANNOTATION = "gameday.dev/note-"  # and a number: set by `gameday note`, "author: text"


class Lost(Exception):
    """Another process took the run over."""


@dataclass(frozen=True)
class Ears:
    """What a run does when its lease says something."""

    abort: Callable[[str], None]
    note: Callable[[str, str], None]  # author, text
    lost: Callable[[str], None]


class RunLease:
    """Holds `gameday-<run>` and hears, with each renewal, whether someone asked to abort."""

    def __init__(self, kube: Kube, run: str) -> None:
        self._kube = kube
        self.ref = Ref("coordination.k8s.io/v1", "Lease", f"gameday-{run}", NAMESPACE)
        self._run = run
        self.holder = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns() % 10**6}"

    async def acquire(self, *, force: bool = False) -> None:
        """Take the lease: create it, or take over an expired one (any one with `force`)."""
        try:
            await self._kube.create(
                {
                    "apiVersion": LEASES.api_version,
                    "kind": LEASES.kind,
                    "metadata": {
                        "name": self.ref.name,
                        "namespace": NAMESPACE,
                        "labels": {RUN_LABEL: self._run},
                    },
                    "spec": self._spec(),
                }
            )
            return
        except ApiError as error:
            if error.status != 409:
                raise
        found = await self._kube.get(self.ref)
        if not expired(found) and not force:
            raise Lost(f"run {self._run} is alive: {found['spec'].get('holderIdentity')} renews its lease")
        meta = {"resourceVersion": found["metadata"]["resourceVersion"]}
        await self._kube.patch(self.ref, {"metadata": meta, "spec": self._spec()}, "merge")

    async def keep(self, ears: Ears) -> None:
        """Renew for ever. An API server that is away is waited for: nothing can be changed then anyway."""
        watcher = asyncio.create_task(self._listen(ears))
        try:
            while True:
                await asyncio.sleep(RENEW_EVERY)
                try:
                    lease = await self._kube.get(self.ref)
                    if lease["spec"].get("holderIdentity") != self.holder:
                        ears.lost(f"{lease['spec'].get('holderIdentity')} took the run over and restores it")
                        return
                    await self._kube.patch(self.ref, {"spec": self._spec()}, "merge")
                except ApiError as error:
                    if not_found(error):
                        ears.lost("its lease was deleted")
                        return
                except PlatformError:
                    continue
        finally:
            watcher.cancel()

    async def _listen(self, ears: Ears) -> None:
        """Hear `gameday abort` and `gameday note` at once, not at the next renewal."""
        fields = f"metadata.name={self.ref.name}"
        heard: set[str] = set()
        async for _, lease in follow(self._kube, LEASES, NAMESPACE, fields=fields):
            said = lease.get("metadata", {}).get("annotations") or {}
            new = [key for key in sorted(said) if key not in heard]
            heard.update(new)
            for key in new:
                if key == ABORT_ANNOTATION:
                    ears.abort(said[key])
                elif key.startswith(NOTE_ANNOTATION):
                    author, _, text = said[key].partition(": ")
                    ears.note(author, text)

    async def release(self) -> None:
        await self._kube.delete(self.ref)

    def _spec(self) -> dict[str, object]:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {"holderIdentity": self.holder, "leaseDurationSeconds": DURATION, "renewTime": now}


def expired(lease: Object) -> bool:
    """Whether nobody has renewed a lease for its whole duration."""
    renewed = lease["spec"].get("renewTime")
    if not renewed:
        return True
    age = time.time() - datetime.fromisoformat(renewed.replace("Z", "+00:00")).timestamp()
    return age > float(lease["spec"].get("leaseDurationSeconds", DURATION))


async def ask_to_abort(kube: Kube, run: str, reason: str) -> None:
    """Tell a run, wherever it runs, to abort. ApiError 404 when there is no such run."""
    await _annotate(kube, run, ABORT_ANNOTATION, reason)


async def leave_note(kube: Kube, run: str, author: str, text: str) -> None:
    """Have a run write a person's words into its log. ApiError 404 when there is no such run."""
    await _annotate(kube, run, f"{NOTE_ANNOTATION}{time.time_ns()}", f"{author}: {text}")


async def _annotate(kube: Kube, run: str, key: str, value: str) -> None:
    ref = Ref("coordination.k8s.io/v1", "Lease", f"gameday-{run}", NAMESPACE)
    await kube.patch(ref, {"metadata": {"annotations": {key: value}}}, "merge")
