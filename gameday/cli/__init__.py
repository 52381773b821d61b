"""The command line. Thin: each command is a few calls, and imports what it needs when it is called."""

from __future__ import annotations

import gc
import sys

OBJECTS_BETWEEN_COLLECTIONS = 200_000  # Python's 700 has it look through each page of a list many times


def main() -> None:
    """The `gameday` program."""
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    if sys.argv[1:] == ["--version"]:  # answered without loading a command line parser
        from gameday import __version__

        print(f"gameday {__version__}")
        return
    from gameday.cli.app import app

    app()


__all__ = ["main"]
