"""Puts objects into a cluster as `kubectl apply` does by hand: kinds first, and patiently."""

from __future__ import annotations

from collections.abc import Iterable

from gameday.platform.errors import ApiError, WrongAnswer
from gameday.platform.kube import Kube
from gameday.platform.objects import Object
from tests.support.polling import eventually


async def install(kube: Kube, objects: Iterable[Object]) -> None:
    """Create one after the other; one that is there already stays as it is."""
    for obj in objects:
        await eventually(lambda obj=obj: _created(kube, obj), within=60)  # type: ignore[misc]


async def _created(kube: Kube, obj: Object) -> bool:
    """False while its kind is not served yet."""
    try:
        await kube.create(obj)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            if error.status != 404:
                raise
            return False
    except WrongAnswer:  # it came to be served in the middle of the request
        return False
    return True
