"""The small types the file is made of, so that every model states what it takes in one word."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from gameday.experiment import names
from gameday.experiment.quantity import format_duration, parse_duration
from gameday.experiment.selector import Selector
from gameday.experiment.text import TextValue, describe, scalar_text

DURATION_SCHEMA = {
    "type": ["string", "number"],
    "title": "Duration",
    "examples": ["500ms", "10s", "2m", "1h30m"],
}


def at_least(seconds: float) -> AfterValidator:
    """A lower bound for a Duration, refused in the words of durations."""

    def check(value: float) -> float:
        if value < seconds:
            raise ValueError(f"must be at least {format_duration(seconds)}, found {format_duration(value)}")
        return value

    return AfterValidator(check)


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be longer than 0s")
    return value


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(DURATION_SCHEMA),
]
"""Seconds, zero allowed; in the file `500ms`, `10s`, `1h30m` or a bare number of seconds."""

PositiveDuration = Annotated[Duration, AfterValidator(_positive), WithJsonSchema(DURATION_SCHEMA)]
"""Seconds, more than zero."""


def share(text: str) -> float | None:
    """The ratio of a percentage from 0% to 100%; None for any other text."""
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)\s*%", text, re.ASCII)
    ratio = float(match[1]) / 100 if match else 2.0
    return ratio if ratio <= 1 else None


def _part_of(ratio: float, total: int) -> int:
    return math.floor(ratio * total + 1e-9)  # 29% of 100 is 29, whatever binary fractions say


@dataclass(frozen=True)
class Bound(TextValue):
    """How many of something may be touched: a number, or a share of what is there."""

    text: str
    number: int | None = None
    ratio: float = 0.0

    json_schema: ClassVar = {
        "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\d+(\.\d+)?\s*%?$"}],
        "title": "Bound",
        "examples": [2, "10%"],
    }

    @classmethod
    def parse(cls, value: object) -> Self:
        text = scalar_text(value)
        if re.fullmatch(r"\d{1,9}", text, re.ASCII):
            return cls(text, number=int(text))
        if (ratio := share(text)) is not None:
            return cls(text, ratio=ratio)
        raise ValueError(f"expected a number from 0, or a share from 0% to 100%, found {describe(value)}")

    def limit(self, total: int) -> int:
        """The most that may be touched out of `total`; a share is rounded down."""
        return self.number if self.number is not None else _part_of(self.ratio, total)


def _pick(value: object) -> int | str:
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, str) and (value == "all" or share(value)):
        return value
    raise ValueError(f"expected a number from 1, a share such as 20%, or `all`, found {describe(value)}")


Pick = Annotated[
    int | str,
    PlainValidator(_pick),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^(all|\d+(\.\d+)?\s*%)$"},
            ],
            "examples": [2, "20%", "all"],
        }
    ),
]
"""How many to choose out of what was selected: a number, a percentage, or `all`."""


def picked(pick: int | str, total: int) -> int:
    """How many of `total` a pick means, at most all; a share is at least one if there is any."""
    if isinstance(pick, int):
        return min(pick, total)
    return total if pick == "all" else min(total, max(1, _part_of(share(pick) or 0, total)))


def checked(check: Callable[[str], Any]) -> AfterValidator:
    """Text that must also mean something to `check`, which raises ValueError; the text itself is kept."""

    def run(text: str) -> str:
        check(text)
        return text

    run.__name__ = check.__name__  # by which a test finds the fields that nobody checks
    return AfterValidator(run)


def _not_blank(text: str) -> None:
    if not text.strip():
        raise ValueError("must not be empty")


def _regex(text: str) -> None:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None


def _selects_something(text: str) -> None:
    if not Selector.parse(text).requirements:
        raise ValueError("an empty selector would select everything; name at least one label")


Text = Annotated[str, checked(_not_blank)]
Regex = Annotated[
    str, checked(_not_blank), checked(_regex), WithJsonSchema({"type": "string", "format": "regex"})
]
CHECK_QUERIES = "promql"  # the key of a validation's context that has queries checked, not only their type


def _query(check: str) -> AfterValidator:
    """A text in Prometheus' language, where the file that it is from is checked and says nothing else."""

    def run(text: str, info: ValidationInfo) -> str:
        if (info.context or {}).get(CHECK_QUERIES):
            from gameday.experiment import promql

            if wrong := getattr(promql, check)(text):
                about = {"message": wrong.message, "offset": wrong.offset}
                raise PydanticCustomError("promql", "is no PromQL: {message}", about)
        return text

    return AfterValidator(run)


PromQL = Annotated[
    str,
    checked(_not_blank),
    _query("mistake"),
    WithJsonSchema({"type": "string", "title": "PromQL", "examples": ['sum(up{job="inference"})']}),
]
AlertMatchers = Annotated[str, checked(_not_blank), _query("matchers_mistake")]
"""Matchers of alerts' labels, as `severity="critical"`."""

LabelSelector = Annotated[
    str,
    checked(_selects_something),
    WithJsonSchema(
        {"type": "string", "title": "Label selector", "examples": ["app=trainer", "a in (b, c),!d"]}
    ),
]
"""The text of a Kubernetes label selector; `Selector.parse(text).matches(labels)` applies it."""

DNSLabel = Annotated[
    str,
    checked(names.dns_label),
    WithJsonSchema({"type": "string", "pattern": names.DNS_LABEL, "maxLength": names.LONGEST_LABEL}),
]
"""A Kubernetes object name of the strict sort: namespaces, containers, experiments."""

ObjectName = Annotated[
    str,
    checked(names.dns_subdomain),
    WithJsonSchema({"type": "string", "pattern": names.DNS_SUBDOMAIN, "maxLength": names.LONGEST_SUBDOMAIN}),
]
"""A Kubernetes object name such as a node's."""

CLUSTER_SCOPED = r"^[A-Z][A-Za-z]{0,62}/[^/\s]{1,253}$"
IN_NAMESPACE = r"^[a-z0-9][-a-z0-9]{0,62}/[a-z0-9][-a-z0-9.]{0,252}$"


def _form(pattern: str, words: str) -> Callable[[str], None]:
    def check(text: str) -> None:
        if not re.fullmatch(pattern.strip("^$"), text):
            raise ValueError(f"expected {words}, found {describe(text)}")

    return check


ServiceName = Annotated[
    str,
    checked(_form(IN_NAMESPACE, "a service with its namespace, as `inference/server`")),
    WithJsonSchema({"type": "string", "pattern": IN_NAMESPACE, "examples": ["inference/server"]}),
]
"""A Service as `namespace/name`."""

ClusterScoped = Annotated[
    str,
    checked(_form(CLUSTER_SCOPED, "a kind and a name, as `Node/gpu-1`")),
    WithJsonSchema({"type": "string", "pattern": CLUSTER_SCOPED, "examples": ["Node/gpu-1"]}),
]
"""An object that belongs to no namespace, as `Kind/name`."""

QualifiedName = Annotated[str, checked(names.qualified_name)]
"""The key of a label or a taint, or a resource such as `nvidia.com/gpu`."""

LabelValue = Annotated[str, checked(names.label_value)]
"""The value of a label or a taint."""

SlurmName = Annotated[str, checked(names.slurm_name)]
"""One node or one partition of Slurm, by its name."""

PrometheusLabel = Annotated[str, checked(names.prometheus_label)]
"""The name of a label in Prometheus."""

HeaderName = Annotated[str, checked(names.header_name)]
"""The name of an HTTP header."""

HeaderValue = Annotated[str, checked(names.header_value)]
"""The value of an HTTP header: one line."""

Line = Annotated[str, checked(_not_blank), checked(names.one_line)]
"""A text that another program shows or compares, and that can't break its line."""

Url = Annotated[str, checked(names.url), WithJsonSchema({"type": "string", "format": "uri"})]
"""http:// or https://, and a host."""
