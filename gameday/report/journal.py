"""journal.json: the run as the Chaos Toolkit writes its own, for the tools that read journals.

The keys are those of chaoslib's `initialize_run_journal` (chaoslib/run.py), `run_steady_state_hypothesis`
and `execute_activity`: steady states before, during and after; one run per fault; rollbacks are what was
undone.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from gameday import states
from gameday.report.model import FaultWindow, Hypothesis, Reading, Retrospective

_STATUS = {"passed": "completed", "deviated": "completed", "not-restored": "completed", "aborted": "aborted"}
_STATUS |= {"interrupted": "interrupted", "refused": "failed", "defect": "failed"}


def journal(retro: Retrospective) -> dict[str, Any]:
    """The journal as plain data."""
    run = retro.run
    during = _state(retro, "worst")
    return {
        "chaoslib-version": f"gameday {run.gameday}",
        "platform": run.platform.get("kubernetes", ""),
        "node": run.platform.get("context", ""),
        "experiment": _experiment(retro),
        "start": _iso(run.started),
        "status": _STATUS.get(retro.verdict, "completed"),
        "deviated": retro.verdict == "deviated" or any(h.holds is False for h in retro.hypothesis),
        "steady_states": {
            "before": _state(retro, "before"),
            "after": _state(retro, "after"),
            "during": [during] if during else [],
        },
        "run": [_activity(retro, f, f.injecting, f.in_) for f in retro.faults],
        "rollbacks": [_activity(retro, f, f.undoing, f.out) for f in retro.faults if f.undoing is not None],
        "end": _iso(run.ended),
        "duration": run.duration,
        "gameday": {"run": run.id, "verdict": retro.verdict, "why": retro.why, "seed": run.seed},
    }


def dumps(retro: Retrospective) -> str:
    """The file's text."""
    return json.dumps(journal(retro), indent=2, ensure_ascii=False, default=str) + "\n"


def _iso(at: float | None) -> str | None:
    return datetime.fromtimestamp(at, UTC).isoformat() if at and 0 < at < 3e10 else None


def _experiment(retro: Retrospective) -> dict[str, Any]:
    """The experiment in the Chaos Toolkit's own form: what its readers look for, no more."""
    title = "Steady state"
    return {
        "version": "1.0.0",
        "title": retro.run.title or retro.run.name,
        "description": retro.why,
        "tags": [],
        "steady-state-hypothesis": {"title": title, "probes": [_probe(h) for h in retro.hypothesis]},
        "method": [_action(f) for f in retro.faults],
        "rollbacks": [],
    }


def _probe(h: Hypothesis) -> dict[str, Any]:
    provider = {"type": "python", "module": "gameday.probes", "func": h.kind or "probe"}
    return {"type": "probe", "name": h.probe, "tolerance": h.expected, "provider": provider}


def _action(f: FaultWindow) -> dict[str, Any]:
    provider = {"type": "python", "module": "gameday.faults", "func": f.kind}
    return {"type": "action", "name": f.label, "provider": provider}


def _state(retro: Retrospective, when: str) -> dict[str, Any] | None:
    """The hypothesis at one time; None when nothing was asked then."""
    readings: list[tuple[Hypothesis, Reading]] = []
    for h in retro.hypothesis:
        reading = getattr(h, when)
        if reading is not None:
            readings.append((h, reading))
    if not readings:
        return None
    probes = [
        {
            "activity": _probe(h),
            "output": r.value,
            "start": _iso(r.at),
            "end": _iso(r.at),
            "duration": 0.0,
            "status": "succeeded" if r.state.seen else "failed",
            "tolerance_met": r.state in (states.Reading.HOLDS, states.Reading.IGNORED),
        }
        for h, r in readings
    ]
    return {"steady_state_met": all(p["tolerance_met"] for p in probes), "probes": probes}


def _activity(retro: Retrospective, f: FaultWindow, start: float | None, end: float | None) -> dict[str, Any]:
    done = end if end is not None else retro.run.ended
    return {
        "activity": _action(f),
        "output": list(f.evidence),
        "start": _iso(start),
        "end": _iso(done),
        "duration": max(0.0, done - (start if start is not None else done)),
        "status": "succeeded" if end is not None else "failed",
    }
