"""What the sandbox's controllers hold of the API, whatever order watches and answers come in."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gameday.platform.objects import Object
from gameday.sandbox.cache import Cache

pytestmark = pytest.mark.fast
KEY = ("default", "worker")


@pytest.fixture
def cache() -> Cache:
    return Cache(cast(Any, None))  # nothing here asks an API


def pod(uid: str, version: int) -> Object:
    meta = {"name": "worker", "namespace": "default", "uid": uid, "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": "gpu-7"}}


def test_an_answer_after_the_end_of_its_pod_brings_no_ghost(cache: Cache) -> None:
    """A ghost would hold its node's GPUs for ever: no watch speaks of it again."""
    cache.put(pod("first", 1))
    assert cache.pods_on("gpu-7")
    cache.drop(pod("first", 3))
    cache.put(pod("first", 2))
    assert cache.get("Pod", KEY) is None
    assert cache.pods_on("gpu-7") == []


def test_an_end_that_is_seen_before_its_pod_counts_too(cache: Cache) -> None:
    cache.drop(pod("first", 2))
    cache.put(pod("first", 1))
    assert cache.all("Pod") == []
    cache.put(pod("second", 3))
    assert [p["metadata"]["uid"] for p in cache.all("Pod")] == ["second"]


def test_the_next_pod_of_that_name_is_taken_in(cache: Cache) -> None:
    cache.put(pod("first", 1))
    cache.drop(pod("first", 2))
    cache.put(pod("second", 3))
    cache.drop(pod("first", 2))
    cache.put(pod("first", 1))
    assert [p["metadata"]["uid"] for p in cache.pods_on("gpu-7")] == ["second"]
