"""Prometheus' text format, as Prometheus reads it."""

from __future__ import annotations

import pytest

from gameday.sandbox.fleet.exposition import Family, text_of

pytestmark = pytest.mark.fast


def test_a_page() -> None:
    counter = Family("requests_total", "counter", "Requests.").add(3, code="200").add(0.5, code='5"\\\n')
    histogram = Family("seconds", "histogram", "Times.")
    histogram.histogram([0.1, 1], [1, 2, 4], 7.25)
    assert text_of([counter, histogram]).splitlines() == [
        "# HELP requests_total Requests.",
        "# TYPE requests_total counter",
        'requests_total{code="200"} 3',
        'requests_total{code="5\\"\\\\\\n"} 0.5',
        "# HELP seconds Times.",
        "# TYPE seconds histogram",
        'seconds_bucket{le="0.1"} 1',
        'seconds_bucket{le="1"} 2',
        'seconds_bucket{le="+Inf"} 4',
        "seconds_sum 7.25",
        "seconds_count 4",
    ]
