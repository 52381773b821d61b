"""Values in sentences: as JSON and YAML have them, never as Python does."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from gameday.cli.app import app
from gameday.experiment.text import plain
from gameday.ledger.edits import Edit

pytestmark = pytest.mark.fast
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(VALUES.filter(lambda value: value is not None and not isinstance(value, str)))
def test_a_value_is_said_as_json_has_it(value: Any) -> None:
    assert json.loads(plain(value)) == value


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (None, True, "unset → true"),
        (0.0, "", '0 → ""'),
        (["a"], {"b": [None, False]}, '["a"] → {"b": [null, false]}'),
        ("True", "a 'text'", "True → a 'text'"),
    ],
)
def test_a_change_is_said_so(before: Any, after: Any, words: str) -> None:
    assert str(Edit(("spec", "x"), after, before)) == f"spec.x: {words}"


@pytest.mark.parametrize("command", ["faults", "probes"])
def test_defaults_are_said_so(command: str) -> None:
    said = CliRunner().invoke(app, [command]).output
    defaults = re.findall(r" default (.*?)(?:  |$)", said, re.MULTILINE)
    assert "false" in defaults
    assert [text for text in defaults if re.search(r"\b(True|False|None|0\.0)\b|'", text)] == []
