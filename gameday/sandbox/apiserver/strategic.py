"""Strategic merge patch: lists merge by key, with the directives (`$patch`, …) that kubectl sends."""

from __future__ import annotations

from typing import Any

from gameday.sandbox.apiserver.listkeys import is_set, key_of, merge_keys
from gameday.sandbox.apiserver.status import bad_request

Json = dict[str, Any]
_ORDER, _DELETE, _RETAIN = "$setElementOrder/", "$deleteFromPrimitiveList/", "$retainKeys"


def strategic_merge(target: Json, patch: Json, path: tuple[str, ...] = ()) -> Json:
    """The merged object; neither argument is changed."""
    directive = patch.get("$patch")
    if directive == "replace":
        return {k: v for k, v in patch.items() if k != "$patch"}
    if directive == "delete":
        return {}
    retained = patch.get(_RETAIN)
    result = {k: v for k, v in target.items() if retained is None or k in retained}
    for key, value in patch.items():
        if key.startswith(_DELETE):
            field = key[len(_DELETE) :]
            result[field] = [v for v in result.get(field) or () if v not in value]
        elif not key.startswith("$"):
            _merge_field(result, key, value, (*path, key))
    for key, order in patch.items():
        if key.startswith(_ORDER):
            field = key[len(_ORDER) :]
            if isinstance(result.get(field), list):
                result[field] = _ordered(result[field], order, (*path, field))
    return result


def _merge_field(result: Json, key: str, value: Any, path: tuple[str, ...]) -> None:
    old = result.get(key)
    if value is None:
        result.pop(key, None)
    elif isinstance(value, dict):
        if value.get("$patch") == "delete":
            result.pop(key, None)
        else:
            result[key] = strategic_merge(old if isinstance(old, dict) else {}, value, path)
    elif isinstance(value, list) and merge_keys(path):
        result[key] = _merge_list(old or [], value, path)
    elif isinstance(value, list) and is_set(path):
        result[key] = [*(old or ()), *(v for v in value if v not in (old or ()))]
    else:
        result[key] = value


def _merge_list(old: list[Json], patch: list[Json], path: tuple[str, ...]) -> list[Json]:
    keys = merge_keys(path)[:1]  # a strategic merge knows one key per list, unlike server-side apply
    if not all(isinstance(p, dict) for p in patch):
        raise bad_request(f"the items of {path[-1]} must be objects")
    if any(p.get("$patch") == "replace" and len(p) == 1 for p in patch):
        return [p for p in patch if "$patch" not in p]
    result = list(old)
    for item in patch:
        if keys[0] not in item and "$patch" not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {keys[0]}")
        identity = key_of(item, keys)
        at = next((i for i, o in enumerate(result) if key_of(o, keys) == identity), None)
        if item.get("$patch") == "delete":
            result = [o for o in result if key_of(o, keys) != identity]
        elif at is None:
            result.append(strategic_merge({}, item, path))
        else:
            result[at] = strategic_merge(result[at], item, path)
    return result


def _ordered(items: list[Any], order: list[Any], path: tuple[str, ...]) -> list[Any]:
    """The items named in `order` come in that order; the others keep their place behind them."""
    keys = merge_keys(path)[:1]

    def identity(value: Any) -> Any:
        return key_of(value, keys) if keys and isinstance(value, dict) else value

    wanted = [identity(o) for o in order]
    named = [i for i in items if identity(i) in wanted]
    return sorted(named, key=lambda i: wanted.index(identity(i))) + [
        i for i in items if identity(i) not in wanted
    ]
