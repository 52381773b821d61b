"""Advice that is a command can be run: each is taken out of the messages, and parsed or executed."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from gameday.cli.app import app
from tests.support.platforms import ROOT, Platform

# A command ends where its sentence goes on.
COMMAND = re.compile(r"(?<![\w/.-])(gameday|kubectl) (?:-n |--)?[a-z][^`;:,()→\n]*(?=[`;:,()→\n]|$)")
# Second words of sentences about gameday and kubectl, and of names that begin like them.
PROSE = {
    "x",
    "recoverx",
    "experiment",
    "dies",
    "does",
    "deletes",
    "runs",
    "wait",
    "and",
    "itself",
    "has",
    "keeps",
}


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a module that people may read, a filled-in part as `x`; not its docstrings."""
    tree = ast.parse(path.read_text())
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    inside = {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values}
    unread = docs | inside
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        if isinstance(node, ast.JoinedStr):
            parts = (str(v.value) if isinstance(v, ast.Constant) else "x" for v in node.values)
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


@cache
def _commands(program: str) -> list[tuple[str, list[str]]]:
    """(where, words) of each command of a program that a message names."""
    found = []
    for path in sorted((ROOT / "gameday").rglob("*.py")):
        for line, text in _texts(path):
            for match in COMMAND.finditer(text):
                command = re.split(r" && | \|", match[0])[0].strip(" .'\"")
                words = [word.rstrip(".") for word in shlex.split(command.replace("'", ""))]
                if words[0] == program and words[1] not in PROSE and "…" not in command:
                    found.append((f"{path.relative_to(ROOT)}:{line}", words[1:]))
    return found


@pytest.mark.fast
def test_advice_is_found() -> None:
    """Or the tests below would hold for none."""
    found = _commands("gameday")
    assert len(found) > 20
    assert len(_commands("kubectl")) > 4
    assert {"recover", "abort", "rbac", "unhalt"} <= {words[0] for _, words in found}


@pytest.mark.fast
def test_commands_of_gameday_are_commands_of_gameday() -> None:
    group = typer.main.get_command(app)
    wrong = [
        f"{where}: gameday {' '.join(words)}: {why}"
        for where, words in _commands("gameday")
        if (why := _wrong(group, words))
    ]
    assert not wrong, "\n".join(wrong)


def _wrong(group: Any, words: list[str]) -> str:
    """Why the command line can't be one; "" where it is. Words after the last argument are the sentence's."""
    command = group.commands.get(words[0]) if words else group
    if command is None:
        return "no such command"
    if words[1:] and hasattr(command, "commands"):
        return _wrong(command, words[1:])
    options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    unknown = [
        w for w in words if w.startswith("-") and w.partition("=")[0] not in options | {"--help", "-y"}
    ]
    return f"no such option {unknown[0]}" if unknown else ""


def test_commands_of_kubectl_run(platform: Platform) -> None:
    """Each against a real API, as what reads; what changes something is asked for its syntax alone."""
    wrong = []
    for where, words in _commands("kubectl"):
        changing = {"apply", "create", "delete", "label"} & set(words)
        extra = ["--dry-run=client", "--validate=false"] if changing & {"apply", "create"} else []
        extra = ["--dry-run=client"] if changing & {"delete", "label"} else extra
        command = [platform.kubectl, "--kubeconfig", str(platform.kubeconfig), *words, *extra]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        known = re.search(
            r"NotFound|not found|No resources found|have a resource type", ran.stdout + ran.stderr
        )
        if ran.returncode and not known:
            wrong.append(f"{where}: kubectl {' '.join(words)}: {ran.stderr.strip()}")
    assert not wrong, "\n".join(wrong)
