"""One stored form per object, several served ones: other versions of a CRD, and events in their newer API."""

from __future__ import annotations

from typing import Any

from gameday.sandbox.apiserver.resources import Resource

Json = dict[str, Any]
EVENTS = "events.k8s.io"
# core/v1 name -> events.k8s.io/v1 name
_RENAMED = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_CORE_NAME = {v: k for k, v in _RENAMED.items()}


def served(resource: Resource, obj: Json) -> Json:
    """A stored object as that resource's version shows it; the object itself when that is the stored one."""
    if obj["apiVersion"] == resource.api_version:
        return obj
    renamed = {_RENAMED.get(k, k): v for k, v in obj.items()} if resource.group == EVENTS else obj
    return {**renamed, "apiVersion": resource.api_version}


def stored(resource: Resource, storage: str, obj: Json) -> Json:
    """An object that came in that resource's version as it is kept; `storage` is the kept apiVersion."""
    if obj["apiVersion"] == storage:
        return obj
    renamed = {_CORE_NAME.get(k, k): v for k, v in obj.items()} if resource.group == EVENTS else obj
    return {**renamed, "apiVersion": storage}
