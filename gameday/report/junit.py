"""junit.xml: the run as test cases, so that a CI system shows what did not hold without knowing gameday."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from gameday import states
from gameday.report import wording
from gameday.report.model import Retrospective

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Case:
    """One test case. `ok` is None for what could not be judged, which is skipped."""

    group: str
    name: str
    ok: bool | None
    message: str = ""
    detail: str = ""
    seconds: float = 0.0


def junit(retro: Retrospective) -> str:
    """The file: a case for the verdict, each steady-state probe, expected alert, recovery and object."""
    cases = [*_cases(retro)]
    bad, skipped = sum(c.ok is False for c in cases), sum(c.ok is None for c in cases)
    facts = {
        "name": _clean(retro.run.name or "gameday"),
        "tests": str(len(cases)),
        "failures": str(bad),
        "errors": "0",
        "skipped": str(skipped),
        "time": f"{retro.run.duration:.3f}",
    }
    started = datetime.fromtimestamp(retro.run.started if 0 < retro.run.started < 3e10 else 0, UTC)
    root = ET.Element("testsuites", facts)
    suite = ET.SubElement(root, "testsuite", {**facts, "timestamp": started.strftime("%Y-%m-%dT%H:%M:%S")})
    properties = ET.SubElement(suite, "properties")
    for name, value in (("run", retro.run.id), ("seed", retro.run.seed), ("verdict", retro.verdict)):
        ET.SubElement(properties, "property", {"name": name, "value": _clean(str(value))})
    for case in cases:
        _write(suite, retro, case)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _write(suite: ET.Element, retro: Retrospective, case: Case) -> None:
    group = f"{retro.run.name or 'gameday'}.{case.group}"
    about = {"classname": _clean(group), "name": _clean(case.name), "time": f"{case.seconds:.3f}"}
    element = ET.SubElement(suite, "testcase", about)
    if case.ok is not True:
        kind = {"type": case.group} if case.ok is False else {}
        told = {"message": _clean(case.message), **kind}
        child = ET.SubElement(element, "failure" if case.ok is False else "skipped", told)
        child.text = _clean(case.detail or case.message) if case.ok is False else None


def _clean(text: str) -> str:
    """Characters XML has no place for are shown as a replacement sign."""
    return _NOT_XML.sub("\ufffd", text)


def _cases(r: Retrospective) -> Iterator[Case]:
    ok = None if r.verdict in ("interrupted", "refused") and not r.hypothesis else r.verdict == "passed"
    yield Case("verdict", wording.VERDICTS.get(r.verdict, (r.verdict,))[0], ok, r.why, "", r.run.duration)
    for h in r.hypothesis:
        worst = h.broke or h.worst
        got = (
            f"{wording.figure(worst.value, h.unit)} where {worst.expected or h.expected} was expected"
            if worst
            else ""
        )
        yield Case("steadyState", h.probe, h.holds, got or h.unjudged, f"{got}\n{h.kind}", h.broken_for)
    for d in r.detection:
        name = d.alert + (wording.labels(d.labels) if d.labels else "")
        said = {
            states.Detection.NEVER: "never fired",
            states.Detection.ALREADY_FIRING: "was firing before the fault",
            states.Detection.UNKNOWN: "not known",
        }
        late = f"fired after {wording.duration(d.took)}, later than {wording.duration(d.within)}"
        yield Case("expectAlerts", name, d.ok, said.get(d.outcome, late), "", d.took or 0.0)
    for x in r.recovery:
        took = (
            f"steady again after {wording.duration(x.took)}"
            if x.took is not None
            else "not seen steady again"
        )
        message = f"{took}; the objective is {wording.duration(x.within)}"
        yield Case("recovery", x.fault, x.ok, message, x.note, x.took or 0.0)
    for t in r.touched:
        if t.state != "irreversible":
            yield Case("restored", t.object, t.state == "restored", f"{t.state}: {t.message}".strip(": "))
