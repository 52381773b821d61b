"""Another package's operation that is broken in any way stands in the way of no other entry of a record."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gameday.experiment import registry
from gameday.extend import Operation, Ref
from gameday.ledger.edits import Edit
from gameday.ledger.operations import Patch
from gameday.ledger.unreadable import Unreadable, read
from tests.support.packages import package

pytestmark = pytest.mark.fast
NODE = Ref("v1", "Node", "gpu-0")
RECORD = Ref("v1", "ConfigMap", "gameday-run", "gameday")
MODULE = """
from gameday.extend import Operation, Ref, RESTORED


class Fine(Operation):
    kind = "fine"
    ref = Ref("v1", "Node", "gpu-1")
    summary = "fine"

    def to_data(self): return {"op": self.kind}

    @classmethod
    def from_data(cls, data): return cls()

    async def make(self, kube): ...
    async def undo(self, kube): return RESTORED
    async def audit(self, kube): return RESTORED


class Unnamed(Fine):
    kind = "unnamed"

    @property
    def ref(self): return 1 / 0


class Silent(Fine):
    kind = "silent"

    @property
    def summary(self): return None


class Other(Fine):
    kind = "other"

    @classmethod
    def from_data(cls, data): return {"op": "other"}


class Exiting(Fine):
    kind = "exiting"

    @classmethod
    def from_data(cls, data): raise SystemExit(0)


class NotDerived:
    kind = "not-derived"
"""
ENTRY_POINTS = """
[gameday.operations]
fine = acme_broken:Fine
unnamed = acme_broken:Unnamed
silent = acme_broken:Silent
other = acme_broken:Other
exiting = acme_broken:Exiting
not-derived = acme_broken:NotDerived
misnamed = acme_broken:Fine
exits = acme_exits:Any
missing = acme_missing:Any
"""


@pytest.fixture(scope="module", autouse=True)
def acme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("packages")
    package(folder, "acme_broken", MODULE, ENTRY_POINTS, "2.0")
    (folder / "acme_exits.py").write_text("raise SystemExit(1)")
    sys.path.append(str(folder))
    importlib.invalidate_caches()
    registry.forget()
    yield
    sys.path.remove(str(folder))
    registry.forget()


def operation(kind: str, **more: Any) -> Operation:
    return read({"n": 1, "step": "1", "op": {"op": kind, "ref": NODE.to_data()}, **more}, RECORD, "run")


def test_what_is_whole_is_read() -> None:
    assert operation("fine").summary == "fine"
    patch = Patch(NODE, (Edit(("spec", "unschedulable"), True),), "gameday-run")
    assert read({"op": patch.to_data()}, RECORD, "run") == patch


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "`missing` from acme-broken (acme_missing:Any) can't be loaded: No module named"),
        ("exits", "`exits` from acme-broken (acme_exits:Any) can't be loaded: 1: mend that package"),
        ("misnamed", "is not a class whose `kind` is 'misnamed': mend that package"),
        ("not-derived", "is not derived from gameday.extend.Operation: mend that package"),
        ("unnamed", "ZeroDivisionError"),
        ("silent", "Silent"),
        ("other", "is no operation"),
        ("exiting", "SystemExit"),
    ],
)
def test_what_is_broken_says_so_by_its_object(kind: str, words: str) -> None:
    found = operation(kind)
    assert isinstance(found, Unreadable)
    assert words in found.summary
    assert found.ref == NODE
    assert found.to_data() == {"op": kind, "ref": NODE.to_data()}


def test_a_package_that_is_not_there_is_named_by_the_record() -> None:
    words = "of the package acme-flags 1.0, which is not installed here: install it and restore it then"
    assert words in operation("acme-flag", package="acme-flags 1.0").summary
    assert "which gameday" in operation("acme-flag").summary
