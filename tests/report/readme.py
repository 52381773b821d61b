"""The facts of reports/README.md that come from the code; `python -m tests.report.readme` writes them."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, Field, fields
from pathlib import Path

from gameday import events as ev
from gameday.report import model
from gameday.report.findings import RULES
from gameday.report.wording import VERDICTS

README = Path(__file__).resolve().parents[2] / "reports" / "README.md"
BEGIN, END = "<!-- generated: {} -->", "<!-- end of generated -->"


def with_facts(text: str) -> str:
    """The README with each generated part as the code says now."""
    for name, facts in FACTS.items():
        begin, end = re.escape(BEGIN.format(name)), re.escape(END)
        whole = f"{BEGIN.format(name)}\n{facts()}\n{END}"
        text = re.sub(f"{begin}.*?{end}", lambda _, whole=whole: whole, text, flags=re.DOTALL)  # type: ignore[misc]
    return text


def _events() -> str:
    """A section for each type of event, in the order of the module."""
    kinds = [
        k for k in vars(ev).values() if isinstance(k, type) and issubclass(k, ev.Event) and k is not ev.Event
    ]
    return "\n\n".join(f"### `{k.type}`\n{_prose(k)}\n\n{_fields(k)}" for k in kinds)


def _fields(kind: type) -> str:
    rows = [
        f"| `{f.name}` | {_type(f)} | {_default(f)} |" for f in fields(kind) if f.name not in ("at", "seq")
    ]
    return "\n".join(["| key | type | left out when |", "| --- | --- | --- |", *rows])


def _type(f: Field[object]) -> str:
    return "`" + str(f.type).replace("|", "or") + "`"


def _default(f: Field[object]) -> str:
    if f.default is not MISSING:
        return f"`{f.default!r}`"
    return "empty" if f.default_factory is not MISSING else ""


def _prose(kind: type) -> str:
    return " ".join((inspect.getdoc(kind) or "").replace("``", "`").split())


def _report() -> str:
    """The keys of report.json, object by object."""
    shown = [model.Retrospective, model.RunFacts, model.Hypothesis, model.Reading, model.FaultWindow]
    shown += [model.Moment, model.Detection, model.Reaction, model.Recovery, model.Touched, model.Finding]
    lines = []
    for kind in shown:
        keys = ", ".join(f"`{f.name.rstrip('_')}`" for f in fields(kind))
        lines.append(f"- **{kind.__name__}**: {_prose(kind)} Keys: {keys}.")
    return "\n".join(lines)


def _verdicts() -> str:
    return "\n".join(f"- `{name}`: {meaning}" for name, (_, meaning) in VERDICTS.items())


def _rules() -> str:
    return "\n".join(f"- {rule.__name__.replace('_', ' ')}" for rule in RULES)


FACTS = {"events": _events, "report.json": _report, "verdicts": _verdicts, "rules": _rules}

if __name__ == "__main__":
    README.write_text(with_facts(README.read_text(encoding="utf-8")), encoding="utf-8")
