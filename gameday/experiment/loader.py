"""From a file to an Experiment, or to everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gameday.experiment import chaostoolkit, registry, structure, variables, wording
from gameday.experiment.concrete import experiment_model
from gameday.experiment.model import Experiment
from gameday.experiment.problems import InvalidExperiment, Problem
from gameday.experiment.source import read
from gameday.experiment.text import describe
from gameday.experiment.tree import Tree, parse
from gameday.experiment.variables import Scalar, assignment

__all__ = ["InvalidExperiment", "Loaded", "Problem", "assignment", "from_document", "load", "loads"]

_WHOLE = "expected apiVersion, kind, metadata and spec"


@dataclass(frozen=True)
class Loaded:
    """A checked experiment. `document` is the rendered file as plain data, with default names filled in."""

    experiment: Experiment
    source: str
    path: Path
    variables: dict[str, Scalar]
    document: dict[str, Any]
    warnings: tuple[str, ...] = ()


def load(
    path: str | Path, overrides: Mapping[str, Scalar] | None = None, values_file: Path | None = None
) -> Loaded:
    """Read and check a file. Raises InvalidExperiment with all of its problems, and nothing else."""
    return loads(read(Path(path)), Path(path), overrides, values_file)


def loads(
    source: str, path: Path, overrides: Mapping[str, Scalar] | None = None, values_file: Path | None = None
) -> Loaded:
    """The same for a text; `path` is named in problems and is where relative paths start."""
    native = chaostoolkit.from_json(source) if path.suffix == ".json" else None
    tree = Tree(str(path), None, native) if native else parse(source, str(path))
    if chaostoolkit.is_native(tree.data):
        return _native(tree, source, path, overrides or {})
    if not isinstance(tree.data, dict):
        found = "the file is empty" if tree.data is None else f"found {describe(tree.data)} at the top"
        raise InvalidExperiment([*tree.problems, tree.problem((), f"{found}; {_WHOLE}", None, False)])
    values = variables.resolve(tree, overrides or {}, values_file)
    document = variables.render(tree, values)
    experiment = _check(tree, document)
    if experiment is None or tree.problems:
        raise InvalidExperiment(tree.problems)
    return Loaded(experiment, source, path, values, document, _warnings(experiment, path))


def _native(tree: Tree, source: str, path: Path, values: Mapping[str, Scalar]) -> Loaded:
    """A Chaos Toolkit experiment; its `${name}` are not rendered here: Chaos Toolkit resolves them."""
    try:
        document, warnings = chaostoolkit.to_experiment(tree.data, values)
    except chaostoolkit.NotConvertible as error:
        raise InvalidExperiment([*tree.problems, tree.problem((), str(error), None, False)]) from None
    converted = Tree(tree.file, None, document, tree.problems)
    experiment = _check(converted, document)
    if experiment is None or converted.problems:
        raise InvalidExperiment(converted.problems)
    return Loaded(experiment, source, path, dict(values), document, tuple(warnings))


def from_document(document: dict[str, Any]) -> Experiment:
    """The experiment of a document that was rendered before, as the log of a run keeps it."""
    tree = Tree("experiment", None, document)
    experiment = _check(tree, document)
    if experiment is None or tree.problems:
        raise InvalidExperiment(tree.problems)
    return experiment


def _check(tree: Tree, document: dict[str, Any]) -> Experiment | None:
    places = structure.examine(tree, document)
    faults, probes = (_loadable(tree, places, group) for group in (registry.FAULTS, registry.PROBES))
    model = experiment_model(faults, probes)
    try:
        return model.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False):
            wording.report(tree, model, error)
        # What follows from a refused value is not told, but it must not pass either.
        return None


def _loadable(tree: Tree, places: list[structure.Place], group: str) -> list[str]:
    """The keys that are used and whose class loads; the others are reported wherever they are used."""
    usable = []
    for key, paths in structure.keys_used(places, group).items():
        try:
            registry.load(group, key)
            usable.append(key)
        except registry.RegistryError as error:
            for path in paths:
                tree.report(path, str(error), at_key=True)
    return usable


def _warnings(experiment: Experiment, path: Path) -> tuple[str, ...]:
    runbook = experiment.spec.runbook
    if not runbook or "://" in runbook or Path(runbook).is_absolute():
        return ()
    # Runbooks live beside the experiments' folder as often as in it.
    folders = (*path.absolute().parents, Path.cwd())
    if any(_exists(folder / runbook) for folder in folders):
        return ()
    return (f"spec.runbook: there is no file {runbook} here or in a folder above",)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a NUL in it
        return False
