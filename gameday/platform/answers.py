"""Answers of servers: read within bounds, understood, and about the object that was asked for.

All raise WrongAnswer. `asked` says what for, as "get Pod a/b from https://…".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from pydantic_core import from_json

from gameday.experiment.text import shorten
from gameday.platform.errors import WrongAnswer
from gameday.platform.objects import Object, Ref, Resource

MOST_BYTES = 32 * 2**20  # of one answer, unpacked; decoded it takes about six times as much memory
SAID = 80  # characters of a stranger's answer that are quoted


class TooLarge(WrongAnswer):
    """More than the reader takes; a smaller page of a list may do."""


async def read(chunks: AsyncIterator[bytes], asked: str, most: int = 0) -> bytes:
    """The body, unpacked, of at most `most` bytes (0: MOST_BYTES)."""
    most = most or MOST_BYTES
    kept: list[bytes] = []
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise TooLarge(f"cannot {asked}: the answer is larger than {most >> 20} MiB")
        kept.append(chunk)
    return b"".join(kept)


async def beginning(chunks: AsyncIterator[bytes], most: int) -> bytes:
    """The first `most` bytes of a body, however many pieces they come in; the rest is left unread."""
    kept = bytearray()
    async for chunk in chunks:
        kept += chunk[: most - len(kept)]
        if len(kept) == most:
            break
    return bytes(kept)


def mapping(raw: bytes, asked: str) -> Object:
    """A JSON object. Not by json.loads, which takes twice as long: a list of 50,000 pods is 250 MB."""
    try:
        found = from_json(raw)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        said = shorten(raw, SAID) or "nothing"
        raise WrongAnswer(
            f"cannot {asked}: the answer is no JSON object ({said!r}): is something else at this address?"
        )
    return found


def check_object(found: Object, ref: Ref, asked: str, *, kind: bool = True) -> None:
    """One object: of that name and namespace, and of that kind unless `kind` is False."""
    meta = found.get("metadata")
    if not isinstance(meta, dict):
        raise WrongAnswer(f"cannot {asked}: the answer is no object ({_kind(found)})")
    if kind and (found.get("apiVersion"), found.get("kind")) != (ref.api_version, ref.kind):
        raise WrongAnswer(f"cannot {asked}: the answer is about another kind ({_kind(found)})")
    name, namespace = meta.get("name"), meta.get("namespace") or None
    if (name, namespace) != (ref.name, ref.namespace or None):
        other = shorten(f"{namespace or 'no namespace'}/{name}", 300)
        raise WrongAnswer(f"cannot {asked}: the answer is about {other}")


def check_deleted(found: Object, ref: Ref, asked: str) -> None:
    """The answer to a deletion: the object that goes, or a Status that names it."""
    if found.get("kind") != "Status":
        check_object(found, ref, asked)
        return
    details = found.get("details")
    name = details.get("name", ref.name) if isinstance(details, dict) else ref.name
    if found.get("status") != "Success" or name != ref.name:
        raise WrongAnswer(f"cannot {asked}: the answer is {found.get('status')} about {name}")


def check_success(found: Object, asked: str) -> None:
    """A Status that says that it was done."""
    if (found.get("kind"), found.get("status")) != ("Status", "Success"):
        raise WrongAnswer(f"cannot {asked}: the answer is no Success but {_kind(found)}")


def page(
    found: Object,
    resource: Resource,
    namespace: str | None,
    fields: Mapping[str, str] | None,
    asked: str,
) -> Object:
    """A page of a list, with apiVersion and kind set on each item."""
    meta, items = found.get("metadata"), found.get("items", False)
    if not isinstance(meta, dict) or not (items is None or isinstance(items, list)):
        raise WrongAnswer(f"cannot {asked}: the answer is no list ({_kind(found)})")
    found["items"] = items or []
    name = (fields or {}).get("metadata.name")
    for item in found["items"]:
        check_item(item, resource, namespace, name, asked)
    return found


def check_item(item: Any, resource: Resource, namespace: str | None, name: str | None, asked: str) -> None:
    """One of a list or a watch, which may leave apiVersion and kind out: they are set here."""
    if not isinstance(item, dict) or not isinstance(meta := item.get("metadata"), dict):
        raise WrongAnswer(f"cannot {asked}: the answer holds no object")
    version = item.setdefault("apiVersion", resource.api_version)
    kind = item.setdefault("kind", resource.kind)
    inside = namespace is None or not resource.namespaced or meta.get("namespace") == namespace
    if (version, kind) != (resource.api_version, resource.kind) or not inside:
        raise WrongAnswer(
            f"cannot {asked}: the answer holds {kind} {meta.get('namespace')}/{meta.get('name')}"
        )
    if not isinstance(meta.get("name"), str) or (name is not None and meta["name"] != name):
        raise WrongAnswer(f"cannot {asked}: the answer holds {kind} {meta.get('name')!r}")


def resources(found: Object, asked: str) -> list[Object]:
    """The kinds that an API version serves, without their subresources."""
    listed = found.get("resources")
    needed = {"name": str, "kind": str, "namespaced": bool}
    if not isinstance(listed, list) or not all(
        isinstance(r, dict) and all(isinstance(r.get(k), t) for k, t in needed.items()) for r in listed
    ):
        raise WrongAnswer(f"cannot {asked}: the answer is no list of kinds ({_kind(found)})")
    return [r for r in listed if "/" not in r["name"]]


def names(found: Object, asked: str) -> set[str]:
    """What a list of discovery names: resources and subresources, or API groups and their versions."""
    if isinstance(listed := found.get("resources"), list):
        return {str(r.get("name")) for r in listed if isinstance(r, dict)}
    groups = found.get("groups")
    if not isinstance(groups, list):
        raise WrongAnswer(f"cannot {asked}: the answer lists nothing ({_kind(found)})")
    named = {str(g.get("name")) for g in groups if isinstance(g, dict)}
    versions = (v for g in groups if isinstance(g, dict) for v in g.get("versions") or ())
    return named | {str(v.get("groupVersion")) for v in versions if isinstance(v, dict)}


def versions(found: Object, asked: str) -> list[str]:
    """The versions of an API group, the one that the server prefers first."""
    listed = found.get("versions")
    if not isinstance(listed, list):
        raise WrongAnswer(f"cannot {asked}: the answer lists no versions ({_kind(found)})")
    return [v["version"] for v in listed if isinstance(v, dict) and isinstance(v.get("version"), str)]


def part(found: Object, key: str, asked: str) -> Object:
    """An object inside an answer."""
    value = found.get(key)
    if not isinstance(value, dict):
        raise WrongAnswer(f"cannot {asked}: the answer has no {key} ({_kind(found)})")
    return value


def text(found: Object, key: str, asked: str) -> str:
    """A text in an answer, by its path with dots."""
    value: Any = found
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if not isinstance(value, str):
        raise WrongAnswer(f"cannot {asked}: the answer has no {key} ({_kind(found)})")
    return value


def _kind(found: Object) -> str:
    return shorten(f"{found.get('apiVersion', 'no apiVersion')}, {found.get('kind', 'no kind')}", SAID)
