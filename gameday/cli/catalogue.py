"""The lists of faults and probes, read off the classes themselves."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.syntax import Syntax
from rich.table import Table


def show(classes: dict[str, Any]) -> None:
    """Print each class: what it does, its options, and an example."""
    console = Console()
    for key, owner in classes.items():
        console.print(f"[bold cyan]{key}[/]  {inspect.getdoc(owner) or ''}", highlight=False)
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
        for name, field in owner.Spec.model_fields.items():
            default = "required" if field.is_required() else f"default {_text(field.default)}"
            table.add_row(field.alias or name, f"[dim]{default}[/]", field.description or "")
        console.print(table)
        if example := getattr(owner, "example", ""):
            syntax = Syntax(
                textwrap.dedent(example).strip(), "yaml", background_color="default", word_wrap=True
            )
            console.print(Padding(syntax, (0, 0, 0, 4)))
        console.print()


def _text(value: Any) -> str:
    return "unset" if value is None else repr(value) if value == "" else str(value)
