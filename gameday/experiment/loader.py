"""From a file to an Experiment, or to everything that is wrong with it at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gameday.experiment import chaostoolkit, limits, registry, structure, variables, wording
from gameday.experiment.concrete import experiment_model
from gameday.experiment.model import Experiment
from gameday.experiment.problems import InvalidExperiment, Problem
from gameday.experiment.source import read
from gameday.experiment.text import describe
from gameday.experiment.tree import Scalar, Tree, parse
from gameday.experiment.values import CHECK_QUERIES
from gameday.experiment.variables import assignment

__all__ = ["InvalidExperiment", "Loaded", "Problem", "assignment", "load", "loads"]

UNWATCHED = (
    "there is none, so only a person ends this run early: write conditions, or `abortIf: none` on purpose"
)
_WHOLE = "expected apiVersion, kind, metadata and spec"


@dataclass(frozen=True)
class Loaded:
    """A checked experiment. `document` is the rendered file as plain data, with default names filled in.

    Secrets are where the document needs them, and not among the variables. `native` is the Chaos Toolkit
    experiment that the document was made of, where it was.
    """

    experiment: Experiment
    source: str
    path: Path
    variables: dict[str, Scalar]
    document: dict[str, Any]
    warnings: tuple[str, ...] = ()
    native: dict[str, Any] | None = None


def load(
    path: str | Path,
    overrides: Mapping[str, Scalar] | None = None,
    values_file: Path | None = None,
    *,
    secrets: bool = True,
) -> Loaded:
    """Read and check a file. Raises InvalidExperiment with all of its problems, and nothing else.

    Without `secrets` a file can be checked where its secrets are not.
    """
    return loads(read(Path(path)), Path(path), overrides, values_file, secrets=secrets)


def loads(
    source: str,
    path: Path,
    overrides: Mapping[str, Scalar] | None = None,
    values_file: Path | None = None,
    *,
    secrets: bool = True,
) -> Loaded:
    """The same for a text; `path` is named in problems and is where relative paths start."""
    native = chaostoolkit.from_json(source) if path.suffix == ".json" else None
    tree = Tree(str(path), None, native) if native else parse(source, str(path))
    if chaostoolkit.is_native(tree.data):
        return _native(tree, source, path, overrides or {})
    if not isinstance(tree.data, dict):
        found = "the file is empty" if tree.data is None else f"found {describe(tree.data)} at the top"
        raise InvalidExperiment([*tree.problems, tree.problem((), f"{found}; {_WHOLE}", None, False)])
    values = variables.resolve(tree, overrides or {}, values_file, secrets=secrets)
    document = variables.render(tree, values)
    tree.variables = values.values
    experiment = _check(tree, document)
    if experiment is not None and not tree.problems:
        limits.check(tree, experiment)
    if experiment is None or tree.problems:
        raise InvalidExperiment(tree.problems)
    warnings = (*_warnings(experiment, path), *variables.warnings(overrides or {}))
    return Loaded(experiment, source, path, values.plain, document, warnings)


def _native(tree: Tree, source: str, path: Path, values: Mapping[str, Scalar]) -> Loaded:
    """A Chaos Toolkit experiment; its `${name}` are not rendered here: Chaos Toolkit resolves them."""
    try:
        document, warnings = chaostoolkit.to_experiment(tree.data, values)
    except chaostoolkit.NotConvertible as error:
        raise InvalidExperiment([*tree.problems, tree.problem((), str(error), None, False)]) from None
    converted = Tree(tree.file, None, document, problems=tree.problems)
    experiment = _check(converted, document)
    if experiment is None or converted.problems:
        raise InvalidExperiment(converted.problems)
    if short := [Problem("--set", 0, 0, name, why) for name, why in variables.kept_by_name(values)]:
        raise InvalidExperiment(short)
    every = (*warnings, *variables.warnings(values))
    native = chaostoolkit.with_values(tree.data, values)
    return Loaded(experiment, source, path, dict(values), document, every, native)


def _check(tree: Tree, document: dict[str, Any]) -> Experiment | None:
    places = structure.examine(tree, document)
    faults, probes = (_loadable(tree, places, group) for group in (registry.FAULTS, registry.PROBES))
    model = experiment_model(faults, probes)
    try:
        return model.model_validate(
            document, by_alias=True, by_name=False, context={CHECK_QUERIES: not _is_metrics_ql(document)}
        )
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False):
            wording.report(tree, model, error)
        # What follows from a refused value is not told, but it must not pass either.
        return None


def _is_metrics_ql(document: dict[str, Any]) -> bool:
    """Whether the file says that its queries are VictoriaMetrics', of which there is no grammar here."""
    found: Any = document
    for key in ("spec", "target", "prometheus", "metricsQL"):
        found = found.get(key) if isinstance(found, dict) else None
    return found is True


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
    found = []
    if experiment.spec.unwatched:
        found.append(f"spec.abortIf: {UNWATCHED}")
    if not experiment.spec.target.context:
        found.append("spec.target.context: none is named, so it may run on any cluster")
    runbook = experiment.spec.runbook
    if not runbook or "://" in runbook or Path(runbook).is_absolute():
        return tuple(found)
    # Runbooks live beside the experiments' folder as often as in it.
    folders = (*path.absolute().parents, Path.cwd())
    if not any(_exists(folder / runbook) for folder in folders):
        found.append(f"spec.runbook: there is no file {runbook} here or in a folder above")
    return tuple(found)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a NUL in it
        return False
