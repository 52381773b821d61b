"""Complaints of the cluster about an object that does not do what it should: its own warning events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gameday.platform.errors import PlatformError
from gameday.platform.resources import EVENTS

if TYPE_CHECKING:
    from gameday.platform.kube import Kube
    from gameday.platform.objects import Object, Ref


async def warnings_about(kube: Kube, ref: Ref, most: int = 3) -> list[str]:
    """The newest different warnings about an object, newest first; none when they can't be read."""
    fields = {"involvedObject.kind": ref.kind, "involvedObject.name": ref.name}
    if ref.uid:
        fields["involvedObject.uid"] = ref.uid
    try:
        found = await kube.list(EVENTS, ref.namespace, fields=fields)
    except PlatformError:
        return []
    newest = sorted((e for e in found if e.get("type") == "Warning"), key=_time, reverse=True)
    texts = (f"{e.get('reason', '')}: {e.get('message', '')}".strip(": ") for e in newest)
    return list(dict.fromkeys(texts))[:most]


def _time(event: Object) -> str:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return str(next((t for t in times if t), event["metadata"].get("creationTimestamp", "")))
