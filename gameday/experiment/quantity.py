"""Durations and quantities, because people write `500ms`, `1h30m`, `10%` and `16Gi`, not base units."""

from __future__ import annotations

import math
import re

from gameday.experiment.text import describe

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60}
DECIMAL = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
MEASURES = {"": 1.0, "%": 0.01} | SECONDS | BINARY | DECIMAL
# Kubernetes: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
KUBERNETES = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "E": 1e18} | BINARY | DECIMAL
LONGEST_TEXT = 60  # of one number with its unit; the expressions below take quadratic time for nonsense
LONGEST = 30 * 24 * 3600.0

_PART = re.compile(rf"({NUMBER})({'|'.join(SECONDS)})")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_GO_DURATION = re.compile(r"[+-]?(?:0|(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+)")
_QUANTITY = re.compile(rf"({NUMBER}(?:[eE][+-]?\d+)?)\s*([^\d\s]*)")


def parse_duration(value: object) -> float:
    """Seconds from `500ms`, `10s`, `1h30m`, or a bare number of seconds. Raises ValueError."""
    seconds = _duration(value)
    if seconds is None:
        raise ValueError(f"expected a duration such as 500ms, 10s, 2m or 1h30m, found {describe(value)}")
    if not seconds >= 0:
        raise ValueError(f"a duration can't be negative, found {describe(value)}")
    if seconds > LONGEST:
        raise ValueError(f"a duration is at most 30 days, found {describe(value)}")
    return seconds


def parse_go_duration(value: object) -> float:
    """Seconds of a duration that goes to a program in Go as it is. Raises ValueError.

    As time.ParseDuration has it: every number with its unit, and no blanks.
    """
    if not isinstance(value, str) or not _GO_DURATION.fullmatch(value):
        raise ValueError(f"expected a duration such as 500ms, 10s or 1h30m, found {describe(value)}")
    return parse_duration(value.replace("μ", "µ"))


def _duration(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if abs(value) < 1e300 else math.inf
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        return None
    text = value.strip()
    if re.fullmatch(NUMBER, text, re.ASCII):
        return float(text)
    if not _DURATION.fullmatch(text) or re.search(r"[^+-][+-]", text):
        return None
    total = sum(float(number.lstrip("+-")) * SECONDS[unit] for number, unit in _PART.findall(text))
    return -total if text.startswith("-") else total


def format_duration(seconds: float) -> str:
    """`1m30s` for 90.0; exact to a millisecond from one second up."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if 0 < seconds < 1:
        return f"{seconds * 1000:.6g}ms" if seconds >= 1e-7 else f"{seconds * 1e9:.6f}ns"
    hours, rest = divmod(round(seconds, 3), 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(int(hours), "h"), (int(minutes), "m"), (round(rest, 3), "s")]
    return "".join(f"{amount:.15g}{unit}" for amount, unit in parts if amount) or "0s"


def parse_quantity(text: str) -> float:
    """A Kubernetes quantity in base units: `100m` is 0.1, `1Gi` is 2**30. Raises ValueError."""
    return _quantity(text, KUBERNETES, "a Kubernetes quantity such as 2, 100m or 1Gi")


def parse_measure(text: str) -> float:
    """A bound on a measurement: `m` is minutes here, `%` is 0.01. Raises ValueError."""
    if len(text) <= LONGEST_TEXT and _DURATION.fullmatch(text):
        return parse_duration(text)
    return _quantity(text, MEASURES, "a number with an optional unit (ms, s, m, h, %, Ki, Mi, Gi, k, M, G)")


def _quantity(text: str, units: dict[str, float], expected: str) -> float:
    match = _QUANTITY.fullmatch(text.strip()) if len(text) <= LONGEST_TEXT else None
    if match is None or not text.isprintable():
        raise ValueError(f"expected {expected}, found {describe(text)}")
    number, unit = match.groups()
    if unit not in units:
        raise ValueError(f"unknown unit {unit!r} in {describe(text)}; expected {expected}")
    value = float(number) * units[unit]
    if not math.isfinite(value):
        raise ValueError(f"{describe(text)} is too large")
    return value
