"""The reversible operations: what can be done to the world, each as data with its own undo.

An operation is made and undone with nothing but a cluster client, so that a process which never saw
the run can undo it from the record alone.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from gameday.platform.chaos_mesh import complaints
from gameday.platform.complaints import warnings_about
from gameday.platform.errors import ApiError, Unreachable
from gameday.platform.objects import Object, Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

RUN_LABEL = "gameday.dev/run"  # on every object a run creates: says whose it is
GONE_WITHIN = 60.0  # seconds that an object with finalizers may take to go
ATTEMPTS = 8  # at a patch that others keep racing


class Refused(Exception):
    """A change was not made, because the world is not as it was planned for."""


@dataclass(frozen=True)
class Undone:
    """How an undo, or the audit of one, ended. `state`: undone, kept, irreversible, failed."""

    state: str
    message: str = ""


RESTORED = Undone("undone")


class Operation(Protocol):
    """One change to one object, and how to take it back."""

    kind: ClassVar[str]

    @property
    def ref(self) -> Ref:
        """The object."""
        ...

    @property
    def summary(self) -> str:
        """The change in a few words."""
        ...

    def to_data(self) -> dict[str, Any]:
        """Plain data from which `from_data` makes an operation that can be undone."""
        ...

    async def make(self, kube: Kube) -> None:
        """Make the change."""
        ...

    async def undo(self, kube: Kube) -> Undone:
        """Take it back if it is in force and still ours; may be called any number of times."""
        ...

    async def audit(self, kube: Kube) -> Undone:
        """Read again whether it is taken back, and change nothing."""
        ...


@dataclass(frozen=True)
class Edit:
    """One field of an object: `before` and `after`, where None means that it is not there.

    `path` names the field. A list that Kubernetes treats as a map (taints, say) is edited by item:
    `item` holds the fields that tell its items apart, and before and after are whole items; with `inside`,
    they are the field of that path inside the item (a container's limit), which must be there.
    """

    path: tuple[str, ...]
    after: Any
    before: Any = None
    item: tuple[tuple[str, Any], ...] = ()
    inside: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The field in words, as spec.containers[name=server].resources.limits.cpu."""
        keys = "[" + ",".join(f"{k}={v}" for k, v in self.item) + "]" if self.item else ""
        return ".".join([".".join(self.path) + keys, *self.inside])

    def __str__(self) -> str:
        return f"{self.name}: {_text(self.before)} → {_text(self.after)}"

    def read(self, obj: Object) -> Any:
        """The field as it is now."""
        value = _at(obj, self.path)
        if not self.item:
            return value
        return _at(next((i for i in value or () if self.matches(i)), None), self.inside)

    def write(self, obj: Object, value: Any) -> Object:
        """The JSON patch operation that sets the field to a value (None removes it)."""
        if not self.item:
            return _set(self.path, value)
        items = _at(obj, self.path) or []
        if self.inside:
            index = next((str(n) for n, i in enumerate(items) if self.matches(i)), "-")
            return _set((*self.path, index, *self.inside), value)
        others = [i for i in items if not self.matches(i)]
        return _set(self.path, (others if value is None else [*others, value]) or None)

    def matches(self, item: Object) -> bool:
        """Whether it is this item of the list that is meant."""
        return all(item.get(k) == v for k, v in self.item)


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _set(path: tuple[str, ...], value: Any) -> Object:
    pointer = "/" + "/".join(p.replace("~", "~0").replace("/", "~1") for p in path)
    return (
        {"op": "remove", "path": pointer} if value is None else {"op": "add", "path": pointer, "value": value}
    )


def _text(value: Any) -> str:
    return "unset" if value is None else str(value)


def _same(a: Any, b: Any) -> bool:
    """Equality, but false and empty values count as absent: the API server leaves such fields out."""
    return bool(a == b) or (_absent(a) and _absent(b))


def _absent(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


@dataclass(frozen=True)
class Patch:
    """Set fields of an object; undo puts back those that still hold what we wrote.

    `subresource` is the one that takes the change, as `resize` does a running pod's resources.
    """

    kind: ClassVar[str] = "patch"
    ref: Ref
    edits: tuple[Edit, ...]
    subresource: str = ""

    @classmethod
    async def of(cls, kube: Kube, ref: Ref, *edits: Edit, subresource: str = "") -> Patch | None:
        """The patch, with `before` read from the cluster; None when everything is so already."""
        obj = await kube.get(ref)
        ref = Ref(ref.api_version, ref.kind, ref.name, ref.namespace, obj["metadata"]["uid"])
        read = [replace(e, before=e.read(obj)) for e in edits]
        ours = tuple(e for e in read if not _same(e.before, e.after))
        return cls(ref, ours, subresource) if ours else None

    @property
    def summary(self) -> str:
        return "; ".join(str(e) for e in self.edits)

    def to_data(self) -> dict[str, Any]:
        edits = [
            {"path": list(e.path), "before": e.before, "after": e.after, "item": dict(e.item)}
            | ({"inside": list(e.inside)} if e.inside else {})
            for e in self.edits
        ]
        data = {"op": self.kind, "ref": self.ref.to_data(), "edits": edits}
        return data | ({"subresource": self.subresource} if self.subresource else {})

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Patch:
        edits = tuple(
            Edit(
                tuple(e["path"]),
                e["after"],
                e["before"],
                tuple(sorted((e.get("item") or {}).items())),
                tuple(e.get("inside") or ()),
            )
            for e in data["edits"]
        )
        return cls(Ref.from_data(data["ref"]), edits, data.get("subresource", ""))

    async def make(self, kube: Kube) -> None:
        """Write `after` where the object still holds `before`; raises Refused where it does not."""
        lost = False  # whether an answer of ours was lost, so that the change may be ours already
        for _ in range(ATTEMPTS):
            obj = await kube.get(self.ref)
            if lost and all(_same(e.read(obj), e.after) for e in self.edits):
                return
            changed = [e for e in self.edits if not _same(e.read(obj), e.before)]
            if changed:
                now = _text(changed[0].read(obj))
                raise Refused(f"{self.ref}: {changed[0]} was planned, but now it is {now}")
            try:
                if await self._write(kube, obj, [e.write(obj, e.after) for e in self.edits]):
                    return
            except Unreachable:
                lost = True
        raise Refused(f"{self.ref}: it kept changing while it was patched ({ATTEMPTS} attempts)")

    async def undo(self, kube: Kube) -> Undone:
        for _ in range(ATTEMPTS):
            obj = await kube.find(self.ref)
            if obj is None:
                return Undone("kept", "the object was deleted meanwhile, so there is nothing to restore")
            ours = [e for e in self.edits if _same(e.read(obj), e.after)]
            if not ours or await self._write(kube, obj, [e.write(obj, e.before) for e in ours]):
                return self._judge(obj, ours)
        return Undone("failed", f"it kept changing while it was restored ({ATTEMPTS} attempts)")

    async def audit(self, kube: Kube) -> Undone:
        obj = await kube.find(self.ref)
        if obj is None:
            return Undone("kept", "the object is gone")
        left = [e for e in self.edits if _same(e.read(obj), e.after)]
        if left:
            return Undone("failed", f"still changed: {left[0]}")
        return self._judge(obj, [])

    def _judge(self, obj: Object, restored: list[Edit]) -> Undone:
        foreign = [e for e in self.edits if e not in restored and not _same(e.read(obj), e.before)]
        if foreign:
            now = _text(foreign[0].read(obj))
            return Undone("kept", f"{foreign[0].name} was changed to {now} by someone else, and left so")
        return RESTORED

    async def _write(self, kube: Kube, obj: Object, body: list[Object]) -> bool:
        """Patch exactly the version that was read; False when it was changed in between."""
        test = {
            "op": "test",
            "path": "/metadata/resourceVersion",
            "value": obj["metadata"]["resourceVersion"],
        }
        try:
            await kube.patch(self.ref, [test, *body], subresource=self.subresource)
        except ApiError as error:
            # A failed `test` is a bare 422; one with causes says that the object would be invalid.
            if error.status == 409 or (error.status == 422 and not error.details.get("causes")):
                return False
            raise
        return True


@dataclass(frozen=True)
class Create:
    """Create an object; undo deletes it, if it carries our run's label, and waits until it is gone.

    `force` removes finalizers that nobody has removed `within` seconds; without it that is reported.
    `propagation` Foreground makes the object stay until all that it owns is gone.
    """

    kind: ClassVar[str] = "create"
    ref: Ref
    run: str
    manifest: Object | None = None  # not recorded: undo needs the name alone
    force: bool = False
    within: float = GONE_WITHIN
    propagation: str = "Background"

    @classmethod
    def of(cls, manifest: Object, run: str, force: bool = False, **options: Any) -> Create:
        """The operation for a manifest, which gets the run's label."""
        meta = manifest["metadata"]
        labelled = meta | {"labels": (meta.get("labels") or {}) | {RUN_LABEL: run}}
        return cls(Ref.of(manifest), run, manifest | {"metadata": labelled}, force, **options)

    @property
    def summary(self) -> str:
        return "create" + (" (finalizers may be removed by force)" if self.force else "")

    def to_data(self) -> dict[str, Any]:
        return {
            "op": self.kind,
            "ref": self.ref.to_data(),
            "run": self.run,
            "force": self.force,
            "within": self.within,
            "propagation": self.propagation,
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Create:
        options = {k: data[k] for k in ("force", "within", "propagation") if k in data}
        return cls(Ref.from_data(data["ref"]), data["run"], **options)

    async def make(self, kube: Kube) -> None:
        assert self.manifest is not None, "an operation read back from a record can only be undone"
        await kube.create(self.manifest)

    async def undo(self, kube: Kube) -> Undone:
        obj = await kube.find(self.ref)
        if obj is None:
            return RESTORED
        if not self._ours(obj):
            return Undone("kept", "an object of that name belongs to someone else")
        await kube.delete(Ref.of(obj), propagation=self.propagation)
        if await _gone(kube, Ref.of(obj), self.within):
            return RESTORED
        stuck = await kube.find(Ref.of(obj))
        if stuck is None:
            return RESTORED
        why = await _stuck(kube, stuck)
        if not self.force:
            return Undone("failed", f"it is being deleted but does not go: {why}")
        await kube.patch(Ref.of(obj), {"metadata": {"finalizers": None}}, "merge")
        return Undone("undone", f"finalizers removed by force: {why}")

    async def audit(self, kube: Kube) -> Undone:
        obj = await kube.find(self.ref)
        if obj is None:
            return RESTORED
        return Undone("failed", f"still there: {await _stuck(kube, obj)}") if self._ours(obj) else RESTORED

    def _ours(self, obj: Object) -> bool:
        return bool((obj["metadata"].get("labels") or {}).get(RUN_LABEL) == self.run)


async def _gone(kube: Kube, ref: Ref, within: float) -> bool:
    """Wait until an object is gone, at most `within` seconds."""
    delay = 0.05
    deadline = asyncio.get_running_loop().time() + within
    while await kube.find(ref) is not None:
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(delay)
        delay = min(delay * 1.5, 1.0)
    return True


async def _stuck(kube: Kube, obj: Object) -> str:
    """Why an object does not go: its finalizers, its conditions, and what was said of it."""
    finalizers = ", ".join(obj["metadata"].get("finalizers") or ["none"])
    conditions = obj.get("status", {}).get("conditions") or ()
    reasons = [f"{c['type']}={c['status']} {c.get('reason', '')}".strip() for c in conditions]
    said = [*complaints(obj), *await warnings_about(kube, Ref.of(obj))]
    return "; ".join([f"finalizers {finalizers}", *([", ".join(reasons)] if reasons else []), *said])


@dataclass(frozen=True)
class Evict:
    """Evict a pod, as its budgets allow. Irreversible: its controller makes another one."""

    kind: ClassVar[str] = "evict"
    ref: Ref
    grace: int | None = None  # seconds; None is the pod's own terminationGracePeriodSeconds

    @property
    def summary(self) -> str:
        return self.kind

    def to_data(self) -> dict[str, Any]:
        return {"op": self.kind, "ref": self.ref.to_data()}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Evict:
        return cls(Ref.from_data(data["ref"]))

    async def make(self, kube: Kube) -> None:
        """Raises ApiError 429 while a PodDisruptionBudget forbids it; make it again later."""
        try:
            await kube.evict(self.ref, grace=self.grace)
        except ApiError as error:
            if error.status != 404 and not (error.status == 409 and "UID" in error.message):
                raise

    async def undo(self, kube: Kube) -> Undone:
        return Undone("irreversible", "what is gone does not come back; its controller makes another one")

    audit = undo


@dataclass(frozen=True)
class Delete(Evict):
    """Delete an object that its controller replaces, budgets or not. Irreversible as an eviction is."""

    kind: ClassVar[str] = "delete"

    async def make(self, kube: Kube) -> None:
        await kube.delete(self.ref, grace=self.grace)


# Where each kind of operation is; loaded when one is read, so that a record costs no more than it holds.
_KINDS = {
    "patch": "gameday.ledger.operations:Patch",
    "create": "gameday.ledger.operations:Create",
    "evict": "gameday.ledger.operations:Evict",
    "delete": "gameday.ledger.operations:Delete",
    "activity": "gameday.ledger.activity:Activity",
    "argocd-rollback": "gameday.ledger.argocd:Rollback",
    "rollout-promote": "gameday.ledger.rollout:Promote",
    "dcgm": "gameday.ledger.dcgm:DcgmInject",
    "gpud": "gameday.ledger.gpud:GpudInject",
    "slurm-node": "gameday.ledger.slurm:OutOfService",
    "slurm-resume": "gameday.ledger.slurm:BackInService",
    "slurm-partition": "gameday.ledger.slurm:HoldPartition",
    "slurm-requeue": "gameday.ledger.slurm:Requeue",
    "node-program": "gameday.ledger.node_program:NodeProgram",
}


def from_data(data: dict[str, Any]) -> Operation:
    """The operation of a record. Raises KeyError for a kind that this version does not know."""
    operation: Operation = resolve_name(_KINDS[data["op"]]).from_data(data)
    return operation
