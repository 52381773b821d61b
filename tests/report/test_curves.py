"""Thinning keeps what a reader looks for: extremes, ends and gaps."""

from __future__ import annotations

import math
from array import array
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameday.report.curves import Gatherer, stretches, thin
from gameday.report.model import Series

pytestmark = pytest.mark.fast
VALUES = st.lists(
    st.one_of(st.floats(-1e9, 1e9), st.just(math.nan)), min_size=1, max_size=400
)  # fmt: skip


def series(values: list[float], step: float = 5) -> Series:
    return Series({}, array("d", [i * step for i in range(len(values))]), array("d", values))


@given(VALUES, st.integers(10, 100))
def test_extremes_and_ends_stay(values: list[float], most: int) -> None:
    kept = [v for _, v in thin(series(values), 5, most) if v is not None]
    real = [v for v in values if v == v]
    assert (min(kept, default=0), max(kept, default=0)) == (min(real, default=0), max(real, default=0))
    assert kept[:1] == real[:1]
    assert kept[-1:] == real[-1:]


@given(st.integers(1, 6000), st.integers(60, 600), st.integers())
def test_few_points_are_left(length: int, most: int, seed: int) -> None:
    random = Random(seed)
    values = [random.random() for _ in range(length)]
    assert len(thin(series(values), 5, most)) <= most + 4


@given(VALUES)
def test_no_line_crosses_a_gap(values: list[float]) -> None:
    drawn = thin(series(values), 5, 1000)
    for (left, a), (right, b) in pairwise(drawn):
        if a is not None and b is not None:
            assert right - left <= 11
            between = values[round(left / 5) : round(right / 5) + 1]
            assert not any(math.isnan(v) for v in between)


def test_a_missing_stretch_splits() -> None:
    times = [0.0, 5, 10, 40, 45]
    one = Series({}, array("d", times), array("d", [1.0] * 5))
    assert list(stretches(one, 5)) == [(0, 3), (3, 5)]


def test_points_come_late_and_twice() -> None:
    gatherer = Gatherer()
    gatherer.add([{"labels": {"a": "b"}, "points": [[10, 1], [20, "NaN"]]}])
    gatherer.add([{"labels": {"a": "b"}, "points": [[0, 3], [10, 2.5], [30, "+Inf"]]}, {"labels": {}}])
    first, _ = gatherer.series()
    assert list(first.times) == [0, 10, 20, 30]
    assert list(first.values[:2]) == [3, 2.5]
    assert all(math.isnan(v) for v in first.values[2:])
