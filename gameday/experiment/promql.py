"""Whether a query is PromQL, and if not, which of its characters is to blame.

The grammar is promql-parser's, a port of Prometheus' own. Its errors name no place, so that the place is
worked out here: the first token with which no query could begin so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

_TOKEN = r"""(?P<space>\s+|\#[^\n]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`[^`]*`)
    |(?P<word>[A-Za-z_:][\w:]*)
    |(?P<number>\d[\w.]*|\.\d[\w.]*)
    |(?P<mark>=~|!~|==|!=|>=|<=|.)"""  # compiled by whoever finds a mistake first: most queries have none
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_SYNTAX = r"invalid promql|unexpected|unclosed|unterminated|bad |missing|illegal|incomplete"
_NAMED = r"(?:name|function|call to|after|unexpected|character.*:|operator) '([^']+)'|: (\S+)$|for (.+)$"
# What may complete a query that breaks off: inside its innermost bracket, and after all of them.
_INSIDE = {
    "(": ("", "x", " x", " (x)", " (x) (x)", " (x) x", "[1m]", " 1m", "1", " (x[1m])"),
    "[": ("1m", "", "m", "1m:", ":1m"),
    "{": ("", "x='y'", "='y'", "'y'"),
}
_AFTER = ("", " (x)", " x", " (x) x")


@dataclass(frozen=True)
class Mistake:
    """What is wrong, and the offset of the character where that shows, from 0."""

    message: str
    offset: int


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def mistake(query: str) -> Mistake | None:
    """The first mistake of a query; None for one that Prometheus would take."""
    said = _refusal(query)
    if not said:
        return None
    tokens = [token for token in _tokens(query) if token.kind != "space"]
    if said != "invalid promql query":
        return Mistake(said, _named(query, said, tokens))
    first = _impossible(query, tokens)
    if first is None:
        return Mistake("it ends too early", len(query.rstrip()))
    return Mistake(f"unexpected `{first.text}`", first.start)


def matchers_mistake(text: str) -> Mistake | None:
    """The same of matchers alone, as `severity="critical"`."""
    brace = next((token for token in _tokens(text) if token.text in "{}"), None)
    if brace is not None:
        return Mistake(f"unexpected `{brace.text}`", brace.start)
    found = mistake(f"ALERTS{{{text}}}")
    if found is None:
        return None
    return Mistake(found.message, min(max(found.offset - len("ALERTS{"), 0), len(text)))


def _refusal(query: str) -> str:
    """The parser's own words, or ""; where it can't be had as a wheel, the server's refusal must do."""
    try:
        import promql_parser
    except ModuleNotFoundError:
        return ""
    try:
        promql_parser.parse(query)
    except ValueError as error:
        return str(error)
    return ""


def _tokens(query: str) -> Iterator[_Token]:
    for match in re.finditer(_TOKEN, query, re.VERBOSE | re.DOTALL):
        yield _Token(match.lastgroup or "", match[0], match.start())


def _named(query: str, said: str, tokens: Sequence[_Token]) -> int:
    """The place of what the parser's words name; the beginning where they name nothing."""
    if "end of input" in said:
        return len(query.rstrip())
    if "quoted string" in said:
        return next((t.start for t in tokens if t.text in ("'", '"', "`")), 0)
    if re.search(r"(unclosed|unexpected) (left|right) ", said):
        return _unbalanced(tokens)
    named = re.search(_NAMED, said)
    wanted = next(group for group in named.groups() if group) if named else ""
    there = [i for i, token in enumerate(tokens) if token.text == wanted]
    for i in there:
        if said in _refusal(_call(query, tokens, i)):
            return tokens[i].start
    if there:
        return tokens[there[0]].start
    if wanted in query:
        return query.find(wanted)
    first = _impossible(query, tokens) if re.search(_SYNTAX, said) else None
    return first.start if first else 0


def _call(query: str, tokens: Sequence[_Token], first: int) -> str:
    """The text of the call that begins with that token, to its closing parenthesis."""
    depth = 0
    for token in tokens[first + 1 :]:
        depth += (token.text == "(") - (token.text == ")")
        if depth <= 0:
            return query[tokens[first].start : token.end]
    return query[tokens[first].start :]


def _unbalanced(tokens: Sequence[_Token]) -> int:
    """Where a bracket closes that was not opened, or opens that is not closed."""
    opened: list[_Token] = []
    for token in tokens:
        if token.text in _CLOSING:
            opened.append(token)
        elif token.text in _CLOSING.values():
            if not opened or _CLOSING[opened[-1].text] != token.text:
                return token.start
            opened.pop()
    return opened[-1].start if opened else tokens[-1].end


def _impossible(query: str, tokens: Sequence[_Token]) -> _Token | None:
    """The first token with which no query could begin so; None where only the end is missing."""
    low, high = 0, len(tokens)  # up to `low` tokens can be completed
    while low < high:
        middle = (low + high + 1) // 2
        if _completes(query[: tokens[middle - 1].end], tokens[:middle]):
            low = middle
        else:
            high = middle - 1
    return tokens[low] if low < len(tokens) else None


def _completes(beginning: str, tokens: Sequence[_Token]) -> bool:
    """Whether something can follow; whether its types and names are right is another question."""
    opened = [token.text for token in tokens if token.text in _CLOSING or token.text in _CLOSING.values()]
    stack: list[str] = []
    for bracket in opened:
        if bracket in _CLOSING:
            stack.append(bracket)
        elif stack:
            stack.pop()
    closing = "".join(_CLOSING[bracket] for bracket in reversed(stack))
    inside = _INSIDE[stack[-1] if stack else "("]
    for more, after in product(inside, _AFTER):
        if not re.search(_SYNTAX, _refusal(f"{beginning}{more}{closing}{after}")):
            return True
    return False
