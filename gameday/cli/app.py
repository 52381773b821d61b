"""All commands in one place."""

from __future__ import annotations

import typer

from gameday.cli import approving, cluster, doctor, documents, lever, permissions, reports, runs

app = typer.Typer(
    name="gameday",
    help="Game days on GPU platforms: break it, watch, put everything back, say what was learned.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
sandbox = typer.Typer(help="The embedded GPU platform.", no_args_is_help=True)

app.command()(runs.run)
app.command()(runs.plan)
app.command()(permissions.rbac)
app.command()(approving.approve)
app.command()(documents.validate)
app.command()(documents.schema)
app.command()(documents.faults)
app.command()(documents.probes)
app.command()(doctor.doctor)
app.command()(cluster.status)
app.command()(lever.abort)
app.command()(lever.halt)
app.command()(lever.unhalt)
app.command()(cluster.note)
app.command()(cluster.recover)
app.command()(reports.report)
app.add_typer(sandbox, name="sandbox")
sandbox.command()(runs.up)


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and leave.", is_eager=True),
) -> None:
    if version:
        from gameday import __version__

        print(f"gameday {__version__}")
        raise typer.Exit


__all__ = ["app"]
