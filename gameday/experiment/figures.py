"""Measurements in words: with the unit that their expectation is written in, as precise as people read."""

from __future__ import annotations

import math

from gameday.experiment.text import plain

UNITS = {"s": "s", "ms": "s", "us": "s", "ns": "s", "m": "s", "h": "s", "%": "ratio"}
UNITS |= {"Ki": "bytes", "Mi": "bytes", "Gi": "bytes", "Ti": "bytes"}


def unit_of(expected: str) -> str:
    """The unit of a measurement, told by its expectation: `< 500ms` measures seconds. Empty when bare."""
    words = expected.split(" of ")[0].replace("..", " ").split()
    for word in words if "baseline" not in expected else ():
        suffix = word.lstrip("<>=!+-0123456789.")
        if suffix != word and suffix in UNITS:
            return UNITS[suffix]
    return ""


def scale_for(unit: str, typical: float) -> tuple[float, str]:
    """The factor and suffix that make `typical` (in base units) pleasant to read."""
    size = abs(typical)
    if unit == "ratio":
        return 100.0, "%"
    if unit == "s" and size < 1:
        return (1e3, " ms") if size >= 1e-3 or size == 0 else (1e6, " µs")
    if unit == "s":
        return (1.0, " s") if size < 300 else (1 / 60, " min")
    steps = ("Ki", "Mi", "Gi", "Ti") if unit == "bytes" else ("k", "M", "G", "T")
    base = 1024.0 if unit == "bytes" else 1000.0
    power = min(len(steps), int(math.log(size, base))) if size >= (10 * base if not unit else base) else 0
    return base**-power, " " + steps[power - 1] if power else ""


def figure(value: float | str | None, unit: str = "", digits: int = 3) -> str:
    """A measurement for people: 0.412 with unit s is `412 ms`."""
    if value is None:
        return "—"
    if isinstance(value, str | bool):
        return plain(value)
    if not math.isfinite(value):
        return "no number"
    factor, suffix = scale_for(unit, value)
    return _plain(value * factor, digits) + suffix


def _plain(value: float, digits: int) -> str:
    if value == 0 or 0.001 <= abs(value) < 1e5:
        text = f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"
        return text if "e" not in text else f"{value:.0f}"
    return f"{value:.3g}"
