"""What a lever says, whoever wrote it: understood, or refused in words; never guessed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameday.safety.lever import Lever, Malformed

pytestmark = pytest.mark.fast

NOON = datetime(2027, 1, 31, 12, tzinfo=UTC)


def read(**data: Any) -> Lever:
    return Lever.of({"data": {k: v if isinstance(v, str) else json.dumps(v) for k, v in data.items()}})


def test_no_lever_and_an_empty_one_stop_nobody() -> None:
    for lever in (Lever.of(None), Lever.of({}), read(), read(freeze=[])):
        assert lever.pulled(NOON) == ""


def test_a_halt_lasts_until_its_end() -> None:
    lever = read(halt={"reason": "incident", "by": "mo", "until": "2027-01-31T13:30:00+01:00"})
    assert lever.pulled(NOON) == "halted by mo until 2027-01-31T13:30+01:00: incident"
    assert lever.pulled(NOON + timedelta(minutes=30)) == ""
    assert read(halt={}).pulled(NOON + timedelta(days=3650)) == "halted"


def test_a_freeze_window_begins_and_ends_on_time() -> None:
    lever = read(
        freeze=[
            {"from": "2027-01-31T14:00:00Z", "to": "2027-01-31T15:00:00Z"},
            {"from": "2027-01-31T12:00:00Z", "to": "2027-01-31T13:00:00Z", "reason": "release"},
        ]
    )
    assert lever.pulled(NOON - timedelta(seconds=1)) == ""
    assert "release" in lever.pulled(NOON)
    assert lever.pulled(NOON + timedelta(hours=1)) == ""
    assert lever.soon(NOON - timedelta(seconds=10), 5) is None
    assert "release" in str(lever.soon(NOON - timedelta(seconds=10), 60))
    assert "14:00" in str(lever.soon(NOON, 3 * 3600))


@pytest.mark.parametrize(
    "data",
    [
        {"halt": ""},
        {"halt": "null"},
        {"halt": "true"},
        {"halt": {"untl": "2027-01-31T13:00:00Z"}},
        {"halt": {"until": "2027-01-31T13:00:00"}},
        {"freeze": {"from": "2027-01-31T12:00:00Z", "to": "2027-01-31T13:00:00Z"}},
        {"freeze": [{"from": "2027-01-31T13:00:00Z", "to": "2027-01-31T12:00:00Z"}]},
        {"freeze": [{"from": "2027-01-31T13:00:00Z"}]},
        {"Halt": {}},
    ],
    ids=str,
)
def test_what_is_not_understood_is_refused_and_says_what_to_do(data: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match="kubectl -n gameday delete configmap gameday-lever"):
        read(**data)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["halt", "freeze", "reason"])


@given(st.dictionaries(KEYS, JSON.map(json.dumps) | st.text(max_size=50), max_size=3))
def test_any_text_is_a_lever_or_malformed(data: dict[str, str]) -> None:
    try:
        lever = Lever.of({"data": data})
    except Malformed:
        return
    assert not data.keys() - {"halt", "freeze"}
    assert bool(lever.pulled(NOON)) <= bool(data)
