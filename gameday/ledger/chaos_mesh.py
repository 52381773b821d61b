"""An object of Chaos Mesh: stopped before it is deleted, gone when all that it made is gone.

Deleted in the foreground while it runs, a Workflow makes its entry node a second time, and a Schedule may
fire once more: the fault is injected during the undo (seen on Chaos Mesh's own controllers, which do not ask
whether an object is being deleted). So a Workflow is aborted and a Schedule paused, what they made is waited
for, and the deletion is in the background. What a Workflow's Schedule made bears the Schedule's name alone,
known by how names are made: the template's, the node's five letters, the Schedule's five.

An experiment of some kinds (see BOOKS) writes what is to be done into an object of each pod's name, under its
own name. An entry that can't be carried out, or whose experiment lost its finalizer by force, makes every
later fault on that pod fail: an undo takes such entries out. Labels, annotations and fields are those of
chaos-mesh's api/v1alpha1 and pkg/workflow/controllers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from gameday.ledger.operations import RESTORED, Create, Undone, why_it_stays
from gameday.platform.chaos_mesh import PAUSE, unrecovered
from gameday.platform.conditional import ATTEMPTS, write_if
from gameday.platform.errors import ApiError, NotServed, not_found
from gameday.platform.objects import Object, Ref, annotations_of, is_true, labels_of

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

ABORT = "workflow.chaos-mesh.org/abort"
NODE = "WorkflowNode"
FLOW_LABEL = "chaos-mesh.org/workflow"  # on all that a Workflow makes: its name
SCHEDULE_LABEL = "managed-by"  # on all that a Schedule makes: its name
BOOKS = {"NetworkChaos": "PodNetworkChaos", "IOChaos": "PodIOChaos", "HTTPChaos": "PodHttpChaos"}
STOPPED_WITHIN = 20.0  # seconds; an older Chaos Mesh does not know the annotation that aborts
QUIET = (
    1.0  # seconds without anything made anew: its controllers read from a cache, and may be one step behind
)
RELEASED_WITHIN = 10.0  # seconds in which an experiment goes once its entries are out
MOST_NAMED = 5
CUT = 46  # letters of a name that are kept for certain where others are made from it, twice


@dataclass
class Left:
    """What is there of an object, of all that it made, and of their entries in Chaos Mesh's bookkeeping."""

    objects: list[Object]
    books: list[Object]
    names: Collection[str]  # of the objects that are its own for certain

    def __bool__(self) -> bool:
        return bool(self.objects or self.books)

    @property
    def experiments(self) -> list[Object]:
        """What injects by itself, and does not end already."""
        return [obj for obj in self.injecting if "deletionTimestamp" not in obj["metadata"]]

    @property
    def injecting(self) -> list[Object]:
        """What injects by itself, also while it ends."""
        return [obj for obj in self.objects if obj["kind"] not in ("Schedule", "Workflow", NODE)]

    def __str__(self) -> str:
        there = [f"{Ref.of(obj)} is still there" for obj in self.objects[:MOST_NAMED]]
        held = [f"{Ref.of(book)} still has its entries" for book in self.books[:MOST_NAMED]]
        return "; ".join([*there, *held])


@dataclass(frozen=True)
class CreateChaos(Create):
    """Create an object of Chaos Mesh, whatever its kind.

    `makes` are the kinds of what it makes in its turn, `templates` the names of a Workflow's templates that
    make experiments, `books` the kinds of the bookkeeping, in the namespaces `spaces`.
    """

    kind: ClassVar[str] = "chaos-mesh"
    makes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    books: tuple[str, ...] = ()
    spaces: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: Object, run: str, force: bool = False, **options: Any) -> Self:
        makes = sorted(set(_makes(manifest["kind"], manifest["spec"])))
        spaces = {manifest["metadata"]["namespace"], *_namespaces(manifest["spec"])}
        options |= {
            "makes": tuple(makes),
            "templates": tuple(sorted(set(_templates(manifest["kind"], manifest["spec"])))),
            "books": tuple(BOOKS[k] for k in (manifest["kind"], *makes) if k in BOOKS),
            "spaces": tuple(sorted(spaces)),
        }
        return super().of(manifest, run, force, **options)

    def to_data(self) -> dict[str, Any]:
        own = {name: list(getattr(self, name)) for name in ("makes", "templates", "books", "spaces")}
        return super().to_data() | own

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Self:
        own: dict[str, Any] = {
            name: tuple(data.get(name) or ()) for name in ("makes", "templates", "books", "spaces")
        }
        return replace(super().from_data(data), propagation="Background", **own)

    # -- undoing -------------------------------------------------------------------------------

    async def undo(self, kube: Kube) -> Undone:
        found = await kube.find(self.ref)
        if found is not None and not self._ours(found):
            return Undone("kept", "an object of that name belongs to someone else")
        if found is not None:
            await self._stop(kube)
            await kube.delete(Ref.of(found))
        left = await self._until_gone(kube, self.within)
        if not left:
            return RESTORED
        why = "; ".join([await _why(kube, obj) for obj in left.objects[:MOST_NAMED]]) or str(left)
        # Only now: as long as an experiment can, it takes its entries out itself.
        if released := await self._release(kube, left):
            left = await self._until_gone(kube, RELEASED_WITHIN)
            if not left:
                late = await _not_carried_out(kube, released)
                said = f"its entries in the bookkeeping of Chaos Mesh were removed: {why}"
                return Undone("failed", f"{said}; {late}") if late else Undone("undone", said)
        if not self.force:
            return Undone("failed", f"it is being deleted but does not go: {why}")
        return await self._force(kube, left, why)

    async def audit(self, kube: Kube) -> Undone:
        found = await kube.find(self.ref)
        if found is not None and not self._ours(found):
            return RESTORED
        left = await self.left(kube)
        if not left:
            return RESTORED
        reasons = [await _why(kube, obj) for obj in left.objects[:1]]
        return Undone("failed", "; ".join([str(left), *reasons]))

    async def _stop(self, kube: Kube) -> None:
        """Have it make nothing any more, and wait until what it made has heard of that."""
        deadline = _now() + STOPPED_WITHIN
        while self.makes:
            left = await self.left(kube)
            for obj in left.objects:
                # A Schedule that a Workflow made goes when that is aborted.
                if obj["kind"] == "Workflow" or (obj["kind"] == "Schedule" and self._is_root(obj)):
                    await _set(kube, obj, ABORT if obj["kind"] == "Workflow" else PAUSE)
            if all(map(_is_at_rest, left.objects)) or _now() > deadline:
                return
            await asyncio.sleep(0.2)

    async def _until_gone(self, kube: Kube, within: float) -> Left:
        """Wait until nothing is left, and nothing comes again; what is left `within` seconds later."""
        deadline, quiet = _now() + within, QUIET if self.makes else 0.0
        gone_since: float | None = None
        while True:
            left = await self.left(kube)
            gone_since = None if left else (gone_since or _now())
            if gone_since is not None and _now() - gone_since >= quiet:
                return left
            if left and _now() > deadline:
                return left
            await asyncio.sleep(0.2)

    async def _release(self, kube: Kube, left: Left) -> list[Ref]:
        """Take its entries out of the bookkeeping, whose controller mends the pods; what had any."""
        for book in left.books:
            now: Object | None = book
            for _ in range(ATTEMPTS):
                kept = self._without(now, left.names) if now else {}
                if now is None or not kept or await write_if(kube, now, {"spec": kept}):
                    break
                now = await kube.find(Ref.of(book))
        return [Ref.of(book) for book in left.books]

    async def _force(self, kube: Kube, left: Left, why: str) -> Undone:
        mine = [obj for obj in left.objects if self._is_its_own(obj, left.objects)]
        pods = sorted({target for obj in mine for target in unrecovered(obj)})
        for obj in mine:
            await kube.patch(Ref.of(obj), {"metadata": {"finalizers": None}}, "merge")
        await self._release(kube, await self.left(kube))
        if again := await self._until_gone(kube, RELEASED_WITHIN):
            return Undone("failed", str(again))
        stays = f"; the fault may stay in {', '.join(pods[:MOST_NAMED])} until replaced" if pods else ""
        return Undone("undone", f"finalizers removed by force: {why}{stays}")

    # -- what is there -------------------------------------------------------------------------

    async def left(self, kube: Kube) -> Left:
        """What is there of the object and of all that it made."""
        kinds = dict.fromkeys((self.ref.kind, *self.makes))
        listed = await asyncio.gather(*(self._listed(kube, kind, self.ref.namespace) for kind in kinds))
        every = [obj for objects in listed for obj in objects]
        others = {o["metadata"]["name"] for o in every if o["kind"] == "Schedule" and not self._made(o, ())}
        mine = [obj for obj in every if self._made(obj, others)]
        asked = [self._listed(kube, kind, space) for kind in self.books for space in self.spaces]
        books = [b for found in await asyncio.gather(*asked) for b in found]
        names = {o["metadata"]["name"] for o in mine if self._is_its_own(o, mine)}
        return Left(mine, [b for b in books if self._without(b, names)], names)

    async def _listed(self, kube: Kube, kind: str, namespace: str | None) -> list[Object]:
        try:
            return await kube.list(await kube.resource(self.ref.api_version, kind), namespace)
        except NotServed:
            if kind == self.ref.kind or await _is_served(kube, replace(self.ref, kind=kind)):
                raise
            return []  # an older Chaos Mesh has no such kind

    def _is_root(self, obj: Object) -> bool:
        return bool(obj["kind"] == self.ref.kind and obj["metadata"]["name"] == self.ref.name)

    def _made(self, obj: Object, others: Collection[str]) -> bool:
        """Whether it is the object, or was made by it; `others` are the Schedules that it did not make."""
        schedule = labels_of(obj).get(SCHEDULE_LABEL, "")
        named_after = schedule not in others and any(_derived(schedule, t, 2) for t in self.templates)
        return self._is_its_own(obj, ()) or (named_after and not self._is_root(obj))

    def _is_its_own(self, obj: Object, made: Collection[Object]) -> bool:
        """Whether it is the object or says that it was made by it, or by a Schedule in `made`.

        What only a name speaks for may be another's: it is waited for, and left alone.
        """
        if self._is_root(obj):
            return self._ours(obj)
        flow, schedule = labels_of(obj).get(FLOW_LABEL, ""), labels_of(obj).get(SCHEDULE_LABEL, "")
        if self.ref.kind == "Schedule" and (schedule == self.ref.name or _derived(flow, self.ref.name, 1)):
            return True
        if self.ref.kind == "Workflow" and flow == self.ref.name:
            return True
        makers = [o for o in made if o["kind"] == "Schedule" and o["metadata"]["name"] == schedule]
        return any(self._is_its_own(maker, ()) for maker in makers)

    def _without(self, book: Object, names: Collection[str]) -> Object:
        """The lists in one object of the bookkeeping that hold entries of its, each without them."""
        lists = {key: v for key, v in book["spec"].items() if isinstance(v, list)}
        others = {
            key: [e for e in entries if not self._wrote(str(e.get("source", "")), names)]
            for key, entries in lists.items()
        }
        return {key: kept for key, kept in others.items() if len(kept) < len(lists[key])}

    def _wrote(self, source: str, names: Collection[str]) -> bool:
        """Whether an entry, which names its experiment, is of the object or of what it made."""
        namespace, _, name = source.partition("/")
        spawned = self.ref.kind == "Schedule" and _derived(name, self.ref.name, 1)
        return namespace == self.ref.namespace and (name in (self.ref.name, *names) or spawned)


def _makes(kind: str, spec: Object) -> Iterator[str]:
    """The kinds of all that an object makes in its turn."""
    if kind == "Schedule":
        inner = str(spec.get("type", ""))
        yield inner
        yield from _makes(inner, _inside(spec, inner))
    elif kind == "Workflow":
        yield NODE
        for template in spec.get("templates") or ():
            inner = str(template.get("templateType", ""))
            if inner.endswith("Chaos") or inner == "Schedule":
                yield inner
                yield from _makes(inner, _inside(template, inner))


def _templates(kind: str, spec: Object) -> Iterator[str]:
    """The names of the templates from which experiments and Schedules are made."""
    if kind == "Schedule" and spec.get("type") == "Workflow":
        yield from _templates("Workflow", _inside(spec, "Workflow"))
    elif kind == "Workflow":
        for template in spec.get("templates") or ():
            if str(template.get("templateType", "")).endswith(("Chaos", "Schedule")):
                yield str(template.get("name"))


def _inside(holder: Object, kind: str) -> Object:
    """What a Schedule or a template holds for that kind; its key is the kind, in a case that varies."""
    found = (v for k, v in holder.items() if k.lower() == kind.lower() and isinstance(v, dict))
    return next(found, {})


def _namespaces(spec: Any) -> Iterator[str]:
    """Every namespace that a selector in there names."""
    if isinstance(spec, list):
        for each in spec:
            yield from _namespaces(each)
    elif isinstance(spec, dict):
        selector = spec.get("selector")
        if isinstance(selector, dict):
            yield from (*(selector.get("namespaces") or ()), *(selector.get("pods") or ()))
        for each in spec.values():
            yield from _namespaces(each)


def _derived(name: str, base: str, times: int) -> bool:
    """Whether a name is the base with five random letters after it, so many times; a long base is cut."""
    rest = "" if len(base) <= CUT else ".*"
    return bool(re.fullmatch(re.escape(base[:CUT]) + rest + "-?[a-z0-9]{5}" * times, name))


def _is_at_rest(obj: Object) -> bool:
    """Whether nothing more will be made because of it."""
    if "deletionTimestamp" in obj["metadata"]:
        return True
    match obj["kind"]:
        case "Workflow":
            return is_true(obj, "Accomplished")
        case "WorkflowNode":
            return any(is_true(obj, kind) for kind in ("Accomplished", "DeadlineExceed", "Aborted"))
    return annotations_of(obj).get(PAUSE) == "true"


async def _set(kube: Kube, obj: Object, annotation: str) -> None:
    """Set an annotation to "true", unless it is, or the object went meanwhile."""
    if annotations_of(obj).get(annotation) == "true":
        return
    try:
        await kube.patch(Ref.of(obj), {"metadata": {"annotations": {annotation: "true"}}}, "merge")
    except ApiError as error:
        if not not_found(error):
            raise


async def _not_carried_out(kube: Kube, books: list[Ref]) -> str:
    """Which pods have not been mended RELEASED_WITHIN seconds after an entry was taken out; "" for none."""
    deadline = _now() + RELEASED_WITHIN
    while True:
        found = [book for book in await asyncio.gather(*map(kube.find, books)) if book is not None]
        late = [book for book in found if (book.get("status") or {}).get("failedMessage") or _is_behind(book)]
        if not late or _now() > deadline:
            return "; ".join(f"{Ref.of(b)} is not carried out: {_failure(b)}" for b in late[:MOST_NAMED])
        await asyncio.sleep(0.2)


def _is_behind(book: Object) -> bool:
    observed = (book.get("status") or {}).get("observedGeneration", 0)
    return bool(observed < book["metadata"]["generation"])


def _failure(book: Object) -> str:
    return str((book.get("status") or {}).get("failedMessage") or "its controller has not come to it")


async def _is_served(kube: Kube, ref: Ref) -> bool:
    """Whether the cluster serves a kind in any version."""
    try:
        await kube.served(ref)
    except NotServed:
        return False
    return True


async def _why(kube: Kube, obj: Object) -> str:
    return f"{Ref.of(obj)}: {await why_it_stays(kube, obj)}"


def _now() -> float:
    return asyncio.get_running_loop().time()
