"""Words of people to a run that is alive: aborts and notes. Written on its Lease, and answered there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from gameday.ledger.keeping import NAMESPACE
from gameday.ledger.lease import ref_of
from gameday.ledger.operations import RUN_LABEL
from gameday.platform import fallback
from gameday.platform.attending import READ_WITHIN, attend, read
from gameday.platform.errors import ApiError, PlatformError, not_found
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, annotations_of, labels_of
from gameday.platform.resources import LEASES

ABORT_ANNOTATION = "gameday.dev/abort"  # set by `gameday abort`: its text is the reason
HEARD_ANNOTATION = "gameday.dev/abort-heard"  # set by the run, once it aborts
# And a number: set by `gameday note`, "author: text"; removed by the run, once heard.
NOTE_ANNOTATION = "gameday.dev/note-"
ASK_EVERY = 0.2  # seconds between two looks for the answer


@dataclass(frozen=True)
class Said:
    """The actions of a run when it hears an abort, or a note."""

    abort: Callable[[str], None]  # reason
    note: Callable[[str, str], None]  # author, text


class Listener:
    """Hears what is said to one run, each thing once. A guard: without it nobody can abort the run."""

    def __init__(self, kube: Kube, run: str, said: Said) -> None:
        self._kube, self._ref, self._said = kube, ref_of(run), said
        self._heard: set[str] = set()

    async def run(self) -> None:
        """Listen for ever. Raises Unseen when the Lease can't be read any more."""
        await attend(self._kube, self._ref, self._look)

    async def _look(self, lease: Object | None) -> None:
        written = annotations_of(lease or {})
        for key in sorted(written.keys() - self._heard):
            self._heard.add(key)
            if key == ABORT_ANNOTATION:
                self._said.abort(written[key])
            elif key.startswith(NOTE_ANNOTATION):
                author, _, text = written[key].partition(": ")
                self._said.note(author, text)
        answers: dict[str, str | None] = dict.fromkeys(k for k in written if k.startswith(NOTE_ANNOTATION))
        if ABORT_ANNOTATION in written and HEARD_ANNOTATION not in written:
            answers[HEARD_ANNOTATION] = "true"
        if answers:
            # Tried again with the next look.
            with contextlib.suppress(PlatformError), fallback.to_ourselves():
                await _annotate(self._kube, self._ref, answers)


class Answer(Enum):
    """The outcome of telling a run something."""

    HEARD = "heard it, and puts everything back"
    ENDED = "has ended"
    NONE = "did not answer"


async def ask_to_abort(kube: Kube, run: str, reason: str, within: float) -> Answer:
    """Have a run, wherever it runs, abort, and wait up to `within` seconds until it does.

    ApiError 404 when there is no such run; other PlatformErrors when it could not be asked.
    """
    return await _told(kube, run, ABORT_ANNOTATION, reason, within, lambda there: HEARD_ANNOTATION in there)


async def leave_note(kube: Kube, run: str, author: str, text: str, within: float) -> Answer:
    """Have a run write a person's words into its log, and wait up to `within` seconds until it does.

    ApiError 404 when there is no such run; other PlatformErrors when it could not be told.
    """
    key = f"{NOTE_ANNOTATION}{time.time_ns()}"
    return await _told(kube, run, key, f"{author}: {text}", within, lambda there: key not in there)


async def _told(
    kube: Kube, run: str, key: str, text: str, within: float, heard: Callable[[Mapping[str, str]], bool]
) -> Answer:
    """Write on a run's Lease, and wait for the run's answer there. `heard`: whether annotations hold it."""
    ref = ref_of(run)
    await _annotate(kube, ref, {key: text})
    deadline = time.monotonic() + within
    while True:
        with contextlib.suppress(PlatformError):
            lease = await read(kube, ref, within=READ_WITHIN)
            if lease is not None and heard(annotations_of(lease)):
                return Answer.HEARD
            if lease is None or not lease["spec"].get("holderIdentity"):
                return Answer.ENDED
        if time.monotonic() > deadline:
            return Answer.NONE
        await asyncio.sleep(ASK_EVERY)


async def runs_alive(kube: Kube) -> list[str]:
    """The runs that hold a Lease, whether or not they have changed anything yet."""
    try:
        leases = await kube.list(LEASES, NAMESPACE, labels=RUN_LABEL)
    except ApiError as error:
        if not_found(error):
            return []
        raise
    named = [(labels_of(lease)[RUN_LABEL], lease) for lease in leases]
    return sorted(
        run
        for run, lease in named
        if lease["metadata"]["name"] == ref_of(run).name and (lease.get("spec") or {}).get("holderIdentity")
    )


async def _annotate(kube: Kube, ref: Ref, values: Mapping[str, str | None]) -> None:
    await kube.patch(ref, {"metadata": {"annotations": dict(values)}}, "merge")
