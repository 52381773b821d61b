"""Kubernetes quantities as the API server writes them back, so that our own can be told from others'."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from gameday.experiment.quantity import parse_quantity
from gameday.experiment.text import scalar_text
from gameday.experiment.values import share

_BYTES = ("memory", "storage", "hugepages")  # the last part of a resource's name, or how it begins


def canonical(resource: str, value: float) -> str:
    """An amount of a resource in the API's own form, rounded down: 500m, 2, 96Mi, 1Gi, 12.

    CPU goes by the thousandth, bytes by the Ki, all else by whole pieces, as the API has them.
    """
    kind = resource.rpartition(".")[2]
    if kind == "cpu":
        milli = math.floor(value * 1000 + 1e-6)
        return f"{milli}m" if milli % 1000 else _with_suffix(milli // 1000, 1000, "kMGT")
    if kind.endswith(_BYTES[:2]) or kind.startswith(_BYTES[2]):
        return _with_suffix(math.floor(value / 1024 + 1e-6), 1024, ("Ki", "Mi", "Gi", "Ti", "Pi"), first=True)
    return _with_suffix(math.floor(value + 1e-6), 1000, "kMGT")


def _with_suffix(number: int, step: int, suffixes: str | tuple[str, ...], *, first: bool = False) -> str:
    """The number with the largest suffix that leaves it whole; `first`: it is counted in the first one."""
    names = list(suffixes) if first else ["", *suffixes]
    while number and number % step == 0 and len(names) > 1:
        number, names = number // step, names[1:]
    return f"{number}{names[0]}" if number else "0"


def amount(text: str, resource: str, base: str) -> str:
    """What is meant by `500m`, `1Gi`, or a share such as `50%` of `base`, in the API's own form.

    Raises ValueError for what is neither.
    """
    ratio = share(text)
    return canonical(resource, parse_quantity(text) if ratio is None else parse_quantity(base) * ratio)


def _check(text: str) -> str:
    if share(text) is None and parse_quantity(text) < 0:
        raise ValueError("must not be negative")
    return text


Amount = Annotated[
    str,
    BeforeValidator(scalar_text),
    AfterValidator(_check),
    WithJsonSchema({"type": ["string", "number"], "title": "Amount", "examples": ["500m", "1Gi", 8, "50%"]}),
]
"""A Kubernetes quantity, or a share; what `amount` takes."""
