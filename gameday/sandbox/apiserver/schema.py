"""Structural schemas: unknown fields dropped or refused; for custom resources defaults and validation too."""

from __future__ import annotations

import json
import re
from typing import Any

from gameday.sandbox.apiserver import knownfields
from gameday.sandbox.apiserver.resources import Resource
from gameday.sandbox.apiserver.status import Cause, bad_request, invalid

Json = dict[str, Any]
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
_ALWAYS_KNOWN = {"apiVersion", "kind", "metadata"}


def conform(resource: Resource, obj: Json, *, strict: bool) -> list[str]:
    """Make an object fit its kind's schema, in place; answers the unknown fields that were dropped.

    Raises 400 for unknown fields when `strict`, and for custom resources 422 for values that the schema
    does not allow.
    """
    schema = resource.schema or knownfields.schema_of(resource)
    if schema is None:
        return []
    unknown: list[str] = []
    _prune(obj, schema, "", unknown, root=True)
    unknown.sort()
    if unknown and strict:
        listed = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
            f"strict decoding error: {listed}"
        )
    if resource.schema is None:
        return unknown
    _default(obj, resource.schema)
    causes: list[Cause] = []
    _validate(obj, resource.schema, "", causes)
    if causes:
        raise invalid(resource, obj["metadata"].get("name", ""), causes)
    return unknown


def _prune(value: Any, schema: Json, path: str, unknown: list[str], *, root: bool = False) -> None:
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for index, item in enumerate(value):
                _prune(item, items, f"{path}[{index}]", unknown)
    elif isinstance(value, dict):
        properties = schema.get("properties") or {}
        rest = schema.get("additionalProperties")
        keeps = schema.get("x-kubernetes-preserve-unknown-fields") or rest is True
        embedded = root or schema.get("x-kubernetes-embedded-resource")
        for key in list(value):
            inner = f"{path}.{key}" if path else key
            if embedded and key in _ALWAYS_KNOWN:
                if key == "metadata":
                    _prune(value[key], knownfields.METADATA, inner, unknown)
                continue
            if key in properties:
                _prune(value[key], properties[key], inner, unknown)
            elif isinstance(rest, dict):
                _prune(value[key], rest, inner, unknown)
            elif not keeps:
                unknown.append(inner)
                del value[key]


def _default(value: Any, schema: Json) -> None:
    if isinstance(value, list):
        for item in value:
            _default(item, schema.get("items") or {})
    elif isinstance(value, dict):
        properties = schema.get("properties") or {}
        for key, inner in properties.items():
            if key not in value and "default" in inner:
                value[key] = json.loads(json.dumps(inner["default"]))
            if value.get(key) is None and key in value and not inner.get("nullable"):
                del value[key]
                if "default" in inner:
                    value[key] = json.loads(json.dumps(inner["default"]))
            if key in value:
                _default(value[key], inner)
        rest = schema.get("additionalProperties")
        if isinstance(rest, dict):
            for key in value.keys() - properties.keys():
                _default(value[key], rest)


def _validate(value: Any, schema: Json, path: str, causes: list[Cause]) -> None:
    if value is None and schema.get("nullable"):
        return
    if not _has_type(value, schema):
        wanted, found = schema.get("type", "integer,string"), json.dumps(_kind(value))
        message = f"Invalid value: {found}: {path} in body must be of type {wanted}: {found}"
        causes.append(("FieldValueTypeInvalid", message, path))
        return
    if "enum" in schema and value not in schema["enum"]:
        allowed = ", ".join(json.dumps(e) for e in schema["enum"])
        message = f"Unsupported value: {json.dumps(value)}: supported values: {allowed}"
        causes.append(("FieldValueNotSupported", message, path))
    problem = _limits(value, schema)
    if problem:
        message = f"Invalid value: {json.dumps(value)}: {path} in body {problem}"
        causes.append(("FieldValueInvalid", message, path))
    if isinstance(value, dict):
        _validate_object(value, schema, path, causes)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _validate(item, schema.get("items") or {}, f"{path}[{index}]", causes)
    _validate_logic(value, schema, path, causes)


def _validate_object(value: Json, schema: Json, path: str, causes: list[Cause]) -> None:
    for key in schema.get("required") or ():
        if key not in value:
            causes.append(("FieldValueRequired", "Required value", f"{path}.{key}" if path else key))
    properties = schema.get("properties") or {}
    rest = schema.get("additionalProperties")
    for key, item in value.items():
        inner = properties.get(key) or (rest if isinstance(rest, dict) else None)
        if inner and not (path == "" and key == "metadata"):
            _validate(item, inner, f"{path}.{key}" if path else key, causes)


def _validate_logic(value: Any, schema: Json, path: str, causes: list[Cause]) -> None:
    def holds(inner: Json) -> bool:
        found: list[Cause] = []
        _validate(value, inner, path, found)
        return not found

    for inner in schema.get("allOf") or ():
        _validate(value, inner, path, causes)
    if schema.get("anyOf") and not any(holds(s) for s in schema["anyOf"]):
        causes.append(
            (
                "FieldValueInvalid",
                f'Invalid value: "": "{path}" must validate at least one schema (anyOf)',
                path,
            )
        )
    if schema.get("oneOf") and sum(holds(s) for s in schema["oneOf"]) != 1:
        causes.append(
            (
                "FieldValueInvalid",
                f'Invalid value: "": "{path}" must validate one and only one schema (oneOf)',
                path,
            )
        )
    if schema.get("not") and holds(schema["not"]):
        causes.append(
            ("FieldValueInvalid", f'Invalid value: "": "{path}" must not validate the schema (not)', path)
        )


def _has_type(value: Any, schema: Json) -> bool:
    if schema.get("x-kubernetes-int-or-string"):
        return isinstance(value, int | str) and not isinstance(value, bool)
    wanted = schema.get("type")
    if not wanted or wanted not in _TYPES:
        return True
    if isinstance(value, bool):
        return bool(wanted == "boolean")
    if wanted == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[wanted])


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return next(k for k, types in _TYPES.items() if type(value) in types)


def _limits(value: Any, schema: Json) -> str:
    """What is wrong with a value's size or form; "" when nothing is."""
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            return f"should be at least {schema['minLength']} chars long"
        if len(value) > schema.get("maxLength", len(value)):
            return f"should be at most {schema['maxLength']} chars long"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return f"should match '{schema['pattern']}'"
    elif isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            return f"should have at least {schema['minItems']} items"
        if len(value) > schema.get("maxItems", len(value)):
            return f"should have at most {schema['maxItems']} items"
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            return f"should be greater than or equal to {schema['minimum']}"
        if value > schema.get("maximum", value):
            return f"should be less than or equal to {schema['maximum']}"
    return ""
