"""Which kinds the API serves: one compact table of the built-in ones, and the catalogue that CRDs extend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind in one version, with everything that discovery says of it."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    subresources: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    singular: str = ""
    categories: tuple[str, ...] = ()
    # of custom resources only: this version's entry and the CRD's spec
    custom: dict[str, Any] | None = field(default=None, compare=False, hash=False)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The name messages use: deployments.apps, pods."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def collection(self) -> tuple[str, str]:
        """Where objects are stored: all versions share it, and both APIs for events do."""
        return ("", "events") if self.plural == "events" else (self.group, self.plural)

    @property
    def has_status(self) -> bool:
        return "status" in self.subresources

    @property
    def schema(self) -> dict[str, Any] | None:
        """The structural schema of a custom resource."""
        if self.custom is None:
            return None
        schema: dict[str, Any] | None = (self.custom.get("schema") or {}).get("openAPIV3Schema")
        return schema

    def path(self, namespace: str = "", name: str = "") -> str:
        parts = ["/apis" if self.group else "/api", self.api_version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        return "/".join([*parts, self.plural, *([name] if name else [])])


# apiVersion, plural, kind, n(amespaced) or c(luster), subresources, short names
_TABLE = """
v1 configmaps ConfigMap n - cm
v1 endpoints Endpoints n - ep
v1 events Event n - ev
v1 limitranges LimitRange n - limits
v1 namespaces Namespace c status,finalize ns
v1 nodes Node c status no
v1 persistentvolumeclaims PersistentVolumeClaim n status pvc
v1 persistentvolumes PersistentVolume c status pv
v1 pods Pod n status,resize,eviction,binding,log,exec po
v1 replicationcontrollers ReplicationController n status,scale rc
v1 resourcequotas ResourceQuota n status quota
v1 secrets Secret n - -
v1 serviceaccounts ServiceAccount n token sa
v1 services Service n status svc
apps/v1 daemonsets DaemonSet n status ds
apps/v1 deployments Deployment n status,scale deploy
apps/v1 replicasets ReplicaSet n status,scale rs
apps/v1 statefulsets StatefulSet n status,scale sts
apps/v1 controllerrevisions ControllerRevision n - -
autoscaling/v2 horizontalpodautoscalers HorizontalPodAutoscaler n status hpa
batch/v1 cronjobs CronJob n status cj
batch/v1 jobs Job n status -
policy/v1 poddisruptionbudgets PodDisruptionBudget n status pdb
coordination.k8s.io/v1 leases Lease n - -
events.k8s.io/v1 events Event n - ev
discovery.k8s.io/v1 endpointslices EndpointSlice n - -
scheduling.k8s.io/v1 priorityclasses PriorityClass c - pc
storage.k8s.io/v1 storageclasses StorageClass c - sc
rbac.authorization.k8s.io/v1 roles Role n - -
rbac.authorization.k8s.io/v1 rolebindings RoleBinding n - -
rbac.authorization.k8s.io/v1 clusterroles ClusterRole c - -
rbac.authorization.k8s.io/v1 clusterrolebindings ClusterRoleBinding c - -
certificates.k8s.io/v1 certificatesigningrequests CertificateSigningRequest c status csr
apiextensions.k8s.io/v1 customresourcedefinitions CustomResourceDefinition c status crd,crds
authorization.k8s.io/v1 selfsubjectaccessreviews SelfSubjectAccessReview c - -
authorization.k8s.io/v1 selfsubjectrulesreviews SelfSubjectRulesReview c - -
authorization.k8s.io/v1 subjectaccessreviews SubjectAccessReview c - -
authentication.k8s.io/v1 selfsubjectreviews SelfSubjectReview c - -
"""
_IN_ALL = {"pods", "services", "daemonsets", "deployments", "replicasets", "statefulsets", "jobs", "cronjobs"}
_IN_ALL |= {"horizontalpodautoscalers"}
ANSWERED_ONLY = frozenset({"authorization.k8s.io", "authentication.k8s.io"})  # reviews: nothing is stored


def _row(line: str) -> Resource:
    api_version, plural, kind, scope, subresources, short = line.split()
    group, _, version = api_version.rpartition("/")
    return Resource(
        group,
        version,
        plural,
        kind,
        namespaced=scope == "n",
        subresources=() if subresources == "-" else tuple(subresources.split(",")),
        short=() if short == "-" else tuple(short.split(",")),
        singular=kind.lower(),
        categories=("all",) if plural in _IN_ALL else (),
    )


BUILT_IN = tuple(_row(line) for line in _TABLE.strip().splitlines())


class Catalogue:
    """What is served at the moment."""

    def __init__(self) -> None:
        self._by_path = {(r.group, r.version, r.plural): r for r in BUILT_IN}
        self._groups: dict[str, list[str]] = {}
        self._stored: dict[tuple[str, str], Resource] = {}
        self._index()

    def _index(self) -> None:
        self._groups, self._stored = {}, {}
        for resource in self._by_path.values():
            versions = self._groups.setdefault(resource.group, [])
            if resource.version not in versions:
                versions.append(resource.version)
            if (resource.custom or {}).get("storage"):
                self._stored[resource.collection] = resource
            else:
                self._stored.setdefault(resource.collection, resource)

    def __iter__(self) -> Iterator[Resource]:
        return iter(list(self._by_path.values()))

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_path.get((group, version, plural))

    def stored(self, collection: tuple[str, str]) -> Resource | None:
        """The version a collection's objects are kept in; None when its kind is not served (any more)."""
        return self._stored.get(collection)

    def groups(self) -> dict[str, list[str]]:
        """Versions by group, the core group ("") among them."""
        return self._groups

    def in_version(self, group: str, version: str) -> list[Resource]:
        return [r for r in self._by_path.values() if (r.group, r.version) == (group, version)]

    def replace_custom(self, group: str, plural: str, resources: list[Resource]) -> None:
        """Serve a CRD's versions (none: serve it no longer)."""
        self._by_path = {k: r for k, r in self._by_path.items() if (r.group, r.plural) != (group, plural)}
        for resource in resources:
            self._by_path[resource.group, resource.version, resource.plural] = resource
        self._index()
