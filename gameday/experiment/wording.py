"""Pydantic's findings in the words of the file's author, with the keys that would have been right."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import BaseModel

from gameday.experiment import registry
from gameday.experiment.model import Keyed, Step
from gameday.experiment.problems import Path, did_you_mean
from gameday.experiment.structure import group_of
from gameday.experiment.text import describe, shorten
from gameday.experiment.tree import Tree, is_loose_boolean, loose_boolean

Context = Mapping[str, Any]
_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of bearable size",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS: dict[str, Callable[[Context], str]] = {
    "greater_than": lambda ctx: f"more than {ctx['gt']}",
    "greater_than_equal": lambda ctx: f"at least {ctx['ge']}",
    "less_than": lambda ctx: f"less than {ctx['lt']}",
    "less_than_equal": lambda ctx: f"at most {ctx['le']}",
    "too_short": lambda ctx: f"at least {ctx['min_length']} in the list",
    "too_long": lambda ctx: f"at most {ctx['max_length']} in the list",
    "string_too_short": lambda ctx: f"at least {ctx['min_length']} characters",
    "string_too_long": lambda ctx: f"at most {ctx['max_length']} characters",
    "string_pattern_mismatch": lambda ctx: f"text of the form {ctx['pattern']}",
}


def report(tree: Tree, model: type[BaseModel], error: Mapping[str, Any]) -> None:
    """Put one of pydantic's errors into the tree's problems."""
    kind, context, found = error["type"], error.get("ctx", {}), error["input"]
    path: Path = tuple(error["loc"])
    # Pydantic also names what is not in the file: the choices of a union, a shorthand's key.
    path = (*tree.known(path[:-1]), path[-1]) if kind == "missing" else tree.known(path)
    if kind == "missing":
        tree.report(path, f"is missing; expected {_about(model, path)}", at_key=True)
    elif kind == "extra_forbidden":
        tree.report(path, *_unknown(model_at(model, path[:-1]), str(path[-1])), at_key=True)
    elif kind == "literal_error":
        hint = did_you_mean(
            str(found), context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        )
        tree.report(
            path, f"expected {context['expected'].replace(chr(39), '`')}, found {describe(found)}", hint
        )
    elif kind == "promql":
        hint = "or is it MetricsQL? see spec.target.prometheus.metricsQL"
        tree.report_within(path, context["offset"], error["msg"], hint)
    else:
        tree.report(path, _message(tree, path, error))


def _message(tree: Tree, path: Path, error: Mapping[str, Any]) -> str:
    kind, found = error["type"], error["input"]
    written = tree.written(path)
    if isinstance(found, bool) and written and is_loose_boolean(written):
        return loose_boolean(written)
    if kind in _EXPECTED:
        quote = "; put it in quotes" if kind == "string_type" and isinstance(found, int | float) else ""
        return f"expected {_EXPECTED[kind]}, found {describe(found)}{quote}"
    if kind in _BOUNDS:
        size = f"{len(found)}" if kind in ("too_short", "too_long") else describe(found)
        return f"expected {_BOUNDS[kind](error['ctx'])}, found {size}"
    return shorten(str(error.get("ctx", {}).get("error") or error["msg"]), 600)


def _unknown(owner: type[BaseModel] | None, key: str) -> tuple[str, str | None]:
    if owner is None:
        return "unknown key", None
    keys = [field.alias or name for name, field in owner.model_fields.items()]
    if not issubclass(owner, Keyed):
        return f"unknown key; expected {_listed(keys)}", did_you_mean(key, keys)
    known = sorted(owner.keys.union(registry.names(group_of(owner))))
    others = [each for each in keys if each not in known]
    what = (
        "neither a fault nor a key of a step"
        if issubclass(owner, Step)
        else "neither a probe nor a key of one"
    )
    return f"`{shorten(key)}` is {what}; expected {_listed(known)}, and {_listed(others)}", did_you_mean(
        key, known + others
    )


def _listed(words: list[str]) -> str:
    return ", ".join(words) if len(words) != 1 else f"only {words[0]}" if words else "nothing"


def _about(model: type[BaseModel], path: Path) -> str:
    """What a missing key is for, from its own description."""
    owner = model_at(model, path[:-1])
    if owner is None:
        return "a value"
    for name, field in owner.model_fields.items():
        if path[-1] in (field.alias, name):
            inner = _innermost(field.annotation, owner)
            is_model = isinstance(inner, type) and issubclass(inner, BaseModel)
            literals = ", ".join(f"`{value}`" for value in get_args(field.annotation))
            return _sentence(field.description or (inner.__doc__ if is_model else literals) or "")
    return "a value"


def _sentence(text: str) -> str:
    first = re.split(r"\.\s|\n", text.strip())[0].rstrip(".")
    return first[:1].lower() + first[1:] if first else "a value"


def model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The model that a place in the document is checked by, if it is one."""
    here: Any = model
    for part in path:
        if isinstance(part, int):
            here = _element(here)
        elif isinstance(here, type) and issubclass(here, BaseModel):
            owner = here
            fields = (field for name, field in owner.model_fields.items() if part in (field.alias, name))
            here = next((_innermost(field.annotation, owner) for field in fields), None)
    return here if isinstance(here, type) and issubclass(here, BaseModel) else None


def _element(annotation: Any) -> Any:
    return annotation[0] if isinstance(annotation, tuple) else None


def _innermost(annotation: Any, owner: type[BaseModel]) -> Any:
    """Without Annotated and None; a list becomes a tuple of its element, and can't pass for a model."""
    if annotation is Self:
        return owner
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _innermost(args[0], owner)
    if origin in (Union, types.UnionType):
        inner = [_innermost(each, owner) for each in args if each is not type(None)]
        return inner[0] if inner else None
    if origin in (list, tuple) and args:
        return (_innermost(args[0], owner),)
    return annotation
