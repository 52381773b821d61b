"""The Roles that an experiment needs, and no more: what its plan changes, and what planning and asking read.

Reads are not listed by anybody: they are those that a plan, the checks and one round of the probes make.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

from gameday.experiment import registry
from gameday.experiment.model import Check, Experiment
from gameday.ledger.keeping import NAMESPACE
from gameday.ledger.lease import ref_of
from gameday.ledger.store import record_ref
from gameday.platform.objects import Object
from gameday.platform.permission import Permission
from gameday.platform.shield import at_most
from gameday.platform.world import World
from gameday.safety import gang_kinds
from gameday.safety.lever import LEVER
from gameday.safety.plan import Plan
from gameday.safety.preflight import LEDGER_NEEDS
from gameday.safety.protection import POLICY

RBAC = "rbac.authorization.k8s.io"
# Groups and plurals of what is made anew under other names: a ReplicaSet with each update, a gang with each
# run of its job, a claim with its pod. A name of today is no name of tomorrow, and what may not be read then
# may be protected.
RENAMED = frozenset(
    {
        ("apps", "replicasets"),
        ("", "persistentvolumeclaims"),
        *((version.rpartition("/")[0], f"{kind.lower()}s") for version, kind in gang_kinds.kinds()),
    }
)


async def ask_probes(experiment: Experiment, world: World) -> None:
    """Measure everything once, for what it asks; how it is does not matter here."""

    async def ask(check: Check) -> None:
        with contextlib.suppress(Exception):  # as in the watch, where that is the probe's reading
            await at_most(check.timeout, registry.probe(check.kind)().measure(check.spec, world))

    await asyncio.gather(*map(ask, (*experiment.spec.steady_state, *experiment.spec.abort_if)))


def needed(plan: Plan, heard: Iterable[Permission], run: str = "") -> list[Permission]:
    """Every permission, without those that another one covers.

    `run` is one that has its name, its record and its Lease already: of what gameday keeps in its namespace
    it needs these alone. Without it they can't be named, since each run has a name of its own.
    """
    texts = {need for step in plan.steps.values() for need in step.fault.needs}
    if run:
        heard = [p for p in heard if not _is_of_runs(p)]
    texts.update(_of_run(run) if run else LEDGER_NEEDS)
    wanted = {*map(Permission.parse, texts), *map(_of_any_name, heard)}
    # What is changed is read before, and read back.
    wanted |= {
        Permission(p.namespace, p.group, p.resource, "", p.name, "get")
        for p in wanted
        if p.verb in ("patch", "delete")
    }
    return sorted(p for p in wanted if not any(o != p and o.covers(p) for o in wanted))


def _of_any_name(permission: Permission) -> Permission:
    """What is read of owners that others may stand in for by the time of the run."""
    renamed = permission.verb == "get" and (permission.group, permission.resource) in RENAMED
    return replace(permission, name="") if renamed else permission


def _is_of_runs(permission: Permission) -> bool:
    """Whether it is about what runs keep: records, Leases and keys. The checks have looked at all runs'."""
    kept = permission.namespace == NAMESPACE and permission.resource in ("configmaps", "leases", "secrets")
    return kept and permission.name not in (LEVER.name, POLICY.name)


def _of_run(run: str) -> list[str]:
    """What a run does to what it keeps, once it has made it. Whoever started it removes it.

    A Lease that somebody deleted is made anew, and what is made can't be named.
    """
    record, lease, leases = record_ref(run), ref_of(run), "leases.coordination.k8s.io"
    return [
        *(f"{verb} configmaps {NAMESPACE} {record.name}" for verb in ("get", "patch")),
        *(f"{verb} {leases} {NAMESPACE} {lease.name}" for verb in ("get", "list", "watch", "patch")),
        *(f"{verb} configmaps {NAMESPACE} {LEVER.name}" for verb in ("get", "list", "watch")),
        f"get configmaps {NAMESPACE} {POLICY.name}",
        f"create {leases} {NAMESPACE}",
    ]


UNNAMED = f"""\
# Each run keeps a record, a Lease and a key under a name of its own in namespace {NAMESPACE}. Roles that are
# made before the run can't name them: these allow every ConfigMap, Lease and Secret there. Keep no others in
# it, or let each run have an account of its own, bounded by names there, too: gameday run --as-run-identity.
"""


def manifests(permissions: Iterable[Permission], name: str, account: tuple[str, str]) -> list[Object]:
    """A ClusterRole and a Role for each namespace, with their bindings to an account (namespace, name)."""
    by_namespace: dict[str, list[Permission]] = defaultdict(list)
    for permission in permissions:
        by_namespace[permission.namespace].append(permission)
    subject = {"kind": "ServiceAccount", "namespace": account[0], "name": account[1]}
    made: list[Object] = []
    for namespace, theirs in sorted(by_namespace.items()):
        kind = "Role" if namespace else "ClusterRole"
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        made.append(
            {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata, "rules": list(_rules(theirs))}
        )
        made.append(
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": f"{kind}Binding",
                "metadata": metadata,
                "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
                "subjects": [subject],
            }
        )
    return made


def _rules(permissions: Iterable[Permission]) -> Iterator[Object]:
    """As few rules as say the same: verbs of one object together, then objects with the same verbs."""
    verbs: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for p in permissions:
        resource = f"{p.resource}/{p.subresource}" if p.subresource else p.resource
        verbs[p.group, resource, p.name].add(p.verb)
    names: dict[tuple[str, str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (group, resource, name), theirs in sorted(verbs.items()):
        names[group, resource, tuple(sorted(theirs))].append(name)
    for (group, resource, theirs_), listed in names.items():
        for each in ([n for n in listed if n], [n for n in listed if not n]):
            if each:
                rule: Object = {"apiGroups": [group], "resources": [resource], "verbs": list(theirs_)}
                yield rule | ({"resourceNames": each} if each[0] else {})
