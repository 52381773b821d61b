"""The commands that README, docs and runbooks name, read by the command line's own parser."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from gameday.cli.app import app
from tests.support.platforms import ROOT

Wrong: Any = typer.BadParameter.__base__  # the parser's error for a command line
pytestmark = pytest.mark.fast
PAGES = sorted(
    {ROOT / "README.md", *(p for d in ("docs", "runbooks", "reports") for p in (ROOT / d).glob("*.md"))}
)


def commands(text: str) -> Iterator[str]:
    """Every `gameday …` in quotes, also over the end of a line, and each line of an example that is one."""
    for example in re.findall(r"^ *```.*?\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE):
        for line in example.splitlines():
            if line.strip().startswith("gameday "):
                yield re.split(r" [#|>] ?| {2,}#", line.strip())[0]
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    for quoted in re.findall(r"`(gameday [^`]*)`", text):
        yield re.split(r" > ", " ".join(quoted.split()))[0]


def parsed(command: str) -> None:
    """Raises Wrong. A command that is only named, as `gameday run`, has nothing to be parsed."""
    found: Any = typer.main.get_command(app)
    words = shlex.split(command)[1:]
    context = found.make_context("gameday", words)
    while rest := [*context._protected_args, *context.args]:
        _, found, words = found.resolve_command(context, rest)
        if not words:
            return
        context = found.make_context(found.name, words, parent=context)
        if not hasattr(found, "resolve_command"):
            return


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_page_is_one(page: Path) -> None:
    wrong = []
    for command in commands(page.read_text(encoding="utf-8")):
        try:
            parsed(command)
        except Wrong as error:
            wrong.append(f"{command}: {error.format_message()}")
    assert wrong == []


def test_the_pages_hold_commands() -> None:
    assert len(list(commands((ROOT / "README.md").read_text(encoding="utf-8")))) > 20


@pytest.mark.parametrize(
    "command", ["gameday run --plan PLAN", "gameday plan -o PLAN", "gameday abolish RUN"]
)
def test_one_that_is_wrong_is_noticed(command: str) -> None:
    with pytest.raises(Wrong):
        parsed(command)


def test_make_says_what_it_waits_for_before_it_installs(tmp_path: Path) -> None:
    """Installing is quiet for a minute or two, in the first command that anybody runs."""
    asked = ["make", "--dry-run", f"VENV={tmp_path / 'venv'}", "demo"]
    lines = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    said = next(n for n, line in enumerate(lines) if "installing gameday and its tools into" in line)
    assert said < next(n for n, line in enumerate(lines) if "pip install" in line)
    assert said < next(n for n, line in enumerate(lines) if "-m venv" in line)
