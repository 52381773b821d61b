"""What the API holds of some kinds, kept up to date by watches, so that controllers decide without asking."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterable

from gameday.platform.errors import ApiError, Unreachable
from gameday.platform.following import follow
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref

Key = tuple[str, str]  # namespace ("" for what has none) and name
Listener = Callable[
    [Object | None, Object | None], None
]  # now (None: it is gone) and before (None: it is new)
SERVED_AGAIN = 2.0  # seconds between looks for a server that is away, or a kind whose CRD comes later


def key_of(obj: Object) -> Key:
    meta = obj["metadata"]
    return meta.get("namespace") or "", meta["name"]


class Cache:
    """Objects by kind and key. Listeners are called for every change, in the event loop."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube
        self._kinds: dict[str, dict[Key, Object]] = {}
        self._owned: dict[tuple[str, str], set[Key]] = {}  # (owner's uid, kind): the dependents
        self._on_node: dict[str, set[Key]] = {}
        self._gone: set[str] = set()  # uids that never come back: an answer may arrive after its object's end
        self._listeners: dict[str, list[Listener]] = {}
        self._synced: dict[str, asyncio.Event] = {}
        self.listed_at: dict[str, float] = {}  # kind: Unix time of its last list

    # -- reading -------------------------------------------------------------------------------

    def all(self, kind: str, namespace: str = "") -> list[Object]:
        """Every object of a kind, of one namespace if one is named."""
        found = self._kinds.get(kind, {})
        return [o for k, o in found.items() if k[0] == namespace] if namespace else list(found.values())

    def get(self, kind: str, key: Key) -> Object | None:
        return self._kinds.get(kind, {}).get(key)

    def owned(self, owner: Object, kind: str) -> list[Object]:
        """The objects of a kind whose ownerReferences name this owner."""
        known = self._kinds.get(kind, {})
        return [known[k] for k in self._owned.get((owner["metadata"]["uid"], kind), ())]

    def pods_on(self, node: str) -> list[Object]:
        known = self._kinds.get("Pod", {})
        return [known[k] for k in self._on_node.get(node, ())]

    # -- changing ------------------------------------------------------------------------------

    def listen(self, kind: str, listener: Listener) -> None:
        self._listeners.setdefault(kind, []).append(listener)

    def put(self, obj: Object) -> None:
        """Take in an object, from a watch or from the answer to a write.

        The two come in any order: an older version is passed over, and so is an object that is gone.
        """
        if obj["metadata"]["uid"] in self._gone:
            return
        kind, key = obj["kind"], key_of(obj)
        known = self._kinds.setdefault(kind, {})
        old = known.get(key)
        if old and int(old["metadata"]["resourceVersion"]) >= int(obj["metadata"]["resourceVersion"]):
            return
        if old:
            self._unindex(kind, key, old)
        known[key] = obj
        self._index(kind, key, obj)
        for listener in self._listeners.get(kind, ()):
            listener(obj, old)

    def drop(self, obj: Object) -> None:
        """Forget an object that is gone; another one that has its name by now stays."""
        self._gone.add(obj["metadata"]["uid"])
        kind, key = obj["kind"], key_of(obj)
        old = self._kinds.get(kind, {}).get(key)
        if old is None or old["metadata"]["uid"] != obj["metadata"]["uid"]:
            return
        del self._kinds[kind][key]
        self._unindex(kind, key, old)
        for listener in self._listeners.get(kind, ()):
            listener(None, old)

    async def delete(self, obj: Object, *, grace: int | None = None) -> bool:
        """Delete an object through the API, by its uid, and see that here at once; False if it is gone."""
        ref = Ref.of(obj)
        body: Object = {"preconditions": {"uid": ref.uid}}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        path = (await self.kube.resource(ref.api_version, ref.kind)).path(ref.namespace, ref.name)
        try:
            answer = json.loads(
                await self.kube.request("DELETE", path, verb="delete", what=str(ref), body=body)
            )
        except ApiError as error:
            if error.status in (404, 409):
                return False
            raise
        if answer.get("kind") != ref.kind or (grace == 0 and not answer["metadata"].get("finalizers")):
            self.drop(obj)
        else:
            self.put(answer)
        return True

    def _index(self, kind: str, key: Key, obj: Object) -> None:
        for uid in _owners(obj):
            self._owned.setdefault((uid, kind), set()).add(key)
        if kind == "Pod" and (node := obj["spec"].get("nodeName")):
            self._on_node.setdefault(node, set()).add(key)

    def _unindex(self, kind: str, key: Key, obj: Object) -> None:
        for uid in _owners(obj):
            self._owned.get((uid, kind), set()).discard(key)
        if kind == "Pod" and (node := obj["spec"].get("nodeName")):
            self._on_node.get(node, set()).discard(key)

    # -- following -----------------------------------------------------------------------------

    async def follow(self, api_version: str, kind: str, namespace: str | None = None) -> None:
        """Keep one kind up to date until cancelled."""
        synced = self._synced.setdefault(kind, asyncio.Event())
        while True:
            try:
                resource = await self.kube.resource(api_version, kind)
                async for change, obj in follow(self.kube, resource, namespace):
                    if change == "SYNCED":
                        self.listed_at[kind] = time.time()
                        synced.set()
                    elif change == "DELETED":
                        self.drop({"kind": kind, **obj})
                    else:
                        self.put(obj)
            except (ApiError, Unreachable) as error:  # Unreachable: switched off, or this machine slept
                if isinstance(error, ApiError) and error.status != 404:
                    raise
                await asyncio.sleep(SERVED_AGAIN)

    async def synced(self, kinds: Iterable[str]) -> None:
        """Wait until each kind was listed once."""
        for kind in kinds:
            await self._synced.setdefault(kind, asyncio.Event()).wait()

    async def until(self, kinds: Iterable[str], holds: Callable[[], bool]) -> None:
        """Wait until something holds that depends on these kinds alone; looked at again on each change."""
        changed = asyncio.Event()

        def wake(_: Object | None, __: Object | None) -> None:
            changed.set()

        watched = list(kinds)
        for kind in watched:
            self.listen(kind, wake)
        try:
            while not holds():
                await changed.wait()
                changed.clear()
        finally:
            for kind in watched:
                with contextlib.suppress(ValueError):
                    self._listeners[kind].remove(wake)


def _owners(obj: Object) -> list[str]:
    return [o["uid"] for o in obj["metadata"].get("ownerReferences") or ()]
