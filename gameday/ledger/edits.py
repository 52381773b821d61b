"""One field of an object: how it is read, whether a value in it is ours, and the patch that sets it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gameday.experiment.quantity import parse_quantity
from gameday.experiment.text import plain
from gameday.masking import digest, names_secret
from gameday.platform.objects import Object

Cell = tuple[Any, ...]
Where = tuple[str, ...]  # the path of a field


@dataclass(frozen=True)
class Edit:
    """One field of an object: `before` and `after`, where None means that it is not there.

    `path` names the field. A list that Kubernetes treats as a map (taints, say) is edited by item:
    `item` holds the fields that tell its items apart, and before and after are whole items; with `inside`,
    they are the field of that path inside the item (a container's limit), which must be there.

    `also`: what earlier changes of the same run wrote into the field, where this one took over their undo.
    `grown`: how many of the objects around the field were absent before, and go again if they are empty.
    `secret`: it is a Secret's, so that nobody is shown a value.
    `sent`: what we wrote, where admission changed it; `after` is then what the server stored.
    `contested`: a later change of the same run found a value here that is neither ours nor `before`.
    """

    path: tuple[str, ...]
    after: Any
    before: Any = None
    item: tuple[tuple[str, Any], ...] = ()
    inside: tuple[str, ...] = ()
    also: tuple[Any, ...] = ()
    grown: int = 0
    secret: bool = False
    sent: tuple[Any, ...] = ()
    contested: bool = False  # not recorded: the later change is

    def to_data(self) -> dict[str, Any]:
        """Plain data, without what is at its default."""
        data = {"path": list(self.path), "before": self.before, "after": self.after, "item": dict(self.item)}
        more = {"inside": list(self.inside), "also": list(self.also), "grown": self.grown}
        more["sent"] = list(self.sent)
        return data | {k: v for k, v in more.items() if v}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Edit:
        return cls(
            tuple(data["path"]),
            data["after"],
            data["before"],
            tuple(sorted((data.get("item") or {}).items())),
            tuple(data.get("inside") or ()),
            tuple(data.get("also") or ()),
            int(data.get("grown") or 0),
            sent=tuple(data.get("sent") or ()),
        )

    @property
    def name(self) -> str:
        """The field in words, as spec.containers[name=server].resources.limits.cpu."""
        keys = "[" + ",".join(f"{k}={plain(v)}" for k, v in self.item) + "]" if self.item else ""
        return ".".join([".".join(self.path) + keys, *self.inside])

    def __str__(self) -> str:
        asked = f" ({self.shown(self.sent[0])} was written)" if self.sent else ""
        return f"{self.name}: {self.shown(self.before)} → {self.shown(self.after)}{asked}"

    def shown(self, value: Any) -> str:
        """A value of the field for people; of one that is a secret, or is named as one, the digest."""
        named = (*self.path, *(str(v) for _, v in self.item), *self.inside)
        hidden = self.secret or any(map(names_secret, named))
        return plain(value) if value is None or not hidden else digest(value)

    @property
    def cell(self) -> Cell:
        """The field's place among all of the object; a field around it has a part of this."""
        return (*self.path, *([self.item] if self.item else ()), *self.inside)

    def overlaps(self, other: Edit) -> bool:
        """Whether one of two fields lies inside the other, without being the same."""
        short, long = sorted((self.cell, other.cell), key=len)
        return len(short) < len(long) and long[: len(short)] == short

    # -- reading -------------------------------------------------------------------------------

    def seen_in(self, obj: Object) -> Edit:
        """The edit with `before` as it is now."""
        around, inner = (self.item_of(obj), self.inside) if self.inside else (obj, self.path)
        missing = sum(at(around, inner[:n]) is None for n in range(1, len(inner)))
        return replace(self, before=self.read(obj), grown=missing)

    def read(self, obj: Object) -> Any:
        """The field as it is now."""
        return at(self.item_of(obj), self.inside) if self.item else at(obj, self.path)

    def item_of(self, obj: Object) -> Any:
        """The item of the list that is meant; None when it is not there."""
        return next((i for i in at(obj, self.path) or () if self.matches(i)), None)

    def stands(self, obj: Object) -> bool:
        """Whether the field is as it was planned for: as before, or as an earlier edit of ours left it."""
        if self.inside and self.item_of(obj) is None:
            return False
        return self._is_one_of(obj, (self.before, *self.also))

    def written(self, obj: Object) -> bool:
        """Whether the field holds a value that we wrote."""
        if self.inside and self.item_of(obj) is None:
            return False
        return self._is_one_of(obj, (self.after, *self.also)) and not same(self.read(obj), self.before)

    def as_stored(self, obj: Object) -> Edit:
        """The edit with what the answer to its write holds, which is ours although we did not write it."""
        stored = self.read(obj)
        if same(stored, self.after):
            return self
        return replace(self, after=stored, sent=() if _says(stored, self.after) else (self.after,))

    def _is_one_of(self, obj: Object, values: Iterable[Any]) -> bool:
        now = self.read(obj)
        return any(same(now, v) for v in values)

    def matches(self, item: Object) -> bool:
        """Whether it is this item of the list that is meant."""
        return all(item.get(k) == v for k, v in self.item)

    def strayed(self, obj: Object, edits: Iterable[Edit]) -> bool:
        """Whether the item is gone, but another one, of none of these edits, holds our value.

        Where an item is told from others by what it says, a change of that makes another one of it.
        """
        if not self.inside or self.item_of(obj) is not None:
            return False
        known = [e for e in edits if e.item]
        others = [i for i in at(obj, self.path) or () if not any(e.matches(i) for e in known)]
        return self.after is not None and any(same(at(i, self.inside), self.after) for i in others)

    def lies_on(self, earlier: Edit) -> bool:
        """Whether this edit was made on what an earlier one of the same field had left."""
        return any(same(self.before, v) for v in (earlier.after, *earlier.also, earlier.before))

    def over(self, earlier: Edit) -> Edit:
        """This edit, so that its undo also takes back an earlier edit of the same field.

        `before` is the value from before both edits; what the earlier edit wrote counts as ours (`also`).
        """
        also = tuple(v for v in (*earlier.also, earlier.after, *self.also) if not same(v, earlier.before))
        return replace(self, before=earlier.before, also=also, grown=max(earlier.grown, self.grown))


def all_as_stored(edits: Sequence[Edit], was: Object, answer: Object) -> tuple[Edit, ...]:
    """Edits as the answer to their write holds them; `was` is the object in the version that they changed.

    Where admission made another item of a list's item, as a taint with another effect, that one is to go
    again; and the item that was there before, if any, is to come back.
    """
    stored: list[Edit] = []
    for edit in edits:
        moved = _moved(edit, (*edits, *stored), was, answer)
        if moved is None:
            stored.append(edit.as_stored(answer))
        else:
            stored += [moved] if edit.before is None else [replace(edit, after=None), moved]
    return tuple(stored)


def _moved(edit: Edit, known: Iterable[Edit], was: Object, answer: Object) -> Edit | None:
    """The edit of the item that came in place of this one's; None where this one's is there, or none came.

    It is new, and the likest of those that are: the write held for the version that was read alone.
    """
    if not edit.item or edit.inside or edit.after is None or edit.item_of(answer) is not None:
        return None
    there = at(was, edit.path) or ()
    new = [i for i in at(answer, edit.path) or () if i not in there]
    new = [i for i in new if not any(e.path == edit.path and e.matches(i) for e in known)]
    if not new:
        return None
    alike = [sum(same(item.get(k), v) for k, v in edit.after.items()) for item in new]
    item = new[alike.index(max(alike))]
    moved = replace(edit, item=tuple((k, item.get(k)) for k, _ in edit.item), also=())
    return replace(moved, before=moved.read(was), after=item, sent=(edit.after,))


def patch_body(obj: Object, values: Iterable[tuple[Edit, Any]]) -> list[Object]:
    """The JSON patch that sets fields to values, with the objects around them; None removes a field."""
    draft = copy.deepcopy(obj)
    return [step for edit, value in values for step in _steps(draft, edit, value)]


def _steps(draft: Object, edit: Edit, value: Any) -> list[Object]:
    """One field's part of a patch, made in the draft too."""
    path: list[Any] = list(edit.path)
    if edit.item:
        items = list(at(draft, edit.path) or ())
        place = next((n for n, i in enumerate(items) if edit.matches(i)), len(items))
        if edit.inside:
            path += [place, *edit.inside]
        else:
            items[place : place + 1] = [] if value is None else [value]
            value = items or None
    return _set(draft, path, value) if value is not None else _remove(draft, path, edit.grown)


def _set(draft: Any, path: list[Any], value: Any) -> list[Object]:
    parent = draft
    for depth, part in enumerate(path[:-1]):
        inner = parent[part] if isinstance(parent, list) else parent.get(part)
        if inner is None:
            for outer in reversed(path[depth + 1 :]):
                value = {outer: value}
            path = path[: depth + 1]
            break
        parent = inner
    parent[path[-1]] = value
    return [{"op": "add", "path": _pointer(path), "value": copy.deepcopy(value)}]


def _remove(draft: Any, path: list[Any], grown: int) -> list[Object]:
    """Remove a field, and of the objects that came with it those that it leaves empty."""
    trail = [draft]
    for part in path[:-1]:
        inner = trail[-1]
        inner = inner[part] if isinstance(inner, list) else inner.get(part)
        if inner is None:
            return []
        trail.append(inner)
    if path[-1] not in trail[-1]:
        return []
    del trail.pop()[path[-1]]
    while grown and len(path) > 1 and not trail[-1][path[-2]]:
        path, grown = path[:-1], grown - 1
        del trail.pop()[path[-1]]
    return [{"op": "remove", "path": _pointer(path)}]


def _pointer(path: Iterable[Any]) -> str:
    return "/" + "/".join(str(p).replace("~", "~0").replace("/", "~1") for p in path)


def at(value: Any, path: Iterable[str]) -> Any:
    """The value at a path of keys; None where it ends."""
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def same(a: Any, b: Any) -> bool:
    """Equality, but false and empty values count as absent: the API server leaves such fields out."""
    return bool(a == b) or (_absent(a) and _absent(b))


def _says(stored: Any, sent: Any) -> bool:
    """Whether a server stored what was sent: with more fields (defaults), or a quantity in another form."""
    if isinstance(sent, dict):
        return isinstance(stored, dict) and all(_says(stored.get(k), v) for k, v in sent.items())
    if isinstance(sent, list):
        alike = isinstance(stored, list) and len(stored) == len(sent)
        return alike and all(map(_says, stored, sent))
    try:
        return same(stored, sent) or parse_quantity(str(stored)) == parse_quantity(str(sent))
    except ValueError:
        return False


def alterations(sent: Object, stored: Object) -> list[Edit]:
    """The fields of a new object that a server stored otherwise than they were sent: as admission does.

    What the server adds is none of them: fields that were left to it, and items of a list of objects, as the
    volume that a pod gets with its account. A Secret's `stringData` is never stored under that name.
    """
    secret = sent.get("kind") == "Secret"
    left_out = ("status", *(("stringData",) if secret else ()))
    kept = {key: value for key, value in sent.items() if key not in left_out}
    return [Edit(path, now, sent=(said,), secret=secret) for path, said, now in _otherwise(kept, stored, ())]


def _otherwise(sent: Any, stored: Any, path: Where) -> Iterator[tuple[Where, Any, Any]]:
    if isinstance(sent, dict) and isinstance(stored, dict):
        for key, value in sent.items():
            yield from _otherwise(value, stored.get(key), (*path, key))
    elif sent and isinstance(sent, list) and all(isinstance(i, dict) for i in (*sent, *(stored or ()))):
        for item in sent:
            yield from _item_otherwise(item, stored or (), path)
    elif sent is not None and not (same(stored, sent) or _says(stored, sent)):
        yield path, sent, stored


def _item_otherwise(sent: Object, stored: Iterable[Object], path: Where) -> Iterator[tuple[Where, Any, Any]]:
    """An item of a list is known by its name, or by all that it holds where it has none."""
    if name := sent.get("name"):
        twin = next((i for i in stored if i.get("name") == name), None)
        yield from _otherwise(sent, twin, (*path[:-1], f"{path[-1]}[name={name}]"))
    elif not any(next(_otherwise(sent, i, path), None) is None for i in stored):
        yield path, sent, [*stored] or None


def _absent(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})
