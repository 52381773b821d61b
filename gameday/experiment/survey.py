"""A look at a YAML text before anything is built from it: is it sound, and how large would it become?

libyaml's composer and any recursion over its nodes can be made to eat the stack or all memory by a few
lines (deep nesting, anchors that multiply). Its events can't, so they are counted first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import yaml

from gameday.experiment.problems import InvalidExperiment, Problem

MOST_VALUES = 50_000
DEEPEST = 60
_MOST_REPAIRS = 20
_UNQUOTED_BOUND = re.compile(
    r"(?P<key>\b(?:is|during)):(?P<gap>[ \t]+)(?P<bound>[>|].*?)(?P<rest>\s*(?:\s#.*|[,}].*)?)$"
)


@dataclass
class _Extent:
    """How large a value is when its aliases are written out."""

    anchor: str | None = None
    values: int = 1
    height: int = 1


class _Survey:
    """Walks the events of one text once. Raises InvalidExperiment where it becomes unbearable."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.open = [_Extent()]
        self.anchors: dict[str, _Extent] = {}
        self.documents = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise self.refused(event, "a second document starts here; expected one per file")
            case yaml.AliasEvent():
                self.add(event, self.aliased(event))
            case yaml.ScalarEvent():
                # A long text counts for more, or an anchored one could be multiplied to any length.
                self.add(event, _Extent(event.anchor, 1 + len(event.value) // 64))
            case yaml.CollectionStartEvent():
                self.open.append(_Extent(event.anchor))
                self.bound(event, 1)
            case yaml.CollectionEndEvent():
                self.add(event, self.open.pop())

    def aliased(self, event: yaml.AliasEvent) -> _Extent:
        name = event.anchor
        if any(each.anchor == name for each in self.open):
            raise self.refused(event, f"the alias *{name} stands inside what it names; it would never end")
        if name not in self.anchors:
            raise self.refused(event, f"the alias *{name} names nothing; expected &{name} before it")
        return replace(self.anchors[name], anchor=None)

    def add(self, event: yaml.Event, extent: _Extent) -> None:
        if extent.anchor:
            self.anchors[extent.anchor] = extent
        around = self.open[-1]
        around.values += extent.values
        around.height = max(around.height, extent.height + 1)
        self.bound(event, extent.height)

    def bound(self, event: yaml.Event, height: int) -> None:
        if len(self.open) + height > DEEPEST + 2:  # the text itself and the value count too
            raise self.refused(event, f"nested more than {DEEPEST} deep")
        if self.open[-1].values > MOST_VALUES:
            whole = "with its aliases written out, this" if self.anchors else "this"
            raise self.refused(
                event, f"{whole} has more than {MOST_VALUES:,} values; no experiment needs that"
            )

    def refused(self, event: yaml.Event, message: str) -> InvalidExperiment:
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        return InvalidExperiment([Problem(self.file, line, column, "", message)])


Mended = dict[tuple[int, int], str]
"""Messages by (line, column), from 1."""


def survey(text: str, file: str) -> tuple[str, Mended]:
    """The text with unquoted `is: > 5` mended, so that the rest is read too, and what was wrong where.

    Raises InvalidExperiment for what can't be read, or would be too large.
    """
    mended: Mended = {}
    while True:
        try:
            look = _Survey(file)
            for event in yaml.parse(text, Loader=yaml.CSafeLoader):
                look.take(event)
            return text, mended
        except yaml.MarkedYAMLError as error:
            repair = _quote_bound(text, error) if len(mended) < _MOST_REPAIRS else None
            if repair is None:
                raise _refused(_explain(text, error, file), mended) from None
            text, place, message = repair
            mended[place] = message
        except yaml.YAMLError as error:
            raise _refused(Problem(file, 1, 1, "", f"is not YAML: {error}"), mended) from None
        except InvalidExperiment as refused:
            raise _refused(refused.problems[0], mended) from None


def _refused(problem: Problem, mended: Mended) -> InvalidExperiment:
    before = [Problem(problem.file, *place, "", message) for place, message in mended.items()]
    return InvalidExperiment([*before, problem])


def _quote_bound(text: str, error: yaml.MarkedYAMLError) -> tuple[str, tuple[int, int], str] | None:
    """`is: > 5` read as the start of a block: the text with the bound in quotes, where, the message."""
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines(keepends=True)
    if mark is None or mark.line >= len(lines):
        return None
    line = lines[mark.line].rstrip("\r\n")
    for found in _UNQUOTED_BOUND.finditer(line):
        bound, start = found["bound"], found.start("bound")
        if abs(start - mark.column) <= len(bound):
            quoted = "'" + bound.replace("'", "''") + "'"
            lines[mark.line] = line[:start] + quoted + found["rest"] + "\n"
            message = f"`{bound[0]}` starts a block of text in YAML; put the bound in quotes: {quoted}"
            return "".join(lines), (mark.line + 1, start + 1), message
    return None


def _explain(text: str, error: yaml.MarkedYAMLError, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    what = str(error.problem or error.context or error)
    if mark is None:
        return Problem(file, 1, 1, "", f"is not YAML: {what}")
    lines = text.splitlines() or [""]
    line = lines[mark.line] if mark.line < len(lines) else ""
    character = line[mark.column : mark.column + 1]
    return Problem(file, mark.line + 1, mark.column + 1, "", _reword(what, line, character, error))


def _reword(what: str, line: str, character: str, error: yaml.MarkedYAMLError) -> str:
    if "\t" in line[: len(line) - len(line.lstrip())] or character == "\t" or "tab character" in what:
        return "a tab where YAML wants spaces; indent with spaces only"
    if "cannot start any token" in what and character:
        return f"a value can't start with `{character}`; put it in quotes"
    if "mapping values are not allowed" in what:
        return "`: ` starts a value where none can be; quote a text that holds it, or mend the indentation"
    if "unexpected end of stream" in what:
        return f"a quote is never closed; it was opened in line {_line(error.context_mark)}"
    if "',' or ']'" in what or "',' or '}'" in what:
        closing = what[-2:-1]
        return (
            f"expected `,` or `{closing}` for what was opened in line {_line(error.context_mark)}; "
            "put a text that contains brackets, braces or commas in quotes"
        )
    if "did not find expected key" in what:
        return "expected a `key:` here; is the indentation the same as above?"
    if "could not find expected ':'" in what:
        return "expected `:` and a space after a key"
    return f"is not YAML: {what}"


def _line(mark: yaml.Mark | None) -> str:
    return str(mark.line + 1) if mark else "1"
