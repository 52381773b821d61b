"""From a log to a retrospective: where the parts are put together, and the verdict is explained."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

from gameday import events as ev
from gameday.masking import MASK, mask, mask_text
from gameday.report import findings, hypothesis, measures, reactions, timeline, tracks, wording
from gameday.report.curves import HOLE, stretches
from gameday.report.model import FaultWindow, Hole, Query, Retrospective, RunFacts, Touched
from gameday.report.reading import Story, tell


def analyse(events: Iterable[ev.Event]) -> Retrospective:
    """A log read as a retrospective, whole or cut off; the same log always gives the same retrospective."""
    story = tell(events)
    story.unreadable = getattr(events, "unreadable", 0)
    faults, alerts = tracks.faults(story), tracks.alerts(story)
    queries = _queries(story, faults)
    touched = measures.touched(story)
    detection = measures.detection(story, faults, alerts)
    recovery = measures.recovery(story, faults, alerts, detection)
    run = _run(story)
    verdict, why = _verdict(story, run, faults, touched)
    retro = Retrospective(
        run=run,
        verdict=verdict,
        why=why,
        hypothesis=hypothesis.table(story, faults, queries),
        phases=tracks.phases(story),
        faults=faults,
        probes=tracks.probes(story),
        alerts=alerts,
        timeline=timeline.timeline(story),
        queries=queries,
        detection=detection,
        reactions=reactions.reactions(story, faults, alerts),
        recovery=recovery,
        touched=touched,
    )
    found = findings.findings(retro, story)
    actions = tuple(dict.fromkeys(f.action for f in found if f.action))
    return replace(retro, findings=found, actions=actions, again=_again(retro))


def _run(story: Story) -> RunFacts:
    started, last = story.last(ev.RunStarted), story.last(ev.Phase)
    facts = RunFacts(
        started=story.start,
        ended=story.end,
        finished=story.last(ev.Verdict) is not None,
        phase=last.phase if last else "",
        events=story.count,
        unreadable=story.unreadable,
    )
    if started is None:
        return facts
    return replace(
        facts,
        id=started.run,
        name=started.name,
        title=started.title or started.name,
        owner=str(story.spec.get("owner") or ""),
        runbook=str(story.spec.get("runbook") or ""),
        by=started.by,
        file=started.file,
        seed=started.seed,
        gameday=started.gameday,
        variables=mask(started.variables),
        platform=started.platform | _kubernetes(story),
        experiment=mask(started.experiment),
    )


def _kubernetes(story: Story) -> dict[str, str]:
    """The version of the cluster that the plan is for, once there is one."""
    planned = story.last(ev.Planned)
    cluster = planned.plan.get("cluster") if planned else None
    version = cluster.get("version") if isinstance(cluster, dict) else None
    return {"kubernetes": version} if isinstance(version, str) else {}


def _verdict(
    story: Story, run: RunFacts, faults: tuple[FaultWindow, ...], touched: tuple[Touched, ...]
) -> tuple[str, str]:
    """The verdict, and why in one sentence."""
    said, since = story.last(ev.Verdict), _since(story)
    if said:
        why = mask_text(said.reason) or wording.VERDICTS.get(said.verdict, ("", said.verdict))[1]
        return said.verdict, why + since
    if not story.count:
        return "interrupted", "the log is empty: the run was cut off before it began"
    why = f"the log ends at {wording.wall(run.ended)} ({wording.clock(run.duration)})"
    why += f" in the phase {run.phase}" if run.phase else " before the first phase"
    force = [f.label for f in faults if f.state not in ("out", "failed")]
    left = [t.object for t in touched if t.state == "left"]
    why += f", with {wording.join(force, 3)} in force" if force else ""
    why += (
        f"; {wording.plural(len(left), 'object')} not yet restored: run `gameday recover --run {run.id}`"
        if left
        else ""
    )
    return "interrupted", why + since


def _since(story: Story) -> str:
    """What became of the run after its own end; "" where the log says nothing of that."""
    done = story.restoration
    if done is None:
        return ""
    said = _SINCE.get(done.state, _SINCE["begun"])
    more = f" ({mask_text(done.message)})" if done.message else ""
    return f"; {mask_text(done.by)} {said}, {wording.wall(done.at, date=True)}{more}"


_SINCE = {
    "begun": "began to put back what the run left",
    "restored": "put back what the run left",
    "left": "could not put back all that the run left",
}


def _queries(story: Story, faults: tuple[FaultWindow, ...]) -> tuple[Query, ...]:
    """All sampled queries, steady state first; the ALERTS query is told by the alerts themselves."""
    found = []
    stated = {str(p.get("name")): str(p.get("is", "")) for p in story.listed("steadyState")}
    for declared in {q.query: q for q in story.all(ev.QueryDeclared)}.values():
        if declared.purpose == "alerts":
            continue
        steady = declared.purpose == "steady-state"
        query = Query(
            id=declared.query,
            name=declared.name,
            expression=declared.expression,
            purpose=declared.purpose,
            step=declared.step,
            unit=wording.unit_of(stated.get(declared.name, "")) if steady else "",
            series=story.curves[declared.query].series() if declared.query in story.curves else (),
            limits=hypothesis.limits_over_time(declared.name, story, faults) if steady else (),
        )
        found.append(replace(query, holes=_holes(query, story)))
    return tuple(sorted(found, key=lambda q: q.purpose != "steady-state"))


def _holes(query: Query, story: Story) -> tuple[Hole, ...]:
    """Declared gaps that nothing filled later, and holes in a curve that nobody declared.

    A series that begins late or ends early is no hole: pods come and go.
    """
    declared = [g for g in story.all(ev.Gap) if g.query == query.id]
    holes = [hole for g in declared for hole in _unfilled(g, query)]
    if len(query.series) == 1:
        series = query.series[0]
        ranges = list(stretches(series, query.step))
        for (_, end), (start, _) in pairwise(ranges):
            left, right = series.times[end - 1], series.times[start]
            told = any(g.start < right and g.end > left for g in declared)
            if right - left > HOLE * query.step and not told:
                holes.append(Hole(left, right, "no samples, and nothing in the log says why"))
    return tuple(sorted(holes, key=lambda h: h.start))


def _unfilled(gap: ev.Gap, query: Query) -> Iterator[Hole]:
    """The rest of a gap after the samples that were had later."""
    if gap.partial:  # samples that are there don't fill it
        yield Hole(gap.start, gap.end, mask_text(gap.reason), gap.seq, partial=True)
        return
    inside = sorted({t for s in query.series for t in s.times if gap.start < t < gap.end})
    for left, right in pairwise([gap.start, *inside, gap.end]):
        if right - left > (HOLE * query.step if inside else 0):
            yield Hole(left, right, mask_text(gap.reason), gap.seq)


def _again(retro: Retrospective) -> tuple[str, ...]:
    """The commands to run it again where it ran, and to render this report again."""
    run = retro.run
    if not run.id:
        return ()
    command = ["gameday", "run", run.file or f"{run.name}.yaml", "--seed", str(run.seed)]
    command += [where] if (where := run.platform.get("where")) else []
    for name, value in run.variables.items():
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        command += ["--set", f"{name}={shown}" if shown != MASK else f"{name}=…"]
    commands = [shlex.join(command), shlex.join(["gameday", "report", run.id])]
    if any(t.state == "left" for t in retro.touched):
        commands.insert(0, shlex.join(["gameday", "recover", "--run", run.id]))
    return tuple(commands)
