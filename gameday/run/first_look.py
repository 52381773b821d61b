"""Each probe and abort condition asked once before anything is touched: the values against their bounds.

What asking again can't help is refused: a query that is no query, an object, a field or a metric that is not
there. What may mend itself, as a value beyond its bound, NaN or a system that does not answer, is a warning:
the baseline waits for it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gameday.events import Preflight
from gameday.experiment.model import AbortIf, Check, Experiment
from gameday.extend.check import Findings, ok, refused, warning
from gameday.run.asking import ask
from gameday.run.reading import BROKEN, HOLDS, NO_BASELINE, NO_DATA, Reading, explain, value_text
from gameday.safety.installed import probe_of
from gameday.safety.preflight import PROMETHEUS, SLURM

if TYPE_CHECKING:
    from gameday.platform.world import World

STEADY, ABORT = "steady state", "abort conditions"
WAITS = "a run waits a moment for it before anything is touched"


async def first_look(experiment: Experiment, world: World, missing: frozenset[str]) -> Findings:
    """A finding for each. `missing`: the systems that a check found away, whose probes are not asked."""
    checks: list[Check] = [*experiment.spec.steady_state, *experiment.spec.abort_if]
    asked = [c for c in checks if not _needs(c) & missing]
    readings = await asyncio.gather(*(ask(probe_of(c.kind), c, c.is_, world, None) for c in asked))
    return [_finding(c, r) for c, r in zip(asked, readings, strict=True)]


def _needs(check: Check) -> set[str]:
    """The systems without which a probe can't be asked, as their checks are called."""
    probe = probe_of(check.kind)
    needs = {PROMETHEUS: probe.needs_prometheus, SLURM: probe.needs_slurm}
    return {name for name, needed in needs.items() if needed}


def _finding(check: Check, reading: Reading) -> Preflight:
    abort = isinstance(check, AbortIf)
    name = ABORT if abort else STEADY
    if (reading.state == NO_DATA and reading.value is None) or reading.final:
        if abort:
            return refused(name, unready(check, reading))
        return refused(name, f"{check.name} can't be seen: {explain(reading)}", hint(check, reading))
    if reading.state in (HOLDS, BROKEN, NO_BASELINE):
        value = f"{check.name}: {value_text(reading.value, reading.expected)}"
        value += f" for {reading.series}" if reading.series else ""
        bound = f"aborts at {reading.expected}" if abort else reading.expected
        if reading.state == (BROKEN if abort else HOLDS):
            return ok(name, f"{value}, {bound}")
        if reading.state == NO_BASELINE:
            return ok(name, f"{value}, {bound} once the baseline is known")
        return warning(name, f"{value}, {'which is' if abort else 'and not'} {reading.expected}: {WAITS}")
    there = reading.state == NO_DATA
    text = f"{check.name}{':' if there else ''} {explain(reading)}: {WAITS}"
    return warning(name, text, hint(check, reading) if there else "")


def unready(check: Check, reading: Reading | None) -> str:
    """Why an abort condition can't do its work, and what to do about that."""
    what = f"`{check.spec.query}`" if check.kind == "prometheus" else check.kind
    name = f"the abort condition {check.name!r} ({what})"
    if reading is None or not reading.state.seen:
        seen = explain(reading) if reading else "not answered yet"
        return f"{name} is blind before anything is touched: " + "; ".join(
            filter(None, (seen, hint(check, reading)))
        )
    return f"{name} holds before anything is touched: {explain(reading)}"


def hint(check: Check, reading: Reading | None) -> str:
    """What to look at where nothing is seen."""
    if reading is not None and reading.value is not None:
        return "where that is healthy, write `… >= 0 or vector(0)`" if reading.value != reading.value else ""
    text = "is a name in it misspelt?"
    if check.kind == "prometheus" and reading is not None and reading.state == NO_DATA:
        text += " If no series means zero, write `… or vector(0)`"
    return text
