"""Who a thing belongs to: pod, ReplicaSet, Deployment. What happens to it is mostly told of its owners."""

from __future__ import annotations

from gameday.platform.errors import ApiError
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, controller

DEEPEST = 6  # owners of owners; nobody stacks more, and a circle must end


async def owners(kube: Kube, obj: Object, blind: list[Ref]) -> list[Object]:
    """The chain of controllers above an object, nearest first; `blind` has the one that may not be read."""
    chain: list[Object] = []
    while (owner := controller(obj)) and len(chain) < DEEPEST:
        namespace = obj["metadata"].get("namespace")
        ref = Ref(owner["apiVersion"], owner["kind"], owner["name"], namespace, owner.get("uid"))
        try:
            found = await kube.find_readable(ref, blind)
        except ApiError as error:
            if error.status == 404:  # the kind is not served any more
                break
            raise
        if found is None:
            break
        obj = found
        chain.append(obj)
    return chain
