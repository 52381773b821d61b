"""Commands about files: no cluster is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gameday.cli.options import Set, Values, plainly
from gameday.cli.terminal import ours


def validate(
    files: Annotated[list[Path], typer.Argument(help="Experiment files.", show_default=False)],
    sets: Set = None,
    values: Values = None,
) -> None:
    """Check experiment files; every problem with its line, column and what was expected."""
    from gameday.cli import validating

    raise typer.Exit(validating.validate(files, sets or (), values))


def schema() -> None:
    """Print the JSON Schema of experiment files, for editors."""
    from gameday.experiment.schema import json_schema_text

    with plainly():
        print(json_schema_text(), end="", file=ours())


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
