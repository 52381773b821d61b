"""Commands about files: no cluster is asked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gameday.cli.options import INVALID, Set, Values, plainly, read


def validate(
    files: Annotated[list[Path], typer.Argument(help="Experiment files.", show_default=False)],
    sets: Set = None,
    values: Values = None,
) -> None:
    """Check experiment files; every problem with its line, column and what was expected."""
    from gameday.experiment.problems import InvalidExperiment

    problems = 0
    for file in files:
        try:
            loaded = read(file, sets, values)
        except InvalidExperiment as invalid:
            problems += len(invalid.problems)
            for problem in invalid.problems:
                print(problem)
        else:
            print(f"{file}: ok")
            for warning in loaded.warnings:
                print(f"{file}: warning: {warning}")
    if problems:
        print(f"{problems} problem{'s' if problems != 1 else ''}", file=sys.stderr)
        raise typer.Exit(INVALID)


def schema() -> None:
    """Print the JSON Schema of experiment files, for editors."""
    import json

    from gameday.experiment.schema import json_schema

    with plainly():
        print(json.dumps(json_schema(), indent=2))


def faults() -> None:
    """List the faults, with their options and an example each."""
    from gameday.cli.catalogue import show
    from gameday.experiment import registry

    show(registry.faults())


def probes() -> None:
    """List the probes, with their options and an example each."""
    from gameday.cli.catalogue import show
    from gameday.experiment import registry

    show(registry.probes())
