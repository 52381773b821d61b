"""Values out of JSON by a path in kubectl's dialect, since that is the one the file's authors know.

Dialect: https://kubernetes.io/docs/reference/kubectl/jsonpath/ without `range` and text around braces.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from gameday.experiment.values import checked
from gameday.extend import Value
from gameday.platform.errors import PlatformError

# A quoted text, which stays as it is, or a field after a dot; kubectl lets `\.` be part of a field's name.
_FIELD = re.compile(r"""'(?:\\.|[^'])*'|"(?:\\.|[^"])*"|\.((?:\\.|[^\\.,\[\]{}()$@'"`\s=<>!~&|?*])+)""")
_PLAIN = re.compile(r"\{(\.[A-Za-z]\w*)+\}")


def find(path: str, document: Any, what: str) -> list[Value]:
    """The values that a path leads to; without nulls. Raises PlatformError when one of them is no scalar."""
    try:
        found = [match.value for match in _parsed(path).find(document)]
    except Exception as error:  # whatever a comparison of values of different types raises in the library
        raise PlatformError(f"jsonPath {path} can't be followed in {what}: {error}") from error
    found = [value for value in found if value is not None]
    for value in found:
        if not isinstance(value, str | int | float | bool):
            kind = "a list" if isinstance(value, list) else "a mapping"
            raise PlatformError(f"jsonPath {path} leads to {kind} in {what}, expected one value")
    return found


def check(path: str) -> None:
    """Raises ValueError, for the file's author, when the path is wrong."""
    if not _PLAIN.fullmatch(path):  # most are, and the library takes longer to load than a file to check
        _parsed(path)


CHECKED = checked(check)


@lru_cache(maxsize=64)
def _parsed(path: str) -> Any:
    from jsonpath_ng.exceptions import JSONPathError
    from jsonpath_ng.ext.parser import parse

    try:
        return parse(_translated(path))
    except (JSONPathError, RecursionError, TypeError) as error:
        raise ValueError(f"`{path}` is not a JSONPath such as {{.status.readyReplicas}}: {error}") from None


def _translated(path: str) -> str:
    """The path in the library's dialect: from `$`, each field quoted."""
    text = path.strip()
    if text.startswith("{"):
        if not text.endswith("}") or re.search(r"}\s*{", text):
            raise ValueError(f"`{path}` must be one expression in braces, such as {{.status.phase}}")
        text = text[1:-1].strip()
    text = text.removeprefix("$").removeprefix("@")
    if not text or text == ".":
        raise ValueError(f"`{path}` leads nowhere; expected a path such as {{.status.readyReplicas}}")
    if text[0] not in ".[":
        text = "." + text
    return "$" + _FIELD.sub(_quoted, text.replace(".[", "["))


def _quoted(match: re.Match[str]) -> str:
    name = match[1]
    return match[0] if name is None else ".'" + re.sub(r"\\(.)", r"\1", name) + "'"
