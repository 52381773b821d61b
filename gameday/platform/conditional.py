"""Writes that hold for the version that was read alone: what others did meanwhile is never written over.

An API server answers 409 where the object has another version by now, 404 where it is gone, and 422 where a
JSON patch does not fit it any more; each means that the object is to be read again. Where the answer was lost
(Unreachable), reading again shows whether the write is in.
Source: "Kubernetes API Concepts", resource versions and optimistic locking.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from gameday.platform.errors import ApiError, PlatformError, Unreachable, not_found
from gameday.platform.objects import Object, Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

T = TypeVar("T")
ATTEMPTS = 4  # at a write that others race, or whose answer is lost


async def write_if(
    kube: Kube, found: Object, body: Object | list[Object], *, subresource: str = "", manager: str = ""
) -> Object | None:
    """Patch an object exactly as it was read; None where it is another by now, and is to be read again.

    `body` is a merge patch, or as a list a JSON patch. Raises what `Kube.patch` raises for any other reason.
    """
    ref, version = Ref.of(found), found["metadata"]["resourceVersion"]
    patch: Object | list[Object]
    if isinstance(body, list):
        kind, patch = "json", [{"op": "test", "path": "/metadata/resourceVersion", "value": version}, *body]
    else:
        meta = {**body.get("metadata", {}), "resourceVersion": version}
        kind, patch = "merge", {**body, "metadata": meta}
    try:
        return await kube.patch(ref, patch, kind, subresource=subresource, manager=manager)
    except ApiError as error:
        if error.status == 409:
            return None
        # A failed `test` is a bare 422, as is a patch that does not fit.
        if not (not_found(error) or error.status == 422) or error.details.get("causes"):
            raise
        now = await kube.find(ref)
        if now is not None and now["metadata"]["resourceVersion"] == version:
            raise
        return None


async def delete_if(kube: Kube, found: Object) -> bool:
    """Delete an object exactly as it was read; False where it is another by now, and is to be read again."""
    try:
        await kube.delete(Ref.of(found), version=found["metadata"]["resourceVersion"])
    except ApiError as error:
        if error.status != 409:
            raise
        return False
    return True


async def create_if_absent(kube: Kube, manifest: Object) -> Object | None:
    """Create an object; None where one of that name is there."""
    try:
        return await kube.create(manifest)
    except ApiError as error:
        if error.status != 409:
            raise
        return None


async def among_others(what: Ref, attempt: Callable[[], Awaitable[T | None]], attempts: int = ATTEMPTS) -> T:
    """Read, judge and write until it is in; `attempt` does all three, and gives nothing true where it is not.

    An attempt whose answer was lost, or in which the server failed, is followed by another one, which must be
    right where the first one's write is in. Raises what the last one raised, Unreachable for a lost race.
    """
    last: PlatformError = Unreachable(f"{what}: others keep changing it")
    for _ in range(attempts):
        try:
            if done := await attempt():
                return done
        except Unreachable as error:
            last = error
        except ApiError as error:
            if error.status < 500:
                raise
            last = error
    raise last
