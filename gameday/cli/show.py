"""A plan as a person reads it before saying yes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gameday.events import Preflight
    from gameday.safety.plan import Plan

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "refused": ("✗", "bold red")}
SHOWN = 8


def show_plan(console: Console, plan: Plan, findings: Sequence[Preflight]) -> None:
    """Print the steps with their targets, then the checks."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("step", "fault", "changes", "targets", "for"):
        table.add_column(column, overflow="fold")
    for step in plan.steps.values():
        victims = [str(v) for v in step.fault.victims]
        changes = Text("\n".join(_some(step.fault.changes)))
        for sentence in _some(step.fault.irreversible):
            changes.append(f"\nnot undone: {sentence}", "yellow")
        hold = "" if step.hold is None else f"{step.hold:g} s"
        times = f" ×{step.times}" if step.times > 1 else ""
        table.add_row(step.path, step.name + times, changes, "\n".join(_some(victims)), hold)
    console.print(table)
    console.print()
    for finding in findings:
        mark, style = _MARKS[finding.level]
        line = Text.assemble((f"{mark} ", style), (f"{finding.check}: ", "bold"), finding.message)
        if finding.hint:
            line.append(f" → {finding.hint}", "dim")
        console.print(line, soft_wrap=True)
    console.print(Text(f"seed {plan.seed}", "dim"))


def _some(texts: Sequence[str]) -> list[str]:
    more = [f"and {len(texts) - SHOWN} more"] if len(texts) > SHOWN else []
    return [*texts[:SHOWN], *more]
