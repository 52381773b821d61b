"""What an Application should be and what it is: the comparison that everything else follows from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gameday.platform.objects import Object
from gameday.sandbox.cache import Cache, key_of
from gameday.sandbox.facts import annotations_of
from gameday.sandbox.fleet.argocd import git
from gameday.sandbox.fleet.argocd.health import health_of, worst

KINDS = {"Deployment": "apps/v1", "ConfigMap": "v1", "Application": "argoproj.io/v1alpha1"}


@dataclass(frozen=True)
class Resource:
    """One object of an application. `wanted` is None for one that git holds no longer: it is to be pruned."""

    wanted: Object | None
    live: Object | None

    @property
    def object(self) -> Object:
        found = self.wanted or self.live
        assert found is not None
        return found

    @property
    def synced(self) -> bool:
        return self.wanted is not None and self.live is not None and covers(self.live, self.wanted)

    @property
    def names(self) -> dict[str, str]:
        """Group, version, kind, namespace and name, as Argo CD's status tells them."""
        obj = self.object
        group, _, version = obj["apiVersion"].rpartition("/")
        named = {"version": version, "kind": obj["kind"], "namespace": obj["metadata"]["namespace"]}
        return ({"group": group} if group else {}) | named | {"name": obj["metadata"]["name"]}


def compare(cache: Cache, application: Object, target: git.Target) -> list[Resource]:
    """Every object of the target beside the live one, and what is live and tracked but not in the target."""
    wanted = git.manifests(target, application)
    found = [Resource(w, cache.get(w["kind"], key_of(w))) for w in wanted]
    keys = {(w["kind"], key_of(w)) for w in wanted}
    extra = [o for o in tracked(cache, application) if (o["kind"], key_of(o)) not in keys]
    return found + [Resource(None, o) for o in extra]


def tracked(cache: Cache, application: Object) -> list[Object]:
    """The live objects that carry the application's tracking annotation, and are the ones it means."""
    return [
        {"apiVersion": version, "kind": kind} | obj
        for kind, version in KINDS.items()
        for obj in cache.all(kind)
        if git.TRACKING in annotations_of(obj)
        and annotations_of(obj)[git.TRACKING]
        == git.tracking_id(application, {"apiVersion": version, "kind": kind} | obj)
    ]


def covers(live: Any, wanted: Any) -> bool:
    """Whether everything that is wanted is so; what the cluster added is no difference."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(covers(live.get(k), v) for k, v in wanted.items())
    if isinstance(wanted, list):
        return isinstance(live, list) and len(live) == len(wanted) and all(map(covers, live, wanted))
    return bool(live == wanted)


def told(resources: list[Resource]) -> tuple[str, str, list[Object]]:
    """Sync status, health, and `status.resources`."""
    listed, states = [], []
    for each in resources:
        entry: Object = each.names | {"status": "Synced" if each.synced else "OutOfSync"}
        health = health_of(each.object["kind"], each.live)
        if health is not None:
            states.append(health[0])
            entry["health"] = {"status": health[0]} | ({"message": health[1]} if health[1] else {})
        if each.wanted is None:
            entry["requiresPruning"] = True
        listed.append(entry)
    return "Synced" if all(r.synced for r in resources) else "OutOfSync", worst(states), listed
