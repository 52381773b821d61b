"""The command line. Thin: each command is a few calls, and imports what it needs when it is called."""

from __future__ import annotations

import gc
import os
import sys

OBJECTS_BETWEEN_COLLECTIONS = 200_000  # Python's 700 has it look through each page of a list many times


def main() -> None:
    """The `gameday` program."""
    from gameday.cli import terminal, validating

    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    os.umask(os.umask(0o077) | 0o077)  # what a run leaves behind is its owner's alone
    terminal.install()
    if sys.argv[1:] == ["--version"]:  # answered without loading a command line parser
        from gameday import __version__

        print(f"gameday {__version__}")
        return
    try:
        if files := validating.files_alone(sys.argv[1:]):
            code = validating.validate(files)
            gc.freeze()  # else the interpreter looks for cycles among all that was imported before it ends
            sys.exit(code)
        from gameday.cli.app import app

        app()
    except Exception as error:  # nothing that a user did: those are told in sentences
        sys.exit(_defect(error))
    finally:
        terminal.drain()


def _defect(error: Exception) -> int:
    """A defect of ours, from any command: one sentence, a trace in a file, an exit code of its own."""
    from gameday import defect

    print(f"gameday: this is a defect of gameday: {defect.sentence(error)}", file=sys.stderr)
    print(f"gameday: {defect.keep_trace(error)}; please report it", file=sys.stderr)
    if sys.argv[1:2] and sys.argv[1] in ("run", "recover"):
        text = "changes may be left: see `gameday status`, and put them back with `gameday recover --run RUN`"
        print(f"gameday: {text}", file=sys.stderr)
    return defect.EXIT_CODE


__all__ = ["main"]
