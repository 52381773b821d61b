"""The meaning of `is:`: one small language for bounds, read the same by probes, aborts and charts."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar, Self

from gameday.experiment.quantity import parse_measure, parse_quantity
from gameday.experiment.text import TextValue, describe, scalar_text, shorten

Measured = float | str | bool
LONGEST = 300

GRAMMAR = (
    "expected a comparison (`< 500ms`, `>= 90% of baseline`, `!= 0`), a range (`100ms..500ms`), "
    "`within 10% of baseline`, or a plain value to equal (`Healthy`, `5`)"
)
_OF_BASELINE = re.compile(r"\s+of\s+baseline$")
_COMPARISON = re.compile(r"(<=|>=|==|!=|<|>)\s*(?![<>=!])(.+)", re.DOTALL)
_WITHIN = re.compile(r"within\s+(.+)")
_WORD = re.compile(r"[^\W\d][^<>=]{0,199}")
# Each of these is what a person writes who means one of ours.
_MISTAKES = {
    "=>": ">=",
    "=<": "<=",
    "≥": ">=",
    "≤": "<=",
    "≠": "!=",
    "=": "==",
    "~": "within 10% of baseline",
}
_PROSE = re.compile(r"(less|more|greater|fewer|at least|at most|between|above|below|under|over)\s.*\d")


@dataclass(frozen=True)
class Expectation(TextValue):
    """A bound on a measurement in base units (seconds, bytes, ratios), or a text it must equal.

    `low` and `high` are inclusive unless `op` is `<` or `>`; with `relative` they are multiples of
    the baseline. `word` is set instead when the expectation is a text.
    """

    text: str
    op: str
    low: float = -math.inf
    high: float = math.inf
    word: str | None = None
    relative: bool = False

    json_schema: ClassVar = {
        "type": ["string", "number", "boolean"],
        "title": "Expectation",
        "examples": ["< 500ms", ">= 90% of baseline", "100ms..500ms", "within 10% of baseline", "Healthy"],
    }

    @classmethod
    def parse(cls, value: object) -> Self:
        text = scalar_text(value)
        if not text or not text.isprintable() or len(text) > LONGEST:
            raise ValueError(f"{GRAMMAR}, found {describe(text)}")
        _reject_mistakes(text)
        body, of_baseline = _OF_BASELINE.subn("", text)
        relative = bool(of_baseline)
        if match := _COMPARISON.fullmatch(body):
            return cls._comparison(text, match[1], match[2].strip(), relative)
        if ".." in body:
            low, high = (_bound(part, relative) for part in body.split("..", 1))
            return cls._range(text, low, high, relative)
        if match := _WITHIN.fullmatch(body):
            if not relative or not 0 <= (share := _bound(match[1], relative)) <= 1:
                raise ValueError(f"expected `within 10% of baseline`, found `{text}`")
            return cls._range(text, 1 - share, 1 + share, relative)
        if relative:
            raise ValueError(f"`of baseline` needs a comparison, as in `>= {text}`; {GRAMMAR}")
        return cls._comparison(text, "==", body, relative)

    @classmethod
    def _comparison(cls, text: str, op: str, operand: str, relative: bool) -> Self:
        word = None if relative or op not in ("==", "!=") else _word(operand)
        if word is not None:
            return cls(text, op, word=word)
        bound = _bound(operand, relative)
        low = bound if op in (">", ">=", "==", "!=") else -math.inf
        high = bound if op in ("<", "<=", "==", "!=") else math.inf
        return cls(text, op, low, high, relative=relative)

    @classmethod
    def _range(cls, text: str, low: float, high: float, relative: bool) -> Self:
        if low > high:
            raise ValueError(f"the range {text} is empty: its lower end comes first")
        return cls(text, "..", low, high, relative=relative)

    def judge(self, value: Measured, baseline: float | None = None) -> bool:
        """Whether the measurement holds. NaN never does, nor does a relative bound without a baseline."""
        if isinstance(value, float) and math.isnan(value):
            return False
        if self.word is not None:
            return (_same_text(value, self.word)) == (self.op == "==")
        number, bounds = _number(value), self._bounds(baseline)
        if bounds is None:
            return False
        if number is None:  # a text is not any number: only `!=` holds
            return self.op == "!="
        low, high = bounds
        inside = _below(low, number, strict=self.op == ">") and _below(number, high, strict=self.op == "<")
        return inside != (self.op == "!=")

    def limits(self, baseline: float | None = None) -> tuple[float | None, float | None]:
        """(low, high) in base units for a chart; None where open, not numeric, or not known yet."""
        bounds = None if self.word is not None or self.op == "!=" else self._bounds(baseline)
        if bounds is None:
            return None, None
        low, high = bounds
        return (low if math.isfinite(low) else None), (high if math.isfinite(high) else None)

    def margin(self, value: Measured, baseline: float | None = None) -> float | None:
        """The measurement's `margin` between its limits; None where one of them is no number."""
        number = _number(value)
        if number is None or math.isnan(number):
            return None
        return margin(number, *self.limits(baseline))

    def _bounds(self, baseline: float | None) -> tuple[float, float] | None:
        if not self.relative:
            return self.low, self.high
        if baseline is None or not math.isfinite(baseline):
            return None
        # A negative baseline turns a two-sided bound around; a one-sided one keeps its direction.
        low, high = (bound if math.isinf(bound) else bound * baseline for bound in (self.low, self.high))
        return (high, low) if low > high else (low, high)


def margin(value: float, low: float | None, high: float | None) -> float | None:
    """Distance to the nearest bound as a fraction of it (of 1 when it is 0); negative beyond it.

    None where there is no bound.
    """
    sides = [(value - low) / (abs(low) or 1)] if low is not None else []
    sides += [(high - value) / (abs(high) or 1)] if high is not None else []
    return min(sides, default=None)


def _reject_mistakes(text: str) -> None:
    for wrong, right in _MISTAKES.items():
        if text.startswith(wrong) and not text.startswith("=="):
            raise ValueError(f"`{wrong}` is not a comparison here, write `{right}`; {GRAMMAR}")
    if _PROSE.match(text.lower()):
        raise ValueError(f'"{shorten(text)}" is prose; {GRAMMAR}')


def _bound(text: str, relative: bool) -> float:
    if "baseline" in text:
        raise ValueError(f"a share of the baseline is written `90% of baseline`; {GRAMMAR}")
    number = parse_measure(text.strip())
    if relative and not text.strip().endswith("%"):
        raise ValueError(
            f"a share of the baseline is a percentage (`90% of baseline`), found `{text.strip()}`"
        )
    return number


def _word(operand: str) -> str | None:
    """The operand as a text to equal, or None when it is to be read as a number."""
    if len(operand) >= 2 and operand[0] == operand[-1] and operand[0] in "\"'":
        return operand[1:-1]
    if operand.lower() == "nan":
        raise ValueError("NaN is no data, and no data is never healthy")
    if _WORD.fullmatch(operand) and "baseline" not in operand:
        return operand
    try:
        parse_measure(operand)
    except ValueError as error:
        advice = f"to equal a text that is not a word, quote it twice: '\"{shorten(operand)}\"'"
        raise ValueError(f"{error}; {advice}") from None
    return None


def _number(value: Measured) -> float | None:
    if not isinstance(value, str):
        return float(value)
    try:
        return parse_quantity(value)
    except ValueError:
        return None


def _same_text(value: Measured, word: str) -> bool:
    text = scalar_text(value)
    # Kubernetes writes conditions `True`, YAML reads that as a boolean: both are meant.
    return text == word or (text.lower() == word.lower() and word.lower() in ("true", "false"))


def _below(low: float, high: float, *, strict: bool) -> bool:
    if strict:
        return low < high
    return low <= high or math.isclose(low, high, rel_tol=1e-9)
