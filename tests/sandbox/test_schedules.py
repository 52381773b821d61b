"""When a Chaos Mesh Schedule is due."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gameday.sandbox.fleet.chaos.schedules import next_after

pytestmark = pytest.mark.fast
SUNDAY = datetime(2026, 11, 22, 10, 7, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "due"),
    [
        ("@every 30s", "2026-11-22 10:08:00"),
        ("* * * * *", "2026-11-22 10:08:00"),
        ("*/15 * * * *", "2026-11-22 10:15:00"),
        ("0 9-17/4 * * 1-5", "2026-11-23 09:00:00"),
        ("30 3 1,15 * *", "2026-12-01 03:30:00"),
        ("@daily", "2026-11-23 00:00:00"),
        ("0 0 * * 0", "2026-11-29 00:00:00"),
    ],
)
def test_next_run(line: str, due: str) -> None:
    assert datetime.fromtimestamp(next_after(line, SUNDAY.timestamp()), UTC) == datetime.fromisoformat(
        due + "Z"
    )


@pytest.mark.parametrize("line", ["", "often", "* * * *", "0 0 31 2 *", "@every now"])
def test_a_wrong_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"schedule|duration|never"):
        next_after(line, SUNDAY.timestamp())
