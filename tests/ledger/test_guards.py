"""No change without who admits it and who owns the run: what was left out is a refusal, and no free pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gameday.ledger.ledger import Entry, Ledger
from gameday.ledger.operations import Create, Refused, Undone
from gameday.ledger.store import ClusterStore, record_ref
from gameday.platform.objects import Ref
from gameday.platform.world import Victim, World
from tests.support.ledgers import Alone

pytestmark = pytest.mark.fast

NOBODY: Any = None  # in place of a client: nothing may be sent
MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "guarded", "namespace": "default"}}


def test_a_ledger_needs_to_know_who_admits_and_who_owns(tmp_path: Path) -> None:
    begin: Any = Ledger.begin
    store: Any = ClusterStore
    given: Any = (NOBODY, "run", tmp_path, {}, print)
    with pytest.raises(TypeError, match=r"admit.*owner.*scope"):
        begin(*given)
    with pytest.raises(TypeError, match="owner"):
        store(*given[:2], {})


def test_a_state_that_nobody_knows_has_something_left_to_undo() -> None:
    """A newer version may have written it; what is not open is never undone."""
    record = Entry.of(1, "1", Create.of(MAP, "run")).record()
    read = Entry.from_record(record | {"state": "half-made"}, record_ref("run"), "run")
    assert read.open
    assert not Entry.from_record(record | {"state": "undone"}, record_ref("run"), "run").open


@pytest.mark.parametrize("word", ["done", "made", "intended"])
def test_an_undo_ends_in_one_of_four_ways(word: str) -> None:
    """An operation of whatever package: a word that nobody knows would count as undone."""
    with pytest.raises(ValueError, match=word):
        Undone(word)


async def test_a_ledger_that_was_taken_over_makes_no_changes() -> None:
    owner = Alone()
    store = ClusterStore(NOBODY, "run", {}, owner, None)
    ledger = Ledger.taken(NOBODY, "run", store, [], print, owner)
    with pytest.raises(Refused, match="taken over"):
        await ledger.intend("1", [Create.of(MAP, "run")])


async def test_a_world_admits_nothing_until_a_gate_does() -> None:
    victim = Victim(Ref("v1", "Pod", "trainer-0", "training"), "pod")
    with pytest.raises(RuntimeError, match=r"no gate has admitted .* Pod training/trainer-0"):
        await World(NOBODY).at("1", 5.0).admit([victim])
