"""Editors know the file as well as the loader does."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gameday.experiment.schema import json_schema, json_schema_text
from tests.experiment.conftest import GOOD

pytestmark = pytest.mark.fast
PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def validator(acme: Path) -> jsonschema.Draft202012Validator:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture
def document() -> Any:
    return copy.deepcopy(yaml.safe_load(GOOD))


def test_a_good_file_fits(validator: jsonschema.Draft202012Validator, document: Any) -> None:
    assert [each.message for each in validator.iter_errors(document)] == []
    document["spec"]["method"].append({"repeat": {"times": "{{ count }}", "steps": [{"wait": "5s"}]}})
    document["spec"]["steadyState"][0] |= {"acmeQuery": {"query": "up"}, "during": "ignore", "match": "any"}
    assert [each.message for each in validator.iter_errors(document)] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("kind",), "Deployment"),
        (("spec", "metod"), []),
        (("spec", "method", 0), {"for": "5s"}),
        (("spec", "method", 0), {"wait": "5s", "acmeBreak": {"nodes": {}}}),
        (("spec", "method", 0), {"acmeBreak": {"nods": {}}}),
        (("spec", "method", 0), {"repeat": {"times": 0, "steps": [{"wait": 1}]}}),
        (("spec", "steadyState"), []),
        (("spec", "blastRadius", "nodes"), -1),
        (("metadata", "name"), "No Name"),
    ],
)
def test_a_wrong_file_does_not(
    validator: jsonschema.Draft202012Validator, document: Any, path: tuple[Any, ...], value: Any
) -> None:
    parent = document
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = value
    assert not validator.is_valid(document)


def test_every_key_is_explained(validator: jsonschema.Draft202012Validator) -> None:
    unexplained = [
        f"{name}.{key}"
        for name, definition in validator.schema["$defs"].items()
        for key, value in definition.get("properties", {}).items()
        if not value.get("description") and "$ref" not in value
    ]
    assert unexplained == []
    assert {"Step", "Repeat", "Probe", "AbortIf"} <= validator.schema["$defs"].keys()


@pytest.mark.usefixtures("library_only")
def test_the_editors_copy_is_in_step() -> None:
    """When this fails: `gameday schema > experiments/experiment.schema.json`."""
    assert (PROJECT / "experiments" / "experiment.schema.json").read_text() == json_schema_text()
    settings = json.loads((PROJECT / ".vscode" / "settings.json").read_text())
    assert "./experiments/experiment.schema.json" in settings["yaml.schemas"]
