"""The key that a run signs its record with, in a Secret of the run's, and the mark beside it.

The Secret is made before the record, and goes after it: as long as there is one, something may be in force.
"""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING

from gameday.ledger.keeping import NAMESPACE, metadata, name_of, remove
from gameday.ledger.mark import NONE, Mark
from gameday.platform.conditional import among_others, create_if_absent, write_if
from gameday.platform.errors import ApiError, PlatformError
from gameday.platform.objects import Object, Ref

if TYPE_CHECKING:
    from gameday.platform.kube import Kube


TYPE = "gameday.dev/ledger-key"  # which nobody can change: no other Secret is taken for a key, or removed


class Planted(PlatformError):
    """A Secret under the name of a run's key is not what the run made."""


def key_ref(run: str) -> Ref:
    """The Secret that holds a run's key."""
    return Ref("v1", "Secret", name_of(run), NAMESPACE)


def new_key() -> bytes:
    """A key for one run."""
    return secrets.token_bytes(32)


async def make_key(kube: Kube, run: str, key: bytes) -> None:
    """Keep this key for a run. Raises PlatformError, Planted where there is another one already.

    Whoever made that one knows it, and could sign what the run never wrote.
    """
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": TYPE,
        "immutable": True,
        "metadata": metadata(run, annotations=Mark(0, NONE).annotations),
        "data": {"key": base64.b64encode(key).decode()},
    }

    async def attempt() -> bool:
        if await create_if_absent(kube, manifest):
            return True
        found = await kube.find(key_ref(run))
        if found is not None and _key(found) != key:
            raise Planted(f"{key_ref(run)} is there already, and run {run} did not make it: see who did")
        return found is not None  # an attempt of ours whose answer was lost

    await among_others(key_ref(run), attempt)


async def read_key(kube: Kube, run: str) -> bytes | None:
    """The key of a run; None when there is none that we may read. Raises PlatformError."""
    return (await read_marked(kube, run))[0]


async def read_marked(kube: Kube, run: str) -> tuple[bytes | None, Mark | None]:
    """The key of a run, and how far its record is; None where there is none that we may read.

    Raises PlatformError.
    """
    try:
        found = await kube.find(key_ref(run))
    except ApiError as error:
        if error.status != 403:
            raise
        return None, None
    key = _key(found) if found else None
    return key, Mark.of(found) if found and key else None


async def note(kube: Kube, run: str, mark: Mark, known: Object | None = None) -> Object | None:
    """Write beside the key how far the record is; a mark of a later write stays. Raises PlatformError.

    `known` is the Secret as it was given the last time, which spares the look.
    """
    written = known

    async def attempt() -> bool:
        nonlocal written
        found, written = written or await kube.find(key_ref(run)), None
        if found is None or Mark.of(found).serial > mark.serial:
            return True
        written = await write_if(kube, found, {"metadata": {"annotations": mark.annotations}})
        return written is not None

    await among_others(key_ref(run), attempt)
    return written


async def remove_key(kube: Kube, run: str, key: bytes | None = None) -> None:
    """The run's record is gone: nobody needs its key any more. Raises PlatformError.

    A Secret of that name that holds no key is left alone, and with `key` one that holds another.
    """

    async def attempt() -> bool:
        found = await kube.find(key_ref(run))
        if found is None or found.get("type") != TYPE or key not in (None, _key(found)):
            return True
        return await remove(kube, found)

    await among_others(key_ref(run), attempt)


def _key(secret: Object) -> bytes | None:
    """The key in a Secret; None where it holds none: others may write there what they like."""
    try:
        return base64.b64decode(secret["data"]["key"], validate=True) if secret["type"] == TYPE else None
    except (KeyError, TypeError, ValueError):
        return None


__all__ = ["Planted", "key_ref", "make_key", "new_key", "note", "read_key", "read_marked", "remove_key"]
