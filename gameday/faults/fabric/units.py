"""Bit rates and shares of packets, as people write them and as `tc` and `ip` take them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import WithJsonSchema

from gameday.experiment.text import describe
from gameday.experiment.values import checked, share

_BITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_RATE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([kmg]?)bit", re.ASCII)


def bits(text: str) -> float:
    """Bits a second of `100mbit`. Raises ValueError."""
    match = _RATE.fullmatch(text)
    if match is None or not float(match[1]):
        raise ValueError(f"expected a rate such as 500kbit, 100mbit or 2.5gbit, found {describe(text)}")
    return float(match[1]) * _BITS[match[2]]


def megabits(text: str) -> int:
    """Whole megabits a second, at least one: the unit of a VF's max_tx_rate."""
    return max(1, round(bits(text) / 1e6))


def tc_time(seconds: float) -> str:
    """A duration as `tc` takes and shows it: 40ms, 1500us."""
    micro = round(seconds * 1e6)
    return f"{micro}us" if micro % 1000 else f"{micro // 1000}ms"


def bucket(rate: str) -> str:
    """The bytes that tbf lets through at once: ten milliseconds' worth, since its clock ticks that slowly."""
    return f"{max(32_768, int(bits(rate) / 8 / 100))}b"


def _percentage(text: str) -> None:
    if not share(text):
        raise ValueError(f"expected a percentage of the packets such as 0.1% or 5%, found {describe(text)}")


Rate = Annotated[
    str,
    checked(bits),
    WithJsonSchema({"type": "string", "title": "Rate", "examples": ["500kbit", "100mbit", "2.5gbit"]}),
]
Percentage = Annotated[
    str,
    checked(_percentage),
    WithJsonSchema({"type": "string", "title": "Percentage", "examples": ["0.1%", "5%"]}),
]
