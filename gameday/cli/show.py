"""A plan as a person reads it before saying yes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from gameday.events import Preflight
    from gameday.platform.world import Victim
    from gameday.safety.plan import Plan

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "refused": ("✗", "bold red")}
SHOWN = 8


def show_plan(console: Console, plan: Plan, findings: Sequence[Preflight]) -> None:
    """Print the steps with their targets, then the checks."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("step", "fault", "changes", "targets", "for"):
        table.add_column(column, overflow="fold")
    for step in plan.steps.values():
        changes = Text("\n".join(_some(step.fault.changes)))
        for sentence in _some(step.fault.irreversible):
            changes.append(f"\nnot undone: {sentence}", "yellow")
        hold = "" if step.hold is None else f"{step.hold:g} s"
        times = f" ×{step.times}" if step.times > 1 else ""
        table.add_row(step.path, step.name + times, changes, _targets(step.fault.victims), hold)
    console.print(table)
    console.print()
    for finding in findings:
        mark, style = _MARKS[finding.level]
        line = Text.assemble((f"{mark} ", style), (f"{finding.check}: ", "bold"), finding.message)
        if finding.hint:
            line.append(f" → {finding.hint}", "dim")
        console.print(line, soft_wrap=True)
    console.print(Text(f"seed {plan.seed}", "dim"))


def _targets(victims: Sequence[Victim]) -> str:
    """The victims by kind and namespace, so that a hundred pods are a line and not a page."""
    groups: dict[tuple[str, str], list[str]] = {}
    for victim in victims:
        groups.setdefault((victim.ref.kind, victim.ref.namespace or ""), []).append(victim.ref.name)
    return "\n".join(
        f"{len(names)} {kind}{'s' if len(names) > 1 else ''}{' in ' + where if where else ''}: "
        + ", ".join(_some(sorted(names), 4))
        for (kind, where), names in groups.items()
    )


def _some(texts: Sequence[str], most: int = SHOWN) -> list[str]:
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return [*texts[:most], *more]
