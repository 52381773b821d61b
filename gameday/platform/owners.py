"""Who a thing belongs to: pod, ReplicaSet, Deployment. What happens to it is mostly told of its owners.

An owner that is not there is no owner any more. One that can't be read, as its kind is not served or RBAC
does not let us, is in `blind`: nobody knows what it would say.
"""

from __future__ import annotations

import asyncio

from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, co_owners, controller, owner_ref

DEEPEST = 6  # owners of owners; nobody stacks more, and a circle must end


async def owners(kube: Kube, obj: Object, blind: list[Ref]) -> list[Object]:
    """The chain of controllers above an object, nearest first."""
    chain: list[Object] = []
    while (ref := _controller(obj)) and len(chain) < DEEPEST:
        found = await kube.find_readable(ref, blind)
        if found is None:
            break
        obj = found
        chain.append(obj)
    return chain


async def all_owners(kube: Kube, obj: Object, blind: list[Ref]) -> list[Object]:
    """Every object above one, its controller or not, the nearest first."""
    found: dict[Ref, Object] = {}
    level = [obj]
    for _ in range(DEEPEST):
        above = {ref for each in level for ref in (_controller(each), *co_owners(each)) if ref} - found.keys()
        refs = sorted(above, key=str)
        read = await asyncio.gather(*(kube.find_readable(ref, blind) for ref in refs))
        there = {ref: obj for ref, obj in zip(refs, read, strict=True) if obj is not None}
        found |= there
        level = list(there.values())
    return list(found.values())


def _controller(obj: Object) -> Ref | None:
    return owner_ref(controller(obj), obj["metadata"].get("namespace"))
