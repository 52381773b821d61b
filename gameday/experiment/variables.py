"""Variables: where their values come from, and how they get into the file's values.

Rendering comes after parsing and goes value by value, so what a variable holds can never change the
structure of an experiment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

from gameday.experiment.problems import InvalidExperiment, Path, Problem, did_you_mean
from gameday.experiment.source import read
from gameday.experiment.text import describe, scalar_text
from gameday.experiment.tree import Scalar, Tree, number, parse
from gameday.masking import TooShort, keep_secret, names_secret

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


@dataclass(frozen=True)
class Variables:
    """Every declared variable. `declared` is as the document is to show it: of a secret, where it is."""

    values: dict[str, Scalar]
    declared: dict[str, Any]

    @property
    def plain(self) -> dict[str, Scalar]:
        """The variables that are no secrets."""
        return {
            name: value for name, value in self.values.items() if not isinstance(self.declared[name], dict)
        }


def resolve(
    tree: Tree, overrides: Mapping[str, Any], values_file: FilePath | None, *, secrets: bool = True
) -> Variables:
    """The value of every declared variable: from the file, then the values file, then `--set`.

    `secrets`: those that are nowhere are a problem; else *** stands for them.
    """
    found = _declared(tree)
    declared: dict[str, Any] = {n: v if not isinstance(v, dict) else _place(v) for n, v in found.items()}
    values = {n: _secret(tree, n, v, secrets) if isinstance(v, dict) else v for n, v in found.items()}
    given = {} if values_file is None else _from_file(tree, values_file, found)
    for name, value in overrides.items():
        if wrong := _wrong_override(name, value, found):
            tree.problems.append(Problem("--set", 0, 0, str(name), *wrong))
        else:
            given[name] = value
    tree.problems += [Problem("--set", 0, 0, name, why) for name, why in kept_by_name(given)]
    return Variables(values | given, declared | given)


def kept_by_name(given: Mapping[str, Scalar]) -> Iterator[tuple[str, str]]:
    """Mask the values of variables that are named as secrets are; which of them can't be, and why."""
    for name, value in given.items():
        if names_secret(name) and not isinstance(value, bool):
            try:
                keep_secret(name, str(value))
            except TooShort as short:
                yield name, f"{short}; if it is no secret, call it something else"


def warnings(overrides: Mapping[str, Any]) -> list[str]:
    """What is to be said of secrets on the command line."""
    return [
        f"a secret on the command line (--set {name}) is seen by all who may list processes, and stays in "
        f"the shell's history; declare it as `{name}: {{secretFrom: {{env: {name.upper()}}}}}`"
        for name in overrides
        if names_secret(name)
    ]


def _secret(tree: Tree, name: str, declared: dict[str, Any], needed: bool) -> str:
    from gameday.experiment.secret import read_secret

    return read_secret(tree, (*DECLARED, name), declared, needed=needed)


def _place(declared: dict[str, Any]) -> dict[str, Any]:
    """What the document shows of a secret; a wrong one, told of already, as if it were right."""
    found = declared.get("secretFrom")
    for place in ("env", "file"):
        if isinstance(found, dict) and isinstance(found.get(place), str) and len(found) == 1:
            return {"secretFrom": found}
    return {"secretFrom": {"env": "UNKNOWN"}}


def _declared(tree: Tree) -> dict[str, Any]:
    spec = tree.data.get("spec")
    found = spec.get("variables") if isinstance(spec, dict) else None
    values = found if isinstance(found, dict) else {}
    for name, value in values.items():
        if not _NAME.fullmatch(name) or name in _RESERVED:
            message = "is no name for a variable; expected letters, digits and `_`, not starting with a digit"
            tree.report((*DECLARED, name), message, at_key=True)
        elif not isinstance(value, dict) and (wrong := _wrong_value(value)):
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
    if isinstance(declared[name], dict):
        return "a secret is not set here: its value comes from where the file says", _hint(declared[name])
    message = _wrong_value(value)
    return (message, None) if message else None


def _hint(declared: dict[str, Any]) -> str | None:
    place = declared.get("secretFrom")
    return " ".join(f"{k} {v}" for k, v in place.items()) if isinstance(place, dict) else None


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


def render(tree: Tree, variables: Variables) -> dict[str, Any]:
    """The document with every value rendered; what can't be is reported at its place and left as it is."""
    return dict(_Renderer(tree, variables).walk(tree.data, ()))


class _Renderer:
    def __init__(self, tree: Tree, variables: Variables) -> None:
        self.tree, self.variables, self.declared = tree, variables.values, variables.declared
        self.secrets = [v for n, v in variables.values.items() if n not in variables.plain]
        self.templates = self.length = 0

    def walk(self, value: Any, path: Path) -> Any:
        if path == DECLARED:
            return dict(self.declared) if isinstance(value, dict) else value
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
        if path[0] == "metadata" and any(str(secret) in str(value) for secret in self.secrets):
            self.tree.report(path, "a secret can't be part of what names a run")
        self.length += len(str(value))
        if self.length > MOST_TEXT:
            self.tree.report(path, "the templates of this file give too much text")
        return value


def written_at(text: str, variables: Mapping[str, Scalar], offset: int) -> int:
    """Where in a text the character at `offset` of its rendering is written: itself, or a `{{ name }}`.

    0 where expressions make that unclear.
    """
    if _TEMPLATE_MARK.search(_PLAIN.sub("", text)):
        return 0
    shift = 0  # how much longer the rendering is up to here
    for match in _PLAIN.finditer(text):
        value = scalar_text(variables.get(match[1], ""))
        if offset < match.start() + shift:
            break
        if offset < match.start() + shift + len(value):
            return match.start()
        shift += len(value) - len(match[0])
    return max(offset - shift, 0)


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
