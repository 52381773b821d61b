"""Values that are one scalar in the file but mean more: parsed once, shown again as written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
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
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value).strip()
    raise ValueError(f"expected one value, found {describe(value)}")


def describe(value: object) -> str:
    """The value that was found, in the words of somebody who edits YAML."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {shorten(str(value))}"
    if isinstance(value, str):
        return f'the text "{shorten(value)}"' if value else "an empty text"
    return "a list" if isinstance(value, list | tuple) else "a mapping"


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
