"""A pod that was killed and does not go is named with what keeps it."""

from __future__ import annotations

from typing import Any

import pytest

from gameday.faults.pod_kill import _fate

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("meta", "spec", "words"),
    [
        (
            {"finalizers": ["example.com/hold"], "deletionGracePeriodSeconds": 0},
            {},
            "(finalizer example.com/hold)",
        ),
        ({"deletionGracePeriodSeconds": 600}, {"terminationGracePeriodSeconds": 30}, "(600 s to end in)"),
        ({"deletionGracePeriodSeconds": 0}, {"terminationGracePeriodSeconds": 30}, "still ends"),
    ],
)
def test_what_keeps_it(meta: dict[str, Any], spec: dict[str, Any], words: str) -> None:
    assert _fate({"metadata": meta, "spec": spec}).endswith(words)


def test_a_pod_that_went() -> None:
    assert _fate(None) == "is gone"
