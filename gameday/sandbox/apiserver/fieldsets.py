"""Sets of field paths, as server-side apply records them in fieldsV1, and merging by the same structure.

A path is a tuple of steps: "f:name" for a field, 'k:{"name":"x"}' for an item of a list with keys, 'v:"x"'
for a member of a set. Every other list counts as one value.
"""

from __future__ import annotations

import json
from typing import Any

from gameday.sandbox.apiserver.listkeys import is_set, key_of, merge_keys
from gameday.sandbox.apiserver.resources import Resource
from gameday.sandbox.apiserver.store import encode_text

Json = dict[str, Any]
Path = tuple[str, ...]
_NOT_APPLIED = {
    ("apiVersion",),
    ("kind",),
    ("metadata", "name"),
    ("metadata", "namespace"),
    ("metadata", "uid"),
    ("metadata", "resourceVersion"),
    ("metadata", "creationTimestamp"),
    ("metadata", "generation"),
    ("metadata", "managedFields"),
    ("metadata", "generateName"),
    ("metadata", "deletionTimestamp"),
    ("metadata", "deletionGracePeriodSeconds"),
}
MISSING = object()


def list_keys(resource: Resource, names: tuple[str, ...]) -> tuple[str, ...]:
    """The keys of the list at a path of field names; ("",) for a set, () for a list that is one value."""
    if resource.custom is not None and names[0] != "metadata":
        return _declared(resource.schema or {}, names)
    return merge_keys(names) or (("",) if is_set(names) else ())


def _declared(schema: Json, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        schema = schema.get("items") or schema
        rest = schema.get("additionalProperties")
        schema = (schema.get("properties") or {}).get(name) or (rest if isinstance(rest, dict) else {})
    match schema.get("x-kubernetes-list-type"):
        case "map":
            return tuple(schema.get("x-kubernetes-list-map-keys") or ())
        case "set":
            return ("",)
    return ()


def fields(resource: Resource, obj: Json) -> set[Path]:
    """The paths of everything an object says, but for what identifies it."""
    found: set[Path] = set()
    _collect(resource, obj, (), (), found)
    return found


def _collect(resource: Resource, value: Any, path: Path, names: tuple[str, ...], found: set[Path]) -> None:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            inside = (*names, key)
            if inside not in _NOT_APPLIED:
                _collect(resource, inner, (*path, f"f:{key}"), inside, found)
        return
    keys = list_keys(resource, names) if isinstance(value, list) and value else ()
    if not keys:
        if path:
            found.add(path)
    elif keys == ("",):
        found.update((*path, f"v:{encode_text(v)}") for v in value)
    else:
        for item in value:
            step = _key_step(item, keys)
            found.add((*path, step))
            _collect(resource, item, (*path, step), names, found)


def _key_step(item: Json, keys: tuple[str, ...]) -> str:
    pairs = zip(keys, key_of(item, keys), strict=True)
    return "k:" + encode_text({k: v for k, v in pairs if v is not None})


def merge(resource: Resource, live: Any, applied: Any, names: tuple[str, ...] = ()) -> Any:
    """`live` with what is applied laid over it; shares parts with both."""
    if isinstance(live, dict) and isinstance(applied, dict):
        result = dict(live)
        for key, value in applied.items():
            result[key] = merge(resource, live.get(key), value, (*names, key)) if key in live else value
        return result
    keys = list_keys(resource, names) if isinstance(live, list) and isinstance(applied, list) else ()
    if not keys:
        return applied
    if keys == ("",):
        return [*live, *(v for v in applied if v not in live)]
    result_list = list(live)
    places = {key_of(item, keys): at for at, item in enumerate(live)}
    for item in applied:
        at = places.get(key_of(item, keys))
        if at is None:
            result_list.append(item)
        else:
            result_list[at] = merge(resource, live[at], item, names)
    return result_list


def value(obj: Any, path: Path) -> Any:
    """What is at a path, or MISSING. An item of a list is True: its fields have paths of their own."""
    for step in path:
        obj = _down(obj, step)
        if obj is MISSING:
            return MISSING
    return True if path[-1].startswith(("k:", "v:")) else obj


def _down(obj: Any, step: str) -> Any:
    if step.startswith("f:"):
        return obj.get(step[2:], MISSING) if isinstance(obj, dict) else MISSING
    at = _index(obj, step)
    return MISSING if at is None else obj[at]


def _index(items: Any, step: str) -> int | None:
    wanted = json.loads(step[2:])
    for at, item in enumerate(items if isinstance(items, list) else ()):
        if step.startswith("v:"):
            if item == wanted:
                return at
        elif isinstance(item, dict) and key_of(item, tuple(wanted)) == tuple(wanted.values()):
            return at
    return None


def is_key(path: Path) -> bool:
    """Whether a field is what its list item is known by: it goes with the item, never alone."""
    return len(path) > 1 and path[-2].startswith("k:") and path[-1][2:] in json.loads(path[-2][2:])


def remove(obj: Any, path: Path) -> None:
    """Take what is at a path away, in place along the path, and the objects it leaves empty."""
    *parents, last = path
    trail: list[tuple[Any, str]] = []
    for step in parents:
        inner = _down(obj, step)
        if inner is MISSING:
            return
        inner = inner.copy()  # the parts may be shared with other objects
        _put(obj, step, inner)
        trail.append((obj, step))
        obj = inner
    if last.startswith("f:"):
        obj.pop(last[2:], None)
    else:
        at = _index(obj, last)
        if at is not None:
            del obj[at]
    for parent, step in reversed(trail):
        if _down(parent, step) in ({}, []) and step.startswith("f:") and step not in ("f:metadata", "f:spec"):
            parent.pop(step[2:], None)


def _put(obj: Any, step: str, inner: Any) -> None:
    if step.startswith("f:"):
        obj[step[2:]] = inner
    else:
        at = _index(obj, step)
        if at is not None:
            obj[at] = inner


def text(path: Path) -> str:
    """A path as messages show it: .spec.template.spec.containers[name="app"].image"""
    shown = ""
    for step in path:
        if step.startswith("f:"):
            shown += "." + step[2:]
        elif step.startswith("v:"):
            shown += f"[={step[2:]}]"
        else:
            pairs = json.loads(step[2:]).items()
            shown += "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in pairs) + "]"
    return shown


def to_v1(paths: set[Path]) -> Json:
    """The nested form that fieldsV1 has. A step that is itself a member has "."."""
    tree: Json = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        if path[-1].startswith("k:"):
            node["."] = {}
    return tree


def from_v1(tree: Json) -> set[Path]:
    """The paths in a fieldsV1."""
    found: set[Path] = set()

    def walk(node: Json, path: Path) -> None:
        if path and (not node or "." in node):
            found.add(path)
        for step, inner in node.items():
            if step != ".":
                walk(inner, (*path, step))

    walk(tree, ())
    return found
