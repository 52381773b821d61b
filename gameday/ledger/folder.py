"""The ledger in a run's folder, read back: what is left to restore from when the cluster's record is gone.

The file is believed as ssh believes its files: when it is the reader's own and nobody else may write it.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from gameday.ledger.packing import Record, damaged, read_lines
from gameday.ledger.scope import Scope
from gameday.ledger.store import LOCAL_FILE


class NoLedger(ValueError):
    """A folder whose ledger can't be restored from; the text says why, and what to do."""


@dataclass(frozen=True)
class FolderLedger:
    """A run's entries in their last state. `cluster` is the one that they are about."""

    run: str
    cluster: str
    scope: Scope | None
    records: tuple[Record, ...]


def read_folder(folder: Path) -> FolderLedger:
    """The ledger of a run's folder; a last line that was cut off counts as not written. Raises NoLedger."""
    path = folder / LOCAL_FILE
    if not path.is_file():
        raise NoLedger(f"{folder} is no run's folder: there is no {LOCAL_FILE} in it")
    about = path.stat()
    if about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NoLedger(
            f"{path} could have been written by others, and what it says is executed: "
            "look at it, make it yours, and take write permission from everybody else"
        )
    first, *lines = path.read_bytes().decode(errors="replace").split("\n")
    try:
        head = json.loads(first)
        run, cluster = str(head["run"]), str(head["about"]["cluster"])
        scope = Scope.from_data(head["scope"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoLedger(f"{path} does not say which run it is of ({type(error).__name__}: {error})") from None
    whole = lines[:-1]  # a line that was written to its end is followed by another, if an empty one
    found, wrong = read_lines(whole)
    if wrong:
        found.append(damaged(len(found), f"line {wrong + 1} of {path}"))
    return FolderLedger(run, cluster, scope, tuple({r["n"]: r for r in found}.values()))
