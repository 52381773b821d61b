"""Whether a record is what its run wrote: an HMAC over each entry and over the record's head.

The key is made for one run, and kept in a Secret beside the record: who may write ConfigMaps in our
namespace, but not read its Secrets, can't make a record that anybody would execute. Each entry is signed with
its run, number and epoch, so that a record that was damaged in part is believed in the rest.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gameday.platform.objects import Object

SEAL = "seal"  # the key of a record's `data`
MAC = "mac"  # the one field that is not signed, of an entry as of a head: whatever a recovery reads is


@dataclass(frozen=True)
class Seal:
    """The head of a record: who wrote this version of it, for which epoch, and within which scope.

    `writer` and `serial` name one write, so that its author knows it again when its answer was lost;
    `digest` is that of the entries as they are packed.
    """

    epoch: int
    writer: str
    serial: int
    digest: str
    scope: dict[str, Any] = field(default_factory=dict)
    mac: str = ""

    def signed(self, key: bytes | None, run: str) -> Seal:
        return replace(self, mac=mac_of(key, "seal", run, self._body()) if key else "")

    def holds(self, key: bytes | None, run: str) -> bool:
        """Whether it was made with the run's key."""
        return key is not None and same(self.mac, mac_of(key, "seal", run, self._body()))

    def to_text(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def of(cls, record: Object) -> Seal | None:
        """The seal of a record's object; None where there is none that can be read."""
        try:
            data = json.loads((record.get("data") or {})[SEAL])
            scope = data["scope"] if isinstance(data["scope"], dict) else {}
            return cls(
                int(data["epoch"]),
                str(data["writer"]),
                int(data["serial"]),
                str(data["digest"]),
                scope,
                str(data["mac"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return None

    def _body(self) -> dict[str, Any]:
        return without_mac(asdict(self))


def digest_of(text: str) -> str:
    """The digest of a text, as of packed entries."""
    return hashlib.sha256(text.encode()).hexdigest()


def sign_entry(key: bytes, run: str, record: dict[str, Any], epoch: int) -> dict[str, Any]:
    """An entry's record with its epoch and its HMAC."""
    body = without_mac(json.loads(json.dumps({**record, "epoch": epoch})))  # as it will be read back
    return body | {MAC: mac_of(key, "entry", run, without_mac(body))}


def entry_holds(key: bytes | None, run: str, record: dict[str, Any]) -> bool:
    """Whether an entry was written by the run, or by who took it over."""
    mac = record.get(MAC)
    if key is None or not isinstance(mac, str):
        return False
    return same(mac, mac_of(key, "entry", run, without_mac(record)))


def without_mac(body: dict[str, Any]) -> dict[str, Any]:
    """What a signature is of: all fields, those that a later version adds too."""
    return {k: v for k, v in body.items() if k != MAC}


def same(a: str, b: str) -> bool:
    """Whether two digests are equal, in a time that does not say where they differ."""
    return hmac.compare_digest(a.encode(errors="replace"), b.encode())


def mac_of(key: bytes, what: str, run: str, body: dict[str, Any]) -> str:
    text = json.dumps([what, run, body], sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
