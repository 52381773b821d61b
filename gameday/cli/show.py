"""A plan as a person reads it before saying yes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gameday.experiment.text import plural
from gameday.inert import one_line
from gameday.masking import mask, mask_text

if TYPE_CHECKING:
    from gameday.events import Preflight
    from gameday.extend import FaultPlan
    from gameday.platform.world import Victim
    from gameday.safety.plan import Plan

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "refused": ("✗", "bold red")}
SHOWN = 8


FIRST = ("target", "cluster", "namespaces", "argo cd", "owners", "blast radius", "gate", "gangs", "way back")


def show_plan(console: Console, title: str, plan: Plan, findings: Sequence[Preflight]) -> None:
    """Print what matters most, then the steps with their targets, then the other checks.

    Secrets are masked: no event did so.
    """
    console.print(Text(mask_text(one_line(title)), "bold"))
    first, others = _in_order(findings)
    _show_findings(console, first)
    console.print()
    if plan.steps:
        _show_steps(console, plan)
    _show_findings(console, others)
    if plan.steps:
        console.print(Text(f"seed {plan.seed}, plan {plan.digest[:12]}", "dim"))
    if against := [f.check for f in findings if f.level == "refused"]:
        many = f"{len(against)} of {len(findings)} checks refuse it" if len(against) > 1 else "refused by"
        console.print(Text(f"{many}: {', '.join(dict.fromkeys(against))}", "bold red"), soft_wrap=True)


def _show_steps(console: Console, plan: Plan) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("step", "fault", "changes", "targets", "for"):
        table.add_column(column, overflow="fold")
    for step in plan.steps.values():
        changes = Text(mask_text("\n".join([*_some(step.fault.changes), *_effects(step.fault)])))
        for sentence in _some(step.fault.irreversible):
            changes.append(mask_text(f"\nnot undone: {sentence}"), "yellow")
        hold = "" if step.hold is None else f"{step.hold:g} s"
        times = f" ×{step.times}" if step.times > 1 else ""
        table.add_row(step.path, step.name + times, changes, _targets(step.fault.victims), hold)
    console.print(table)
    console.print()


def plan_data(plan: Plan, findings: Sequence[Preflight]) -> dict[str, Any]:
    """The plan and the findings as JSON has them, in the order in which a person reads them; masked."""
    first, others = _in_order(findings)
    listed = [
        {"check": f.check, "level": f.level, "message": f.message, "hint": f.hint} for f in (*first, *others)
    ]
    data: dict[str, Any] = mask({"findings": listed, "plan": plan.to_data()})
    return data


def _in_order(findings: Sequence[Preflight]) -> tuple[list[Preflight], list[Preflight]]:
    first = sorted((f for f in findings if f.check in FIRST), key=lambda f: FIRST.index(f.check))
    return first, [f for f in findings if f.check not in FIRST]


def _show_findings(console: Console, findings: Sequence[Preflight]) -> None:
    for finding in findings:
        mark, style = _MARKS[finding.level]
        line = Text.assemble((f"{mark} ", style), (f"{finding.check}: ", "bold"), mask_text(finding.message))
        if finding.hint:
            line.append(f" → {finding.hint}", "dim")
        console.print(line, soft_wrap=True)


def _effects(fault: FaultPlan[Any]) -> list[str]:
    """Effects beyond the targets, by kind, namespace and words, so that many pods are one line."""
    targets = {v.ref for v in fault.victims}
    groups: dict[tuple[str, str, str], list[str]] = {}
    for effect in fault.effects:
        if effect.ref not in targets:
            key = (effect.ref.kind, effect.ref.namespace or "", effect.text)
            groups.setdefault(key, []).append(effect.ref.name)
    return [
        f"{plural(len(names), kind)}{' in ' + where if where else ''}"
        f"{': ' + text if text else ''} ({', '.join(_some(sorted(names), 3))})"
        for (kind, where, text), names in groups.items()
    ]


def _targets(victims: Sequence[Victim]) -> str:
    """The victims by kind and namespace, so that a hundred pods are a line and not a page."""
    groups: dict[tuple[str, str], list[str]] = {}
    for victim in victims:
        groups.setdefault((victim.ref.kind, victim.ref.namespace or ""), []).append(victim.ref.name)
    return "\n".join(
        f"{plural(len(names), kind)}{' in ' + where if where else ''}: " + ", ".join(_some(sorted(names), 4))
        for (kind, where), names in groups.items()
    )


def _some(texts: Sequence[str], most: int = SHOWN) -> list[str]:
    more = [f"and {len(texts) - most} more"] if len(texts) > most else []
    return [*texts[:most], *more]
