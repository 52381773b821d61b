"""What ResourceQuotas count: for the admission that refuses pods, and the controller that tells the usage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gameday.experiment.quantity import parse_quantity
from gameday.platform.objects import Object, is_finished


def usage(pods: Iterable[Object], hard: dict[str, str]) -> dict[str, str]:
    """How much of each limited resource the pods use. What is not of pods counts nothing here."""
    alive = [p for p in pods if not is_finished(p)]
    return {name: _written(name, sum(_of(p, name) for p in alive)) for name in hard}


def excess(pod: Object, pods: Iterable[Object], hard: dict[str, str]) -> list[str]:
    """The resources of which there would be too much with one more pod; a pod that asks for none may come."""
    used = usage(pods, hard)
    return [
        name
        for name, limit in sorted(hard.items())
        if (more := _of(pod, name)) and parse_quantity(used[name]) + more > parse_quantity(limit)
    ]


def _of(pod: Object, name: str) -> float:
    if name in ("pods", "count/pods"):
        return 1
    section, _, resource = name.partition(".")
    if section not in ("requests", "limits"):
        section, resource = "requests", name  # `cpu` is short for `requests.cpu`
    containers: list[dict[str, Any]] = pod["spec"].get("containers") or []
    amounts = [((c.get("resources") or {}).get(section) or {}).get(resource) for c in containers]
    return sum(parse_quantity(str(a)) for a in amounts if a is not None)


def _written(name: str, amount: float) -> str:
    """As the API writes a quantity back: with the largest suffix that leaves it whole."""
    resource = name.rpartition(".")[2]
    step, suffixes = 1000, ["", "k", "M", "G"]
    if resource == "cpu":
        amount, suffixes = amount * 1000, ["m", *suffixes]
    elif resource in ("memory", "ephemeral-storage") or resource.startswith("hugepages-"):
        step, suffixes = 1024, ["", "Ki", "Mi", "Gi", "Ti"]
    number = round(amount)
    while number and number % step == 0 and len(suffixes) > 1:
        number, suffixes = number // step, suffixes[1:]
    return f"{number}{suffixes[0]}" if number else "0"
