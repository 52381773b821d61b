"""Checking a file stays light: nothing that talks to clusters is imported for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiment.support import Write

pytestmark = pytest.mark.fast
HEAVY = ("aiohttp", "kubernetes", "jinja2", "chaoslib", "requests", "vl_convert", "asyncio", "rich")


def test_loading_imports_nothing_heavy(write: Write, acme: Path) -> None:
    program = (
        "import sys; from gameday.experiment.loader import load; load(sys.argv[1]); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(acme)}
    command = [sys.executable, "-c", program, str(write())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def imported(*files: Path) -> set[str]:
    """Which of HEAVY, and of some more, `gameday validate` imports for files of the library."""
    program = (
        "import sys; from pathlib import Path; from gameday.cli import validating; "
        "code = validating.validate([Path(each) for each in sys.argv[1:]]); "
        "print(code, *(name for name in [*sys.modules] if '__file__' in vars(sys.modules[name])))"
    )
    command = [sys.executable, "-c", program, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, *names = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stdout
    return set(names) & {*HEAVY, "promql_parser", "_ssl", "email.parser"}


def test_validate_imports_what_checking_needs() -> None:
    """Faults import asyncio and aiohttp to run; a grammar of queries is needed where there is a query.

    `email.parser` reads the metadata of an installed package, which only a refusal needs.
    """
    pytest.importorskip("promql_parser")
    library = (Path(__file__).parents[2] / "experiments").glob("*.yaml")
    assert imported(*library) == {"promql_parser"}
