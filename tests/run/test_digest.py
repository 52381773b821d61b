"""The log must stay readable, and small, whatever a cluster shouts."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameday.events import ConditionChanged, Event, ObjectEvent
from gameday.run.digest import AT_ONCE, MOST_KEPT, Digest

pytestmark = pytest.mark.fast


def event(name: str, reason: str = "BackOff", count: int = 1) -> ObjectEvent:
    return ObjectEvent(
        object=f"Pod training/{name}", reason=reason, message="why", level="Warning", count=count
    )


def test_the_first_is_told_at_once_and_repeats_are_counted() -> None:
    told: list[Event] = []
    digest = Digest(told.append)
    for _ in range(5):
        digest.tell(event("a", count=2))
    digest.tell(event("a", reason="Killing"))
    assert told == [event("a", count=2), event("a", reason="Killing")]
    digest.flush()
    assert told[2:] == [event("a", count=8)]
    digest.flush()
    assert len(told) == 3
    digest.tell(event("a"))
    assert len(told) == 4


def test_a_condition_that_flaps_is_told_as_it_is_last() -> None:
    told: list[Event] = []
    digest = Digest(told.append)
    for status in ("False", "True", "False", "True"):
        digest.tell(ConditionChanged(object="Node n", condition="Ready", status=status))
    digest.flush()
    assert [e.status for e in told if isinstance(e, ConditionChanged)] == ["False", "True"]


def test_a_storm_becomes_a_handful_of_lines() -> None:
    told: list[Event] = []
    digest = Digest(told.append)
    for number in range(10_000):
        digest.tell(event(f"p{number % 3_000}", reason=("FailedMount", "BackOff")[number % 2]))
    digest.flush()
    assert len(told) < 3 * AT_ONCE
    assert sum(e.count for e in told if isinstance(e, ObjectEvent)) == 10_000
    assert any(e.object.endswith("and 1484 others") for e in told if isinstance(e, ObjectEvent))


async def test_what_is_held_back_is_told_when_it_ends() -> None:
    told: list[Event] = []
    digest = Digest(told.append)
    task = asyncio.create_task(digest.run())
    await asyncio.sleep(0)  # let it begin
    digest.tell(event("a"))
    digest.tell(event("a"))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert len(told) == 2


@given(st.lists(st.builds(event, st.text(max_size=3), st.text(max_size=2), st.integers(1, 9)), max_size=400))
def test_nothing_is_lost_and_the_log_is_bounded(events: list[ObjectEvent]) -> None:
    told: list[Event] = []
    digest = Digest(told.append)
    for each in events:
        digest.tell(each)
    digest.flush()
    assert sum(e.count for e in told if isinstance(e, ObjectEvent)) == sum(e.count for e in events)
    assert len(told) <= AT_ONCE + MOST_KEPT + 1
