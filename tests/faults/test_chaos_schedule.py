"""A Schedule never fires more often than is counted: held against a clock that steps through hours."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameday.extend import PlanError
from gameday.faults.chaos_manifest import keep_the_last
from gameday.faults.chaos_schedule import most_firings
from gameday.sandbox.fleet.chaos.schedules import next_after

pytestmark = pytest.mark.fast
BEGIN = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
FIELDS = st.sampled_from(["*", "*/7", "*/15", "0", "59", "3-50/4", "1,2,58,59", "0,30", "10-12"])


@given(FIELDS, st.sampled_from(["*", "*/2", "3", "0-4"]), st.integers(0, 7200), st.integers(1, 7200))
def test_it_is_never_fewer_than_there_are(minutes: str, hours: str, begin: int, seconds: int) -> None:
    line = f"{minutes} {hours} * * *"
    at, fired = float(BEGIN + begin), 0
    while (at := next_after(line, at)) <= BEGIN + begin + seconds:
        fired += 1
    assert fired <= most_firings(line, seconds)


@pytest.mark.parametrize(
    ("line", "seconds", "most"),
    [
        ("@every 30s", 60, 3),
        ("@every 1m30s", 60, 1),
        ("@every 100ms", 60, 62),  # no more often than each second
        ("* * * * *", 60, 3),
        ("*/10 * * * *", 1800, 5),
        ("30 */10 * * * *", 1800, 5),
        ("*/20 * * * * *", 60, 5),
        ("CRON_TZ=Asia/Tokyo 0 3 * * 1", 60, 2),
        ("@daily", 1800, 2),
        ("TZ=UTC @every 30s", 60, 3),
        ("10-20 * * * *", 7200, 24),
        ("JAN * * * *", 120, 4),  # what can't be read is each of them
    ],
)
def test_how_often(line: str, seconds: float, most: int) -> None:
    assert most_firings(line, seconds) == most


@pytest.mark.parametrize("interval", ["now", "30", "1 m", "1d", ""])
def test_a_wrong_interval_is_refused(interval: str) -> None:
    with pytest.raises(PlanError, match=f"the schedule '@every {interval}' is wrong"):
        most_firings(f"@every {interval}", 60)


def test_the_last_of_what_a_schedule_made_is_kept() -> None:
    """Also of one in a Workflow, or in a Workflow that a Schedule starts; what is said stays."""
    inner: dict[str, object] = {
        "schedule": "@every 5s",
        "type": "PodChaos",
        "podChaos": {"action": "pod-kill"},
    }
    flow = {"templates": [{"templateType": "Schedule", "schedule": inner}]}
    outer: dict[str, object] = {"type": "Workflow", "workflow": flow, "historyLimit": 3}
    keep_the_last("Schedule", outer)
    assert (outer["historyLimit"], inner["historyLimit"]) == (3, 1)
