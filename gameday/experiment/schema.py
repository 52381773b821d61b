"""The JSON Schema of the experiment file, so that editors complete and explain it while it is written."""

from __future__ import annotations

import json
from typing import Any

from gameday.experiment.concrete import experiment_model

Schema = dict[str, Any]
_ABOUT = ("title", "description", "default", "examples", "deprecated")
_TEMPLATE: Schema = {"type": "string", "pattern": r"\{\{.*\}\}", "title": "Template"}


def json_schema() -> Schema:
    """JSON Schema 2020-12, with every fault and probe that is installed and can be used."""
    model = experiment_model()
    raw = model.model_json_schema(by_alias=True)
    definitions = {name: _tidy(each) for name, each in raw.pop("$defs").items()}
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gameday experiment",
        "description": raw["description"],
        "type": "object",
        "properties": {name: _untitled(_tidy(each)) for name, each in raw["properties"].items()},
        "required": raw["required"],
        "additionalProperties": False,
        "$defs": definitions,
    }
    # What the file is can't come from a variable.
    whole["properties"] |= {name: _untitled(raw["properties"][name]) for name in ("apiVersion", "kind")}
    return whole


def json_schema_text() -> str:
    """The same as the text of a file."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _tidy(schema: Any) -> Any:
    """Without null (a key is there or not) and made-up titles; with templates where they may stand."""
    if not isinstance(schema, dict):
        return schema
    tidied = {key: value for key, value in schema.items() if key != "default" or value not in (None, "")}
    if "properties" in tidied:
        tidied["properties"] = {name: _untitled(_tidy(each)) for name, each in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in tidied:
            tidied[key] = _tidy(schema[key])
    if "anyOf" in tidied:
        choices = [_tidy(each) for each in schema["anyOf"] if each != {"type": "null"}]
        del tidied["anyOf"]
        tidied |= choices[0] | tidied if len(choices) == 1 else {"anyOf": choices}
    return _or_template(tidied)


def _untitled(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "title"}


def _or_template(schema: Schema) -> Schema:
    """A value that is not free text may also be written as `{{ name }}`."""
    types = schema.get("type", [])
    strict = types in ("integer", "number", "boolean") or {"pattern", "enum", "const"} & schema.keys()
    if not strict or ("string" in types and isinstance(types, list)):
        return schema
    about = {key: schema[key] for key in _ABOUT if key in schema}
    return about | {
        "anyOf": [{key: value for key, value in schema.items() if key not in about}, dict(_TEMPLATE)]
    }
