"""The page: report.html, one file that needs no network, from the retrospective and a template.

Everything that came from the cluster goes through Jinja's autoescaping; data for the script is JSON with
every character escaped that could end a script. The page's policy allows its own two scripts by hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from gameday import states
from gameday.masking import clip
from gameday.report import chart_spec, charts, wording
from gameday.report.model import Moment, Retrospective, Span, Touched, Track
from gameday.report.timeline import shortened

LINES = 600  # of the timeline, on the page
LANES = 14  # of probes and of alerts, in the picture above the timeline
MOST_FAULTS = 40  # in that picture
TEXT = 400  # characters of one message of the cluster


def html(retro: Retrospective, bundle: str) -> str:
    """The whole page. `bundle` is the chart library's JavaScript."""
    drawn = charts.charts(retro)
    app = _asset("report.js")
    known = list(shortened(retro.timeline, LINES))
    return template().render(
        r=retro,
        run=retro.run,
        charts=drawn,
        timeline=known,
        anchors={m.seq for m in known if isinstance(m, Moment)},
        lanes=list(lanes(retro)),
        ticks=list(ticks(retro.run.duration)),
        touched=list(grouped(retro.touched)),
        facts=key_figures(retro),
        css=Markup(_asset("report.css")),
        bundle=Markup(bundle),
        app=Markup(app),
        hashes=" ".join(_hash(script) for script in (bundle, app)),
        data=script_json(_chart_data(retro, drawn)),
    )  # fmt: skip


@cache
def template() -> jinja2.Template:
    """The page's template: to compile it takes a fifth of a second."""
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("gameday.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    words = ("figure", "percent", "duration", "clock", "wall", "labels", "plural", "join")
    env.filters |= {name: getattr(wording, name) for name in words}
    env.filters["shorten"] = lambda text: clip(text, TEXT)
    env.globals |= {
        "VERDICTS": wording.VERDICTS,
        "PROBE_STATES": wording.PROBE_STATES,
        "Moment": Moment,
        "is_moment": lambda value: isinstance(value, Moment),
    }
    return env.get_template("report.html.j2")


def _asset(name: str) -> str:
    return resources.files("gameday.report").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(script: str) -> Markup:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Markup(f"'sha256-{digest}'")


def script_json(value: Any) -> Markup:
    """JSON that is safe inside <script>: no character of it can end the element or a line of JavaScript."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def _chart_data(retro: Retrospective, drawn: Iterable[charts.Chart]) -> dict[str, Any]:
    """The data of the script: the specification once, and for each chart its data in columns."""
    return {
        "spec": chart_spec.specification(),
        "start": retro.run.started,
        "charts": [
            {
                "params": c.params,
                "data": c.data,
                "lines": [
                    {
                        "label": line.label,
                        "c": line.colour,
                        "t": [round(t, 1) for t, _ in line.points],
                        "v": [None if v is None else float(f"{v:.5g}") for _, v in line.points],
                    }
                    for line in c.lines
                ],
            }
            for c in drawn
        ],
    }


def key_figures(retro: Retrospective) -> list[tuple[str, str, str, str]]:
    """The four figures at the top: what, how much, compared with what, and whether that is well."""
    held = [h for h in retro.hypothesis if h.holds is not None]
    good = sum(bool(h.holds) for h in held)
    others = len(retro.hypothesis) - len(held)
    times = [d.took for d in retro.detection if d.took is not None]
    back = [x for x in retro.recovery if x.took is not None]
    slowest = max((x.took or 0.0 for x in back), default=None)
    within = next((x.within for x in retro.recovery if x.within is not None), None)
    own = [t for t in retro.touched if t.state != "irreversible"]
    restored = sum(t.state == "restored" for t in own)
    missing = sum(d.outcome == states.Detection.NEVER for d in retro.detection)
    return [
        (
            "Steady state",
            f"{good} of {len(retro.hypothesis)}" if held else "—",
            _judged(retro, others),
            _tone([h.holds for h in held]),
        ),
        (
            "Detection",
            wording.duration(max(times)) if times else ("never" if missing else "—"),
            _detected(retro, len(times)),
            _tone([d.ok for d in retro.detection]),
        ),
        (
            "Recovery",
            ("at once" if slowest == 0 else wording.duration(slowest)),
            f"slowest; objective {wording.duration(within)}" if within is not None else "no fault went in",
            _tone([x.ok for x in retro.recovery]),
        ),
        (
            "Restored",
            f"{restored} of {len(own)}" if own else "—",
            "objects changed" if own else "nothing to restore",
            _tone([t.state == "restored" for t in own]),
        ),
    ]


def _judged(retro: Retrospective, others: int) -> str:
    if retro.hypothesis and all(h.unjudged == "not asked" for h in retro.hypothesis):
        return "not asked"
    return f"probes held, {others} not judged" if others else "probes held"


def _detected(retro: Retrospective, fired: int) -> str:
    if not retro.detection:
        return "no alert expected"
    if not retro.tried:
        return "not asked"
    return f"{fired} of {wording.plural(len(retro.detection), 'expected alert')} fired"


def _tone(judged: list[bool | None]) -> str:
    """Bad when one is; good when all are; plain while something is not known."""
    return "bad" if False in judged else "good" if judged and all(judged) else "plain"


@dataclass(frozen=True)
class Lane:
    """One row of the picture: bars of (left %, width %, state, words)."""

    group: str
    name: str
    bars: tuple[tuple[float, float, str, str], ...]


def lanes(retro: Retrospective) -> Iterator[Lane]:
    """The picture above the timeline: phases, faults, probes, alerts, in rows over the same time."""

    def bars(spans: Iterable[Span]) -> tuple[tuple[float, float, str, str], ...]:
        return tuple(_bar(retro, s.start, s.end, s.state) for s in spans)

    if retro.phases:
        yield Lane("phase", "phase", bars(retro.phases))
    for fault in retro.faults[:MOST_FAULTS]:
        if fault.start is not None:
            yield Lane("fault", fault.label, tuple(_fault_bars(retro, fault)))
    steady = [t for t in retro.probes if t.purpose == "steady-state"]
    for track in sorted(steady, key=_calm)[:LANES] if len(steady) > LANES else steady:
        yield Lane("probe", track.name, bars(track.spans))
    firing = [t for t in retro.alerts if t.spans]
    for name in list(dict.fromkeys(t.name for t in firing))[:LANES]:
        yield Lane("alert", name, bars(s for t in firing if t.name == name for s in t.spans))
    marks = [m for m in retro.timeline if m.kind in ("note", "abort")]
    if marks:
        yield Lane("mark", "notes", tuple(_bar(retro, m.at, m.at, m.kind, m.text) for m in marks))


def _calm(track: Track) -> bool:
    """Probes that broke come first where there is not room for all."""
    return all(s.state == states.Reading.HOLDS for s in track.spans)


def _fault_bars(retro: Retrospective, f: Any) -> Iterator[tuple[float, float, str, str]]:
    moments = [("injecting", f.injecting), ("in", f.in_), ("undoing", f.undoing), ("out", f.out)]
    known = [(state, at) for state, at in moments if at is not None]
    for (state, at), (_, until) in zip(known, [*known[1:], ("end", retro.run.ended)], strict=True):
        if state != "out":
            yield _bar(retro, at, until, state)


def _bar(
    retro: Retrospective, start: float, end: float, state: str, text: str = ""
) -> tuple[float, float, str, str]:
    whole = retro.run.duration or 1.0
    left = 100 * min(1.0, max(0.0, (start - retro.run.started) / whole))
    width = 100 * max(0.0, end - start) / whole
    words = (
        text or f"{state} from {wording.clock(start - retro.run.started)} for {wording.duration(end - start)}"
    )
    return round(left, 3), round(min(width, 100 - left), 3), state, words


def ticks(duration: float) -> Iterator[tuple[float, str]]:
    """Four to nine round moments along the picture."""
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
    step = next((s for s in steps if duration / s <= 9), math.ceil(duration / 9) or 1)
    for i in range(int(duration / step) + 1):
        if duration and i * step / duration < 0.97:
            yield round(100 * i * step / duration, 3), wording.clock(i * step).lstrip("+")


@dataclass(frozen=True)
class Group:
    """Objects that were touched alike, told in one row."""

    first: Touched
    objects: tuple[str, ...]


def grouped(touched: Iterable[Touched]) -> Iterator[Group]:
    """Objects of one kind and namespace with the same changes and the same end, as forty evicted pods."""
    groups: dict[tuple[Any, ...], list[Touched]] = {}
    for t in touched:
        kind, _, name = t.object.partition(" ")
        place = name.rpartition("/")[0]
        groups.setdefault((kind, place, t.steps, t.changes, t.state, t.audited, t.message), []).append(t)
    order = ("left", "accepted", "kept", "unknown", "restored", "irreversible")
    for same in sorted(groups.values(), key=lambda g: order.index(g[0].state) if g[0].state in order else 0):
        yield Group(same[0], tuple(t.object for t in same))


_EXPORTS = "window.vegaEmbed = vegaEmbed;"


def library() -> str:
    """The chart library's JavaScript (Vega, Vega-Lite, Vega-Embed), from vl-convert.

    Bundling takes seconds, so the result is kept in the user's cache, by version.
    """
    name = f"vega-lite-{chart_spec.VEGA_LITE}-{metadata.version('vl-convert-python')}.js"
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gameday" / name
    try:
        return kept.read_text(encoding="utf-8")
    except OSError:
        import vl_convert

        bundle = str(vl_convert.javascript_bundle(_EXPORTS, chart_spec.VEGA_LITE)).replace(
            "</script", "<\\/script"
        )
        _keep(kept, bundle)
        return bundle


def _keep(path: Path, text: str) -> None:
    """Written whole or not at all; a home that can't be written to costs time, not the report."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except OSError:
        return
