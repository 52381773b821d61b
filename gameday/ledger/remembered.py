"""Words on runs that outlive their records: in one object for each sort of word, of the newest runs.

An object of Kubernetes has an end (etcd takes 1.5 MiB), and clusters and their game days go on for years.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

from gameday.ledger.keeping import name_of
from gameday.ledger.key import key_ref
from gameday.platform.conditional import among_others, create_if_absent, write_if
from gameday.platform.objects import Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

KEPT = 100  # runs, the newest; and all that are not over


async def remember(
    kube: Kube, where: Ref, name: str, text: str, run_of: Callable[[str], str] = lambda name: name
) -> None:
    """Write a text under a name, and forget the oldest runs that are over. Raises PlatformError.

    A text is JSON, with its time as `at` (RFC 3339, UTC); `run_of` a name is the run that it is about.
    """

    async def attempt() -> bool:
        found = await kube.find(where)
        if found is None:
            meta = {"name": where.name, "namespace": where.namespace}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {name: text}}
            return await create_if_absent(kube, body) is not None
        times: dict[str, list[str]] = defaultdict(list)
        for known, said in (found.get("data") or {}).items():
            times[run_of(known)].append(_at(said))
        times.pop(run_of(name), None)
        oldest = sorted(times, key=lambda run: max(times[run]))[: max(0, len(times) + 1 - KEPT)]
        lasting = await asyncio.gather(*(_lasts(kube, run) for run in oldest))
        over = {run for run, lasts in zip(oldest, lasting, strict=True) if not lasts}
        forgotten = {known: None for known in found.get("data") or {} if run_of(known) in over}
        return await write_if(kube, found, {"data": forgotten | {name: text}}) is not None

    await among_others(where, attempt)


async def _lasts(kube: Kube, run: str) -> bool:
    """Whether a run is not over: its record is there, or its key, which goes last."""
    record = Ref("v1", "ConfigMap", name_of(run), key_ref(run).namespace)
    return await kube.find(record) is not None or await kube.find(key_ref(run)) is not None


def _at(said: str) -> str:
    """The time of a text; "", before all others, where it has none."""
    try:
        return str(json.loads(said)["at"])
    except (ValueError, KeyError, TypeError):
        return ""
