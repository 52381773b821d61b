"""`gameday validate` refuses what `chaos validate` refuses."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gameday.cli.validating import validate
from tests.e2e.test_chaos_side_by_side import CHAOS, ENVIRONMENT

pytestmark = pytest.mark.fast

GOOD: dict[str, Any] = {
    "title": "t",
    "description": "d",
    "method": [
        {"type": "probe", "name": "pid", "provider": {"type": "python", "module": "os", "func": "getpid"}}
    ],
}
ABSENT = {"type": "python", "module": "chaosnone.actions", "func": "x"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "ok"),
        ({"configuration": {"a": {"type": "env", "key": "GAMEDAY_ABSENT"}}}, "GAMEDAY_ABSENT"),
        ({"secrets": {"s": {"a": {"type": "env", "key": "GAMEDAY_ABSENT"}}}}, "GAMEDAY_ABSENT"),
        ({"method": [{"type": "action", "name": "x", "provider": ABSENT}]}, "chaosnone.actions"),
        ({"rollbacks": [{"type": "action", "name": "x", "provider": ABSENT}]}, "chaosnone.actions"),
        ({"description": ""}, "requires a description"),
        ({"controls": [{"name": "c"}]}, "must have a `provider`"),
    ],
)
def test_as_chaos_validate(
    more: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(GOOD | more))
    command = [str(CHAOS), "--no-version-check", "--settings", str(tmp_path / "none"), "validate", str(file)]
    theirs = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    ours = validate([file])
    told = capsys.readouterr().out
    assert (ours == 0) is (theirs.returncode == 0), theirs.stderr + told
    assert words in told
