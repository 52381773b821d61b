"""Texts inside PromQL: the one place where labels become matchers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from gameday.experiment.names import prometheus_label
from gameday.platform.errors import BadName, ConfigError


def matchers(labels: Mapping[str, str], operator: str = "=") -> str:
    """Labels that must have these values, as PromQL takes them. Raises BadName for a label's name."""
    for label in labels:
        try:
            prometheus_label(label)
        except ValueError as error:
            raise BadName(str(error)) from None
    return ",".join(f"{label}{operator}{quoted(text)}" for label, text in labels.items())


def compiled(text: str) -> Callable[[Mapping[str, str]], bool]:
    """Whether labels match, as Prometheus judges it: regular expressions match whole values, and a label
    that is not there is empty (prometheus.io/docs, "Querying basics"). Raises BadName for other matchers."""
    try:
        import promql_parser
    except ModuleNotFoundError:
        raise ConfigError("matchers of alerts that are evaluated elsewhere need promql-parser") from None
    tests: list[Callable[[Mapping[str, str]], bool]] = []
    try:
        selector = promql_parser.parse(f"ALERTS{{{text}}}")
        if not isinstance(selector, promql_parser.VectorSelector):
            raise ValueError("something comes after them")
        for matcher in selector.matchers.matchers:
            tests.append(_test(repr(matcher.op), matcher.name, matcher.value))
    except (ValueError, re.error) as error:
        raise BadName(f"{{{text}}} are no matchers: {error}") from None
    return lambda labels: all(test(labels) for test in tests)


def _test(operator: str, name: str, value: str) -> Callable[[Mapping[str, str]], bool]:
    wanted = operator in ("MatchOp.Equal", "MatchOp.Re")
    if operator in ("MatchOp.Equal", "MatchOp.NotEqual"):
        return lambda labels: (labels.get(name, "") == value) == wanted
    pattern = re.compile(value)
    return lambda labels: bool(pattern.fullmatch(labels.get(name, ""))) == wanted


def quoted(text: str) -> str:
    """A text in PromQL, whose quoting is Go's: JSON's, but for characters beyond 16 bits."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f")
