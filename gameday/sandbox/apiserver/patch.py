"""JSON patch (RFC 6902) and JSON merge patch (RFC 7386) on plain data, refusing as the API server does."""

from __future__ import annotations

from typing import Any

from gameday.sandbox.apiserver.status import Refused, bad_request


def merge_patch(target: Any, patch: Any) -> Any:
    """The merged value; neither argument is changed."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def json_patch(document: Any, operations: Any) -> Any:
    """Apply the operations in order to `document`, which is changed in place.

    A patch that cannot be decoded is a 400; one that does not fit the object, `test` included, a 422.
    """
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type []patch")
    for operation in operations:
        kind, path = operation.get("op"), operation.get("path")
        if not isinstance(path, str):
            raise bad_request("error decoding patch: missing path")
        try:
            document = _apply(document, kind, path, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise _unprocessable() from error
    return document


def _apply(document: Any, kind: str, path: str, operation: dict[str, Any]) -> Any:
    match kind:
        case "add":
            return _add(document, path, operation.get("value"))
        case "remove":
            _remove(document, path)
        case "replace":
            parent, last = _parent(document, path)
            if parent is None:
                return operation.get("value")
            parent[_existing(parent, last)] = operation.get("value")
        case "move":
            return _add(document, path, _remove(document, operation["from"]))
        case "copy":
            return _add(document, path, _value(document, operation["from"]))
        case "test":
            _test(document, path, operation.get("value"))
        case _:
            raise _unprocessable()
    return document


def _test(document: Any, path: str, wanted: Any) -> None:
    try:
        found = _value(document, path)
    except (KeyError, IndexError, ValueError, TypeError):
        found = None
    if not _same(found, wanted):
        raise _unprocessable()


def _same(one: Any, other: Any) -> bool:
    """JSON equality: true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _unprocessable() -> Refused:
    """Upstream keeps to itself which operation it was."""
    return Refused(422, "Invalid", "the server rejected our request due to an error in our request")


def _steps(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise ValueError(path)
    return [s.replace("~1", "/").replace("~0", "~") for s in path.split("/")[1:]]


def _parent(document: Any, path: str) -> tuple[Any, str]:
    steps = _steps(path)
    if not steps:
        return None, ""
    for step in steps[:-1]:
        document = document[_existing(document, step)]
    if not isinstance(document, dict | list):
        raise TypeError(path)
    return document, steps[-1]


def _existing(parent: Any, step: str) -> Any:
    """The key or index of something that is there."""
    if isinstance(parent, dict):
        if step not in parent:
            raise KeyError(step)
        return step
    index = int(step)
    if not -len(parent) <= index < len(parent):
        raise IndexError(step)
    return index


def _value(document: Any, path: str) -> Any:
    for step in _steps(path):
        document = document[_existing(document, step)]
    return document


def _add(document: Any, path: str, value: Any) -> Any:
    parent, last = _parent(document, path)
    if parent is None:
        return value
    if isinstance(parent, dict):
        parent[last] = value
    elif last == "-":
        parent.append(value)
    else:
        index = int(last)
        if index > len(parent):
            raise IndexError(path)
        parent.insert(index, value)
    return document


def _remove(document: Any, path: str) -> Any:
    parent, last = _parent(document, path)
    if parent is None:
        raise ValueError("the whole object cannot be removed")
    return parent.pop(_existing(parent, last))
