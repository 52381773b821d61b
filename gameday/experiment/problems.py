"""Problems of a file, in a form that people read and editors jump to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing to mend. `line` and `column` count from 1; 0 when the problem is not at a place in a file."""

    file: str
    line: int
    column: int
    key: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        key = f"{self.key}: " if self.key else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}: {key}{self.message}{hint}"


class InvalidExperiment(Exception):
    """A file was refused. Holds every problem found, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        # An aliased part is met once for each use; its problems are still one thing to mend.
        unique = dict.fromkeys(sorted(problems, key=lambda each: (each.file, each.line, each.column)))
        self.problems = tuple(unique)
        super().__init__("\n".join(map(str, self.problems)))


def dotted(path: Path) -> str:
    """`spec.method[0].drain`, as people write it."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A hint, when one of the known words is close."""
    folded = {each.lower().replace("_", ""): each for each in known}
    close = difflib.get_close_matches(str(word).lower().replace("_", "")[:100], folded, n=1, cutoff=0.6)
    return f"did you mean `{folded[close[0]]}`?" if close else None
