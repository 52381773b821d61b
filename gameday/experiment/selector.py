"""Kubernetes label selectors, parsed here so that a wrong one is refused before any cluster is asked.

Grammar and meaning are those of k8s.io/apimachinery/pkg/labels: equality (`a=b`, `a==b`, `a!=b`), sets
(`a in (b, c)`, `a notin (b)`), existence (`a`, `!a`), numbers (`a>1`, `a<1`); commas mean *and*.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

LONGEST = 4_000
_TOKEN = re.compile(r"\s*(==|!=|[=!<>(),]|[^\s=!<>(),]+)")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PUNCTUATION = frozenset(["=", "==", "!=", "!", "<", ">", "(", ")", ","])
_OBJECT_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


@dataclass(frozen=True)
class Requirement:
    """One condition on one label. `op` is one of in, notin, exists, !, > and <."""

    key: str
    op: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.op:
            case "in":
                return value in self.values
            case "notin":  # as in Kubernetes, an absent label is not in any set
                return value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        if value is None or not re.fullmatch(r"[+-]?\d+", value, re.ASCII):
            return False
        return int(value) > int(self.values[0]) if self.op == ">" else int(value) < int(self.values[0])

    def __str__(self) -> str:
        match self.op:
            case "in" | "notin" if len(self.values) == 1:
                return f"{self.key}{'=' if self.op == 'in' else '!='}{self.values[0]}"
            case "in" | "notin":
                return f"{self.key} {self.op} ({','.join(self.values)})"
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
        return f"{self.key}{self.op}{self.values[0]}"


@dataclass(frozen=True)
class Selector:
    """All of its requirements must hold; without any it matches everything."""

    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError, with what is wrong and where it is in the text."""
        return cls(tuple(_Parser(text).requirements()))

    @classmethod
    def from_object(cls, selector: Mapping[str, Any] | None) -> Self:
        """From a LabelSelector object (`matchLabels`, `matchExpressions`), as workloads carry it.

        Raises ValueError for an operator that label selectors don't have. Custom resources may carry any,
        such as the `Gt` and `Lt` of node selectors; their controllers refuse it (LabelSelectorAsSelector).
        """
        selector = selector or {}
        labels, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or ()
        return cls(
            (
                *(Requirement(key, "in", (value,)) for key, value in labels.items()),
                *map(_of_object, expressions),
            )
        )

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        return all(requirement.matches(labels or {}) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


def _of_object(expression: Mapping[str, Any]) -> Requirement:
    operator = expression["operator"]
    if operator not in _OBJECT_OPERATORS:
        known = ", ".join(_OBJECT_OPERATORS)
        raise ValueError(f"the operator of a label selector is one of {known}, found {operator!r}")
    return Requirement(expression["key"], _OBJECT_OPERATORS[operator], tuple(expression.get("values") or ()))


class _Parser:
    """Recursive descent over a handful of tokens."""

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise ValueError(f"a label selector has at most {LONGEST:,} characters, found {len(text):,}")
        self.text = text
        self.tokens = [*_TOKEN.findall(text), ""]
        self.at = 0

    @property
    def token(self) -> str:
        return str(self.tokens[self.at])

    def take(self) -> str:
        token = self.token
        self.at += 1
        return token

    def accept(self, *tokens: str) -> str | None:
        return self.take() if self.token in tokens else None

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise self.wrong(f"expected `{token}`")

    def wrong(self, what: str) -> ValueError:
        found = f"`{self.token}`" if self.token else "the end"
        return ValueError(f"the label selector {self.text!r} is wrong: {what}, found {found}")

    def requirements(self) -> list[Requirement]:
        found = [self.requirement()] if self.token else []
        while self.accept(","):
            found.append(self.requirement())
        if self.token:
            raise self.wrong("expected `,` between conditions")
        return found

    def requirement(self) -> Requirement:
        if self.accept("!"):
            return Requirement(self.key(), "!")
        key = self.key()
        match self.accept("=", "==", "!=", "in", "notin", ">", "<"):
            case "=" | "==":
                return Requirement(key, "in", (self.value(),))
            case "!=":
                return Requirement(key, "notin", (self.value(),))
            case "in" | "notin" as op:
                return Requirement(key, op, self.values())
            case ">" | "<" as op:
                return Requirement(key, op, (self.number(),))
        return Requirement(key, "exists")

    def key(self) -> str:
        if not self.token or self.token in _PUNCTUATION:
            raise self.wrong("expected a label's key")
        key = self.take()
        prefix, slash, name = key.rpartition("/")
        if not _NAME.fullmatch(name) or (slash and (len(prefix) > 253 or not _PREFIX.fullmatch(prefix))):
            raise ValueError(f"the label selector {self.text!r} is wrong: `{key}` is not a label key")
        return key

    def values(self) -> tuple[str, ...]:
        self.expect("(")
        if self.token == ")":
            raise self.wrong("expected at least one value in the brackets")
        values = [self.value()]
        while self.accept(","):
            values.append(self.value())
        self.expect(")")
        return tuple(values)

    def value(self) -> str:
        value = "" if not self.token or self.token in (",", ")") else self.take()
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the label selector {self.text!r} is wrong: `{value}` is not a label value")
        return value

    def number(self) -> str:
        value = self.value()
        if not re.fullmatch(r"\d{1,18}", value, re.ASCII):
            raise ValueError(f"the label selector {self.text!r} is wrong: `{value}` is not a whole number")
        return value
