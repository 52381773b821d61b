"""What is to be done to a pod's traffic: upstream's PodNetworkChaos, one for each pod that was ever hit.

Each NetworkChaos writes its entries into it under its own name, and they are carried out all or not at all:
one that can't be makes every other fault on that pod fail, for as long as it is there (seen on upstream's
controllers). The object stays when its last entry is out.
"""

from __future__ import annotations

from gameday.platform.errors import ApiError
from gameday.platform.objects import Object, Ref
from gameday.sandbox.cache import Cache, key_of
from gameday.sandbox.facts import owner_reference
from gameday.sandbox.fleet.chaos.targets import daemon_missing

KIND = "PodNetworkChaos"
DEVICES = ("", "eth0", "lo")  # what a pod has


class Books:
    """Reads and writes them; `failure` is what upstream's controller would report after carrying one out."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def enter(self, chaos: Object, pod: Object) -> None:
        spec = chaos["spec"]
        entry = {"source": _source(chaos), "type": str(spec.get("action")), "device": spec.get("device", "")}
        await self._commit(pod, [*self._others(chaos, pod), entry])

    async def take_out(self, chaos: Object, pod: Object) -> None:
        await self._commit(pod, self._others(chaos, pod))

    async def carry_out(self, book: Object) -> bool:
        """Write down whether the entries are in force; False where that is to be tried again."""
        pod = self._cache.get("Pod", key_of(book))
        if pod is None:
            return True
        failure = self.failure(pod)
        status = {"observedGeneration": book["metadata"]["generation"]}
        status |= {"failedMessage": failure} if failure else {}
        if (book.get("status") or {}) != status:
            body = {"status": {"failedMessage": None, **status}}
            try:
                self._cache.put(
                    await self._cache.kube.patch(Ref.of(book), body, "merge", subresource="status")
                )
            except ApiError as error:
                if error.status != 404:
                    raise
        return not failure

    def failure(self, pod: Object) -> str:
        """Why the entries can't be carried out; empty when they are."""
        if missing := daemon_missing(self._cache, pod):
            return missing
        unknown = [e["device"] for e in self._entries(pod) if e["device"] not in DEVICES]
        return (
            f'failed to apply for pod {"/".join(key_of(pod))}: Cannot find device "{unknown[0]}"'
            if unknown
            else ""
        )

    def _entries(self, pod: Object) -> list[Object]:
        book = self._cache.get(KIND, key_of(pod))
        return list((book or {"spec": {}})["spec"].get("tcs") or ())

    def _others(self, chaos: Object, pod: Object) -> list[Object]:
        return [e for e in self._entries(pod) if e["source"] != _source(chaos)]

    async def _commit(self, pod: Object, entries: list[Object]) -> None:
        namespace, name = key_of(pod)
        ref = Ref("chaos-mesh.org/v1alpha1", KIND, name, namespace)
        try:
            written = await self._cache.kube.patch(ref, {"spec": {"tcs": entries}}, "merge")
        except ApiError as error:
            if error.status != 404:
                raise
            meta = {"name": name, "namespace": namespace, "ownerReferences": [owner_reference(pod)]}
            body = {"apiVersion": ref.api_version, "kind": KIND, "metadata": meta, "spec": {"tcs": entries}}
            written = await self._cache.kube.create(body)
        self._cache.put(written)


def _source(chaos: Object) -> str:
    return "/".join(key_of(chaos))
