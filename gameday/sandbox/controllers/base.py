"""What all controllers share: a queue of their own kind's keys, fed by changes of whatever they depend on."""

from __future__ import annotations

from abc import ABC, abstractmethod

from gameday.platform.objects import Object, Ref, controller
from gameday.sandbox.cache import Cache, Key, key_of
from gameday.sandbox.recorder import Recorder
from gameday.sandbox.work import Work


class Controller(ABC):
    """Subclasses name their kind and give `reconcile`; keys already there are added at the start."""

    kind = ""
    component = ""
    workers = 4

    def __init__(self, cache: Cache, recorder: Recorder) -> None:
        self.cache = cache
        self.kube = cache.kube
        self.recorder = recorder
        self.work: Work[Key] = Work(self.component, self.reconcile, self.workers)
        cache.listen(self.kind, self._changed)

    @abstractmethod
    async def reconcile(self, key: Key) -> float | None:
        """Bring one object one step nearer to what it should be; seconds until the next look, if any."""

    async def run(self) -> None:
        for obj in self.cache.all(self.kind):
            self.work.add(key_of(obj))
        await self.work.run()

    def _changed(self, new: Object | None, old: Object | None) -> None:
        if new is not None:
            self.work.add(key_of(new))

    def owner_changed(self, new: Object | None, old: Object | None) -> None:
        """Listener for dependents: the owner of this controller's kind is looked at again."""
        obj = new or old
        owner = controller(obj) if obj else None
        if obj and owner and owner["kind"] == self.kind:
            self.work.add((obj["metadata"].get("namespace") or "", owner["name"]))

    def say(self, about: Object, reason: str, message: str, *, warning: bool = False) -> None:
        self.recorder.event(about, self.component, reason, message, warning=warning)

    async def write_status(self, obj: Object, status: Object) -> None:
        """Merge into the status what is new, unless the object has changed since it was read."""
        current = obj.get("status") or {}
        if all(current.get(k) == v for k, v in status.items() if v is not None) and not any(
            k in current for k, v in status.items() if v is None
        ):
            return
        body = {"metadata": {"resourceVersion": obj["metadata"]["resourceVersion"]}, "status": status}
        self.cache.put(await self.kube.patch(Ref.of(obj), body, "merge", subresource="status"))
