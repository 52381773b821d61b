"""Options that several commands share, and how their failures are shown."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from gameday.experiment.loader import Loaded

INVALID = 2
FAILED = 3
REFUSED = 4
NOT_RESTORED = 5
INTERRUPTED = 130

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
Url = Annotated[
    str | None,
    typer.Option(
        "--prometheus", help="Prometheus' address.", envvar="GAMEDAY_PROMETHEUS_URL", show_default=False
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--prometheus-header",
        metavar="NAME=VALUE",
        help="A header for it, as X-Scope-OrgID=team; of a secret NAME=env:VARIABLE or NAME=file:PATH.",
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option("--prometheus-ca-file", help="Its certificate's authorities.", show_default=False),
]
CertFile = Annotated[
    Path | None, typer.Option("--prometheus-cert-file", help="A client certificate.", show_default=False)
]
KeyFile = Annotated[
    Path | None, typer.Option("--prometheus-key-file", help="The certificate's key.", show_default=False)
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


ReachPrometheus = dict[str, Any] | None  # the flags of Prometheus, as `asks_prometheus` gathers them


def asks_prometheus(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the flags by which Prometheus is reached in place of its parameter `prometheus`.

    They arrive as the keys of `spec.target.prometheus`, those that were given.
    """

    flags = {
        "prometheus": Url,
        "prometheus_header": Headers,
        "prometheus_ca_file": CaFile,
        "prometheus_cert_file": CertFile,
        "prometheus_key_file": KeyFile,
    }

    @wraps(command)
    def called(**options: Any) -> None:
        given = {name: options.pop(name) for name in flags}
        command(**options, prometheus=_access(*given.values()))

    parameters: list[inspect.Parameter] = []
    signature = inspect.signature(command, eval_str=True)
    for name, parameter in signature.parameters.items():
        ours = {name: parameter.annotation} if name != "prometheus" else flags
        parameters += [parameter.replace(name=each, annotation=kind) for each, kind in ours.items()]
    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return called


def _access(
    url: str | None, headers: list[str] | None, ca: Path | None, cert: Path | None, key: Path | None
) -> dict[str, Any]:
    files = {"caFile": ca, "certFile": cert, "keyFile": key}
    given: dict[str, Any] = {name: str(file.absolute()) for name, file in files.items() if file}
    given |= {"url": url} if url else {}
    return given | ({"headers": dict(map(_header, headers))} if headers else {})


def _header(text: str) -> tuple[str, Any]:
    """A header from the command line; of a secret, where its value is."""
    name, equals, value = text.partition("=")
    if not equals:
        fail(f"--prometheus-header: expected NAME=VALUE, found {text}", INVALID)
    place, colon, where = value.partition(":")
    if colon and place == "file":
        return name, {"secretFrom": {"file": str(Path(where).absolute())}}
    return name, {"secretFrom": {"env": where}} if colon and place == "env" else value


@contextmanager
def plainly(failed: int = FAILED) -> Iterator[None]:
    """A user's mistake and a system's failure are sentences, never stack traces.

    `failed` is the exit code for a system that can't be asked. Defects of ours pass: `main` tells of them.
    """
    from gameday.experiment.problems import InvalidExperiment
    from gameday.extend import PlanError
    from gameday.platform.errors import ConfigError, Failure

    try:
        with stopped():
            yield
    except InvalidExperiment as invalid:
        for problem in invalid.problems:
            print(problem, file=sys.stderr)
        raise typer.Exit(INVALID) from None
    except (ConfigError, PlanError) as error:
        fail(str(error), INVALID)
    except Failure as error:
        fail(str(error), failed)


def duration(option: str, text: str) -> float:
    """The seconds that an option says, at least one."""
    from gameday.experiment.quantity import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        fail(f"{option}: {error}", INVALID)
    if seconds < 1:
        fail(f"{option}: expected at least 1s, found {text}", INVALID)
    return seconds


@contextmanager
def stopped(text: str = "stopped") -> Iterator[None]:
    """End a command that a signal stops, with a sentence and the exit code for that; runs do so themselves.

    Where `Signals` listens, each arrives as a cancellation; before that, Ctrl-C is a KeyboardInterrupt.
    """
    from asyncio import CancelledError

    try:
        yield
    except (CancelledError, KeyboardInterrupt):
        fail(text, INTERRUPTED)


def read(file: Path, sets: list[str] | None, values: Path | None, *, secrets: bool = True) -> Loaded:
    """Load an experiment with its overrides. Raises InvalidExperiment."""
    from gameday.experiment.loader import assignment, load

    overrides: dict[str, Any] = dict(assignment(text) for text in sets or [])
    return load(file, overrides, values, secrets=secrets)
