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
