"""Values that are one scalar in the file but mean more: parsed once, shown again as written."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from gameday.masking import clip


class TextValue(ABC):
    """Base of such values. A subclass has `text`, `parse`, and the JSON Schema editors get for it."""

    text: str
    json_schema: ClassVar[dict[str, Any]]

    @classmethod
    @abstractmethod
    def parse(cls, value: object) -> Self:
        """Raises ValueError with a sentence for the file's author."""

    def __str__(self) -> str:
        return self.text

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else cls.parse(value),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return dict(cls.json_schema)


def scalar_text(value: object) -> str:
    """The text a person would write for a YAML scalar. Raises ValueError for anything else."""
    if isinstance(value, bool):
        return plain(value)
    if isinstance(value, str | int | float):
        return str(value).strip()
    raise ValueError(f"expected one value, found {describe(value)}")


def describe(value: object) -> str:
    """The value that was found, in the words of somebody who edits YAML."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return plain(value)
    if isinstance(value, int | float):
        return f"the number {shorten(str(value))}"
    if isinstance(value, str):
        return f'the text "{shorten(value)}"' if value else "an empty text"
    return "a list" if isinstance(value, list | tuple) else "a mapping"


def plain(value: object) -> str:
    """A value as JSON writes it, for a sentence: `true`, `0`, `["a"]`; a text as it is, None as `unset`.

    Sentences say by this alone what a field, a bound or a probe holds: `True`, `0.0` and `None` are Python's.
    """
    simple = _as_json(value)
    if isinstance(simple, str):
        return simple or '""'
    return "unset" if simple is None else json.dumps(simple, ensure_ascii=False)


def _as_json(value: object) -> Any:
    """Plain data, with whole floats as integers; a text for anything that JSON does not know."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 1e15 else value
    return value if value is None or isinstance(value, bool | int | str) else str(value)


MOST_NAMES = 5  # of a list, before "and N more"


def shorten(text: str | bytes, length: int = 60) -> str:
    """One line, at most `length` characters, secrets masked; bytes are UTF-8."""
    return clip(text, length, one_line=True)


def plural(count: int, noun: str, many: str = "") -> str:
    """`1 fault`, `3 faults`."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def some(names: Sequence[str]) -> str:
    """The first MOST_NAMES of the names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
