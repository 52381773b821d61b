"""Where in a YAML file a character of a value is written: past quotes, escapes, folds and indentation."""

from __future__ import annotations

import re

import yaml

_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|\r?\n[ \t]*|.)", re.DOTALL)
_BREAK = re.compile(r"[ \t]*(?:\r?\n[ \t]*)+")


def place(source: str, node: yaml.ScalarNode, offset: int) -> tuple[int, int]:
    """(line, column) from 1 of the character at `offset` of a scalar; its start where that is unclear."""
    start = node.start_mark
    written = source[start.index : node.end_mark.index]
    at = _block(written, node.value, offset) if node.style in ("|", ">") else _flow(written, node, offset)
    if at is None:
        return start.line + 1, start.column + 1
    before = written[:at]
    lines = before.count("\n")
    column = len(before) - before.rfind("\n") if lines else start.column + at + 1
    return start.line + lines + 1, column


def _flow(written: str, node: yaml.ScalarNode, offset: int) -> int | None:
    """In a plain or quoted scalar: where `offset` characters of the value have been written."""
    at = 1 if node.style else 0
    for _ in range(offset):
        if at >= len(written):
            return None
        at += _length(written, at, node.style)
    return at + _skipped(written, at)


def _length(written: str, at: int, style: str | None) -> int:
    """How much of the text one character of the value takes."""
    if style == '"' and written[at] == "\\":
        escape = _ESCAPE.match(written, at)
        return len(escape[0]) if escape else 1
    if style == "'" and written.startswith("''", at):
        return 2
    return _skipped(written, at) or 1


def _skipped(written: str, at: int) -> int:
    """A line break with the indentation after it: one space of the value."""
    folded = _BREAK.match(written, at)
    return len(folded[0]) if folded else 0


def _block(written: str, value: str, offset: int) -> int | None:
    """In a block of text: its lines are the value's, but for the indentation, and the breaks of `>`."""
    head, _, body = written.partition("\n")
    indent = re.search(r"^( *)\S", body, re.MULTILINE)
    if indent is None:
        return None
    at, found = len(head) + 1, 0  # in the text; in the value
    for line in body.splitlines(keepends=True):
        kept = line[len(indent[1]) :] if line.strip() else "\n"
        if found + len(kept) > offset:
            return at + len(line) - len(kept) + offset - found
        at, found = at + len(line), found + len(kept)
    return at - 1 if offset <= len(value) else None
