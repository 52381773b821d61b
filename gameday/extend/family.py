"""Several faults under one key of the file, of which each spec chooses one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import model_validator

from gameday.experiment.model import Spec
from gameday.extend.fault import Fault

W = TypeVar("W", bound="OneOfSpec")


class OneOfSpec(Spec):
    """A spec of which exactly one of some fields is set."""

    ways: ClassVar[tuple[str, ...]]
    """These fields, by their names in Python."""

    @property
    def way(self) -> str:
        """The one that is set."""
        return self._set()[0]

    def _set(self) -> list[str]:
        return [way for way in self.ways if getattr(self, way) is not None]

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        count = len(self._set())
        if count != 1:
            known = [f"`{type(self).model_fields[way].alias or way}`" for way in self.ways]
            pair = len(known) == 2
            wanted = f"either {' or '.join(known)}" if pair else f"exactly one of {', '.join(known)}"
            raise ValueError(f"expected {wanted}, found {count or 'none'}")
        return self


class OneOf(Generic[W]):
    """A family. `variants` holds a fault, itself one for the family's whole spec, for each of its ways.

    Everything but the choice is the variant's own: whoever runs faults asks `of` first, and the family not
    at all.
    """

    Spec: ClassVar[type[Spec]]
    example: ClassVar[str] = ""
    variants: ClassVar[Mapping[str, type[Fault[Any]] | type[OneOf[Any]]]]

    def of(self, spec: W) -> Fault[W]:
        """The fault that a spec means."""
        return self.variants[self.chosen(spec)]().of(spec)

    def chosen(self, spec: W) -> str:
        """Which variant it is; the spec's way, unless a family chooses by something else."""
        return spec.way
