"""The lists of faults and probes, read off the classes themselves."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

from pydantic import BaseModel
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from gameday.cli import terminal
from gameday.experiment.text import plain


def show(classes: dict[str, Any]) -> None:
    """Print each class: what it does, its options, and an example."""
    console = terminal.console()
    for key, owner in classes.items():
        console.print(Text.assemble((key, "bold cyan"), f"  {inspect.getdoc(owner) or ''}"))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
        for name, field in owner.Spec.model_fields.items():
            default = "required" if field.is_required() else f"default {_text(field.default)}"
            table.add_row(field.alias or name, Text(default, "dim"), field.description or "")
        console.print(table)
        if example := owner.example:
            syntax = Syntax(
                textwrap.dedent(example).strip(), "yaml", background_color="default", word_wrap=True
            )
            console.print(Padding(syntax, (0, 0, 0, 4)))
        console.print()


def _text(value: Any) -> str:
    return plain(value.model_dump(by_alias=True) if isinstance(value, BaseModel) else value)
