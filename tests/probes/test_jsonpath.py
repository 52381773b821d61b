"""Paths as kubectl reads them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameday.platform.errors import PlatformError
from gameday.probes import jsonpath

POD = {
    "metadata": {"labels": {"app.kubernetes.io/name": "web", "a-b": "c"}},
    "status": {
        "phase": "Running",
        "readyReplicas": 3,
        "parent": "word of the library's own",
        "conditions": [
            {"type": "Ready", "status": "True", "n": 3},
            {"type": "gpu.io/Healthy", "status": "False", "n": 1},
        ],
        "capacity": {"nvidia.com/gpu": "8"},
    },
    "items": [1, 2, 3],
}


@pytest.mark.fast
@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("{.status.readyReplicas}", [3]),
        (".status.phase", ["Running"]),
        ("status.phase", ["Running"]),
        ("{$.status.phase}", ["Running"]),
        ('{.status.conditions[?(@.type=="Ready")].status}', ["True"]),
        ("{.status.conditions[?(@.type=='gpu.io/Healthy')].status}", ["False"]),
        ("{.status.conditions[?(@.n>=2)].type}", ["Ready"]),
        ("{.status.conditions[*].n}", [3, 1]),
        (r"{.metadata.labels.app\.kubernetes\.io/name}", ["web"]),
        ("{.metadata.labels['app.kubernetes.io/name']}", ["web"]),
        ("{.metadata.labels.a-b}", ["c"]),
        (r"{.status.capacity.nvidia\.com/gpu}", ["8"]),
        ("{.status.parent}", ["word of the library's own"]),
        ("{..type}", ["Ready", "gpu.io/Healthy"]),
        ("{.items[0]}", [1]),
        ("{.items[-1]}", [3]),
        ("{.items[0:2]}", [1, 2]),
        ("{.items[0,2]}", [1, 3]),
        ("{.status['phase','readyReplicas']}", ["Running", 3]),
        ("{.nothing.here}", []),
    ],
)
def test_found(path: str, found: list[Any]) -> None:
    assert jsonpath.find(path, POD, "the pod") == found


@pytest.mark.fast
@pytest.mark.parametrize(
    "path", ["", "{", "{}", "{.}", "{.a[}", "]", "{.a} {.b}", "{range .items[*]}{.a}{end}", "{.a..}"]
)
def test_wrong(path: str) -> None:
    with pytest.raises(ValueError, match="`"):
        jsonpath.check(path)


@pytest.mark.fast
def test_not_one_value() -> None:
    with pytest.raises(PlatformError, match="leads to a list in the pod"):
        jsonpath.find("{.items}", POD, "the pod")


FIELD = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="._/-"), min_size=1)


@pytest.mark.fast
@given(st.lists(FIELD, min_size=1, max_size=5), st.integers() | st.booleans() | st.text())
def test_any_field_can_be_named(fields: list[str], value: Any) -> None:
    document = value
    for field in reversed(fields):
        document = {field: document}
    escaped = "".join("." + re.sub(r"\.", r"\\.", field) for field in fields)
    assert jsonpath.find(f"{{{escaped}}}", document, "it") == [value]
    quoted = "".join(f"['{field}']" for field in fields)
    assert jsonpath.find(f"{{{quoted}}}", document, "it") == [value]


@pytest.mark.fast
@pytest.mark.filterwarnings("ignore:.*deprecated")  # operators of the library's own
@given(st.text())
def test_any_text_is_a_path_or_a_mistake(text: str) -> None:
    try:
        jsonpath.check(text)
    except ValueError:
        return
    try:
        jsonpath.find(text, POD, "it")
    except PlatformError:
        return
