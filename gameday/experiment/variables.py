"""Variables: where their values come from, and how they get into the file's values.

Rendering comes after parsing and goes value by value, so what a variable holds can never change the
structure of an experiment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from gameday.experiment.problems import InvalidExperiment, Path, Problem, did_you_mean
from gameday.experiment.source import read
from gameday.experiment.text import describe, scalar_text
from gameday.experiment.tree import Tree, number, parse

Scalar = str | int | float | bool

DECLARED: Path = ("spec", "variables")
LONGEST_VALUE = 8_192
LONGEST_RESULT = 65_536
MOST_TEMPLATES = 2_000
MOST_TEXT = 4 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Words of jinja2's expressions.
_RESERVED = frozenset(
    ["and", "else", "false", "False", "if", "in", "is", "none", "None", "not", "or", "true", "True", "self"]
)
_PLAIN = re.compile(r"(?<!\{)\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}(?!\})")
_TEMPLATE_MARK = re.compile(r"\{\{|\{%|\{#")


def assignment(text: str) -> tuple[str, Scalar]:
    """`name=value` from the command line, the value read as YAML would. Raises InvalidExperiment."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InvalidExperiment([Problem("--set", 0, 0, "", f"expected name=value, found {describe(text)}")])
    return name.strip(), _scalar(value.strip())


def _scalar(text: str) -> Scalar:
    if text in ("true", "True", "false", "False"):
        return text.lower() == "true"
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return number(text)


def resolve(tree: Tree, overrides: Mapping[str, Any], values_file: FilePath | None) -> dict[str, Scalar]:
    """The value of every declared variable: from the file, then the values file, then `--set`."""
    declared = _declared(tree)
    values = dict(declared)
    if values_file is not None:
        values |= _from_file(tree, values_file, declared)
    for name, value in overrides.items():
        if wrong := _wrong_override(name, value, declared):
            tree.problems.append(Problem("--set", 0, 0, str(name), *wrong))
        else:
            values[name] = value
    return values


def _declared(tree: Tree) -> dict[str, Scalar]:
    spec = tree.data.get("spec")
    found = spec.get("variables") if isinstance(spec, dict) else None
    values = found if isinstance(found, dict) else {}
    for name, value in values.items():
        if not _NAME.fullmatch(name) or name in _RESERVED:
            message = "is no name for a variable; expected letters, digits and `_`, not starting with a digit"
            tree.report((*DECLARED, name), message, at_key=True)
        elif wrong := _wrong_value(value):
            tree.report((*DECLARED, name), wrong)
    return values


def _from_file(tree: Tree, file: FilePath, declared: Mapping[str, Any]) -> dict[str, Scalar]:
    try:
        values = parse(read(file), str(file))
    except InvalidExperiment as invalid:
        tree.problems.extend(invalid.problems)
        return {}
    if not isinstance(values.data, dict):
        values.report((), f"expected `name: value` lines, found {describe(values.data)}")
    else:
        for name, value in values.data.items():
            if wrong := _wrong_override(name, value, declared):
                values.report((name,), *wrong, at_key=True)
    tree.problems.extend(values.problems)
    return {} if values.problems else values.data


def _wrong_override(name: str, value: object, declared: Mapping[str, Any]) -> tuple[str, str | None] | None:
    if name not in declared:
        known = f"expected one of {', '.join(declared)}" if declared else "the experiment declares none"
        return f"no such variable in spec.variables; {known}", did_you_mean(name, declared)
    message = _wrong_value(value)
    return (message, None) if message else None


def _wrong_value(value: object) -> str | None:
    if not isinstance(value, str | int | float | bool):
        return f"expected a text, a number, or true or false, found {describe(value)}"
    if isinstance(value, float) and not math.isfinite(value):
        return "expected a finite number"
    text = str(value)
    if len(text) > LONGEST_VALUE:
        return f"a variable's value has at most {LONGEST_VALUE:,} characters, found {len(text):,}"
    if _TEMPLATE_MARK.search(text):
        return "a variable's value can't use another variable"
    return None


def render(tree: Tree, variables: Mapping[str, Scalar]) -> dict[str, Any]:
    """The document with every value rendered; what can't be is reported at its place and left as it is."""
    return dict(_Renderer(tree, dict(variables)).walk(tree.data, ()))


class _Renderer:
    def __init__(self, tree: Tree, variables: dict[str, Scalar]) -> None:
        self.tree, self.variables = tree, variables
        self.templates = self.length = 0

    def walk(self, value: Any, path: Path) -> Any:
        if path == DECLARED:
            return dict(self.variables) if isinstance(value, dict) else value
        if isinstance(value, dict):
            return {key: self.walk(each, (*path, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [self.walk(each, (*path, index)) for index, each in enumerate(value)]
        return self.text(value, path) if isinstance(value, str) and "{{" in value else value

    def text(self, text: str, path: Path) -> Any:
        if self.templates > MOST_TEMPLATES or self.length > MOST_TEXT:
            self.tree.refused.add(path)  # told already; what follows from it is not worth a line
            return text
        self.templates += 1
        try:
            if self.templates > MOST_TEMPLATES:
                raise ValueError(f"a file has at most {MOST_TEMPLATES:,} templates")
            value = render_text(text, self.variables)
        except ValueError as error:
            self.tree.report(path, str(error))
            return text
        self.length += len(str(value))
        if self.length > MOST_TEXT:
            self.tree.report(path, "the templates of this file give too much text")
        return value


def render_text(text: str, variables: dict[str, Scalar]) -> Scalar:
    """A text that is exactly one expression keeps the type of its value. Raises ValueError."""
    text = text.strip() if text.strip().startswith("{{") and text.strip().endswith("}}") else text
    rest = _PLAIN.sub("", text)
    if _TEMPLATE_MARK.search(rest) or not variables.keys() >= set(_PLAIN.findall(text)):
        from gameday.experiment.templates import render as render_with_jinja

        parts = render_with_jinja(text, variables)
    else:  # names only, as nearly always: the same without importing jinja2
        names = _PLAIN.split(text)
        parts = [variables[each] if index % 2 else each for index, each in enumerate(names)]
    parts = [each for each in parts if each != ""] or [""]
    value = (
        parts[0]
        if len(parts) == 1
        else "".join(part if isinstance(part, str) else scalar_text(part) for part in parts)
    )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the template gives no finite number")
    if len(str(value)) > LONGEST_RESULT:
        raise ValueError(f"the template gives more than {LONGEST_RESULT:,} characters")
    return value
