"""Steps and probes as they stand in the file: which keys they use, and rules that types can't state.

Works on plain data before the models do, so that these problems are told along with all others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gameday.experiment import registry
from gameday.experiment.model import AbortIf, Keyed, Probe, Step
from gameday.experiment.problems import Path
from gameday.experiment.text import shorten
from gameday.experiment.tree import Tree

DEEPEST_STEPS = 8
MOST_STEPS = 10_000


@dataclass(frozen=True)
class Place:
    """A step, a probe or an abort condition where it stands. A step's `number` is like `2.1`."""

    path: Path
    data: dict[str, Any]
    model: type[Keyed]
    number: str = ""

    @property
    def group(self) -> str:
        return group_of(self.model)

    @property
    def keys(self) -> list[str]:
        """The keys it has of which it may have one."""
        known = self.model.keys.union(registry.names(self.group))
        return [key for key in self.data if key in known]


def group_of(model: type[Keyed]) -> str:
    return registry.FAULTS if issubclass(model, Step) else registry.PROBES


def examine(tree: Tree, document: dict[str, Any]) -> list[Place]:
    """Every step and check of the document, with default names filled in; problems go to the tree."""
    spec = document.get("spec")
    if not isinstance(spec, dict):
        return []
    steps = _Method(tree).steps(spec.get("method"), ("spec", "method"), "", 1, 1)
    probes = list(_checks(spec.get("steadyState"), "steadyState", Probe))
    aborts = list(_checks(spec.get("abortIf"), "abortIf", AbortIf))
    for place in (*steps, *probes, *aborts):
        _one_key(tree, place)
    _unique_names(tree, steps, "step")
    _unique_names(tree, probes, "probe")
    _name_steps(steps)
    return [*steps, *probes, *aborts]


def keys_used(places: Iterable[Place], group: str) -> dict[str, list[Path]]:
    """The registry's keys of one group that are used, and where."""
    used: dict[str, list[Path]] = {}
    for place in places:
        for key in place.keys:
            if place.group == group and key not in place.model.keys:
                used.setdefault(key, []).append((*place.path, key))
    return used


def _checks(items: Any, key: str, model: type[Keyed]) -> Iterator[Place]:
    for index, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, dict):
            yield Place(("spec", key, index), item, model)


class _Method:
    """Walks steps within steps, with bounds on how deep and how often."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.total = 0

    def steps(self, items: Any, path: Path, prefix: str, depth: int, times: int) -> list[Place]:
        found: list[Place] = []
        for index, item in enumerate(items if isinstance(items, list) else []):
            if not isinstance(item, dict):
                continue
            here, number = (*path, index), f"{prefix}{index + 1}"
            found.append(Place(here, item, Step, number))
            self.total += times
            if self.total > MOST_STEPS:
                self.tree.report(here, f"with its repetitions the method has more than {MOST_STEPS:,} steps")
                return found
            found += self.inner(item, here, number, depth, times)
        return found

    def inner(self, item: dict[str, Any], path: Path, number: str, depth: int, times: int) -> list[Place]:
        found: list[Place] = []
        for key in ("parallel", "sequence", "repeat"):
            inside, inner_path, inner_times = item.get(key), (*path, key), times
            if key == "repeat" and isinstance(inside, dict):
                count = inside.get("times")
                inner_times *= count if isinstance(count, int) and 0 < count <= 1000 else 1
                inside, inner_path = inside.get("steps"), (*inner_path, "steps")
            if inside and depth >= DEEPEST_STEPS:
                self.tree.report(inner_path, f"steps are nested more than {DEEPEST_STEPS} deep")
            else:
                found += self.steps(inside, inner_path, f"{number}.", depth + 1, inner_times)
        return found


def _one_key(tree: Tree, place: Place) -> None:
    is_step = place.model is Step
    what = (
        "a step has exactly one fault key"
        if is_step
        else "a probe has exactly one key that says how to measure"
    )
    keys = place.keys
    fields = {field.alias or name for name, field in place.model.model_fields.items()}
    if not keys and place.data.keys() <= fields:
        known = ", ".join(sorted(place.model.keys.union(registry.names(place.group))))
        tree.report(place.path, f"{what}, found none; expected one of {known}")
    for extra in keys[1:]:
        tree.report((*place.path, extra), f"{what}, found {len(keys)}: {', '.join(keys)}", at_key=True)
        tree.refused.add(place.path)
    for key in keys:
        if place.data[key] is None:
            tree.report((*place.path, key), f"expected what {key} needs, found nothing", at_key=True)
            tree.refused.add(place.path)
    if is_step and len(keys) == 1 and keys[0] in Step.keys and "for" in place.data:
        hint = "the steps inside it take `for`" if keys[0] != "wait" else "write `wait: 10s`"
        tree.report((*place.path, "for"), f"`for` belongs to a fault, not to {keys[0]}", hint, at_key=True)


def _unique_names(tree: Tree, places: Iterable[Place], what: str) -> None:
    seen: dict[str, Path] = {}
    for place in places:
        name = place.data.get("name")
        if not isinstance(name, str):
            continue
        if first := seen.get(name):
            line, _ = tree.position(first)
            path = (*place.path, "name")
            tree.report(
                path,
                f"`{shorten(name)}` is the name of another {what}, in line {line}; expected unique names",
            )
        seen.setdefault(name, (*place.path, "name"))


def _name_steps(steps: list[Place]) -> None:
    taken = {place.data.get("name") for place in steps if isinstance(place.data.get("name"), str)}
    for place in steps:
        if "name" not in place.data and place.keys:
            name = f"{place.number} {place.keys[0]}"
            while name in taken:
                name = f"step {name}"
            place.data["name"] = name
