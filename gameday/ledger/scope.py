"""The scope of a run, as it was approved: recorded with the ledger, it bounds every change and every undo.

Only objects of Kubernetes are bounded here. What a run changes elsewhere (in Slurm, say) is bounded by its
record being the run's own, which `seal` proves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gameday.platform.objects import Ref

_ELSEWHERE = frozenset({"slurm.schedmd.com", "chaostoolkit.org/v1"})  # what stands for their apiVersion


@dataclass(frozen=True)
class Scope:
    """`objects` are those of no namespace, Kind/name, and single ones elsewhere, Kind/namespace/name."""

    namespaces: frozenset[str]
    objects: frozenset[str] = frozenset()

    def covers(self, ref: Ref) -> bool:
        """Whether an object may be touched."""
        if ref.api_version in _ELSEWHERE:
            return True
        return ref.namespace in self.namespaces or named(ref) in self.objects

    def to_data(self) -> dict[str, Any]:
        return {"namespaces": sorted(self.namespaces), "objects": sorted(self.objects)}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Scope | None:
        """None for a record without a scope, which bounds nothing."""
        if not data:
            return None
        return cls(*(frozenset(map(str, data.get(key) or ())) for key in ("namespaces", "objects")))


def named(ref: Ref) -> str:
    """An object, as a scope names it."""
    return "/".join(part for part in (ref.kind, ref.namespace, ref.name) if part)
