"""Options that several commands share, and how their failures are shown."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from gameday.experiment.loader import Loaded

INVALID = 2
FAILED = 3

File = Annotated[Path, typer.Argument(help="The experiment file.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Override a variable; may be repeated."),
]
Values = Annotated[
    Path | None, typer.Option("--values", help="A YAML file with variables.", show_default=False)
]
Kubeconfig = Annotated[
    str | None, typer.Option(help="The kubeconfig; else $KUBECONFIG, as with kubectl.", show_default=False)
]
Context = Annotated[str | None, typer.Option(help="The kubeconfig's context.", show_default=False)]
Prometheus = Annotated[
    str | None,
    typer.Option(help="Prometheus' address.", envvar="GAMEDAY_PROMETHEUS_URL", show_default=False),
]
Slurm = Annotated[
    str | None,
    typer.Option(
        "--slurm",
        help="slurmrestd's address; its token is in $SLURM_JWT.",
        envvar="GAMEDAY_SLURM_URL",
        show_default=False,
    ),
]
Reports = Annotated[Path, typer.Option(help="Where the folders of runs are.")]


def fail(text: str, code: int = FAILED) -> NoReturn:
    """Say why on stderr, and leave."""
    print(f"gameday: {text}", file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def plainly() -> Iterator[None]:
    """A user's mistake and a system's failure are sentences, never stack traces."""
    from gameday.experiment.problems import InvalidExperiment
    from gameday.faults.base import PlanError
    from gameday.platform.errors import ConfigError, PlatformError

    try:
        yield
    except InvalidExperiment as invalid:
        for problem in invalid.problems:
            print(problem, file=sys.stderr)
        raise typer.Exit(INVALID) from None
    except (ConfigError, PlanError, FileNotFoundError) as error:
        fail(str(error), INVALID)
    except PlatformError as error:
        fail(str(error))


@contextmanager
def interruptible(text: str = "stopped; no fault is in force") -> Iterator[None]:
    """Ctrl-C outside a run, which answers it by itself."""
    try:
        yield
    except KeyboardInterrupt:
        fail(text, 130)


def read(file: Path, sets: list[str] | None, values: Path | None) -> Loaded:
    """Load an experiment with its overrides. Raises InvalidExperiment."""
    from gameday.experiment.loader import assignment, load

    overrides: dict[str, Any] = dict(assignment(text) for text in sets or [])
    return load(file, overrides, values)
