"""Label selectors mean what they mean to Kubernetes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gameday.experiment.selector import Selector

pytestmark = pytest.mark.fast
LABELS = {"app": "web", "tier": "front", "nvidia.com/gpu.present": "true", "size": "8", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web , tier=front", True),
        ("app=web,tier=back", False),
        ("app!=db", True),
        ("missing!=db", True),
        ("app!=web", False),
        ("app", True),
        ("!app", False),
        ("!missing", True),
        ("app in (web, db)", True),
        ("app in(db)", False),
        ("app notin (web)", False),
        ("missing notin (web)", True),
        ("nvidia.com/gpu.present=true", True),
        ("size>7", True),
        ("size<8", False),
        ("app>1", False),
        ("empty=", True),
        ("empty in ()", None),
        ("empty in (,x)", True),
        ("in in (a)", False),
        ("app=web,", None),
        (",", None),
        ("app=web tier=front", None),
        ("app in web", None),
        ("app in (web", None),
        ("=web", None),
        ("app===web", None),
        ("-app=web", None),
        ("app=we b", None),
        ("app=we/b", None),
        ("UPPER.com/x=1", None),
        ("/x=1", None),
        ("a" * 64, None),
        ("app=" + "a" * 64, None),
        ("size>many", None),
    ],
)
def test_matches(text: str, matches: bool | None) -> None:
    if matches is None:
        with pytest.raises(ValueError, match=r"the label selector .* is wrong: "):
            Selector.parse(text)
    else:
        assert Selector.parse(text).matches(LABELS) is matches


def test_from_object() -> None:
    selector = Selector.from_object(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front", "back"]},
                {"key": "missing", "operator": "DoesNotExist"},
            ],
        }
    )
    assert selector.matches(LABELS)
    assert str(selector) == "app=web,tier in (front,back),!missing"
    assert Selector.from_object(None).matches({})


@pytest.mark.parametrize("operator", ["Gt", "Lt", "in", ""])
def test_an_operator_of_something_else_is_refused_in_words(operator: str) -> None:
    expression = {"key": "size", "operator": operator, "values": ["7"]}
    with pytest.raises(ValueError, match=f"In, NotIn, Exists, DoesNotExist, found '{operator}'"):
        Selector.from_object({"matchExpressions": [expression]})


@given(st.text("ab=!<>(), intoexsd/.-1", max_size=30) | st.text())
def test_anything_parses_or_is_refused(text: str) -> None:
    try:
        selector = Selector.parse(text)
    except ValueError:
        return
    assert Selector.parse(str(selector)) == selector
    assert selector.matches(LABELS) in (True, False)
