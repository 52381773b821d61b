"""The charts of each query: the same data for the page's interactive charts and Slack's PNG."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gameday.masking import clip
from gameday.report import chart_spec, wording
from gameday.report.chart_spec import COLOURED
from gameday.report.curves import spread, thin
from gameday.report.model import Hypothesis, Query, Retrospective, Series

DRAWN = 60  # series drawn at all
POINTS = 600  # points of one series on the page
ALL_POINTS = 240_000  # points of all series on the page

LIGHT = {
    "--ink": "#1d2430",
    "--muted": "#5b6472",
    "--line": "#dfe3e8",
    "--fault": "#c2410c",
    "--bound": "#b42318",
    "--alert": "#8a5a00",
    "--rest": "#b8bfc9",
    "--c0": "#2457c5",
    "--c1": "#0f7b6c",
    "--c2": "#9333a8",
    "--c3": "#b45309",
    "--c4": "#0e7490",
    "--c5": "#be185d",
}


@dataclass(frozen=True)
class Line:
    """One series as drawn: its points (seconds since the start, value or None), and its colour's place."""

    label: str
    points: list[tuple[float, float | None]]
    colour: int  # COLOURED for grey
    low: float
    high: float
    last: float


@dataclass(frozen=True)
class Chart:
    """A query made ready to draw."""

    query: Query
    title: str
    lines: tuple[Line, ...]
    hidden: int  # series not drawn
    data: dict[str, list[dict[str, Any]]]  # all but the curves: windows, gaps, alerts, bounds
    params: dict[str, Any]
    off: list[str]  # bounds too far away to be drawn


def charts(retro: Retrospective) -> list[Chart]:
    """Every query, thinned so that the page stays small however many there are."""
    drawn = sum(min(DRAWN, len(q.series)) for q in retro.queries)
    each = max(60, min(POINTS, ALL_POINTS // max(1, drawn)))
    return [chart(retro, q, each) for q in retro.queries]


def chart(retro: Retrospective, query: Query, points: int = POINTS) -> Chart:
    """One query with the fault windows, alerts, gaps and bounds that belong to it."""
    moving = sorted(query.series, key=spread, reverse=True)[:DRAWN]
    lines = tuple(_line(s, query, retro.run.started, points, i) for i, s in enumerate(moving))
    bounds: list[dict[str, Any]] = [
        {"x": _ms(retro, b.start), "x2": _ms(retro, b.end), "y": y, "label": wording.figure(y, query.unit)}
        for b in query.limits
        for y in (b.low, b.high)
        if y is not None
    ]
    low, high = _domain(lines, [b["y"] for b in bounds])
    factor, suffix = wording.scale_for(query.unit, max(abs(low), abs(high)))
    return Chart(
        query=query,
        title=query.name or query.expression,
        lines=lines,
        hidden=len(query.series) - len(lines),
        data={
            "windows": windows(retro),
            "gaps": [{"x": _ms(retro, h.start), "x2": _ms(retro, h.end)} for h in query.holes],
            "alerts": alerts(retro),
            "bounds": bounds,
        },
        params={
            "x0": 0,
            "x1": max(1000, _ms(retro, retro.run.ended)),
            "y0": low,
            "y1": high,
            "factor": factor,
            "suffix": suffix,
        },
        off=list(dict.fromkeys(b["label"] for b in bounds if not low <= b["y"] <= high)),
    )


def windows(retro: Retrospective) -> list[dict[str, Any]]:
    """When each fault was in force; one that never came out lasts to the end of the log.

    `until` is where the next one begins: there is room for a name to there, or else for its step's number.
    """
    begun = sorted((f for f in retro.faults if f.start is not None), key=lambda f: f.start or 0)
    starts = [_ms(retro, f.start) for f in begun] + [_ms(retro, retro.run.ended)]
    return [
        {
            "x": starts[i],
            "x2": _ms(retro, f.out if f.out is not None else retro.run.ended),
            "until": starts[i + 1],
            "label": f.label,
            "step": f.step,
        }
        for i, f in enumerate(begun)
    ]


def alerts(retro: Retrospective) -> list[dict[str, Any]]:
    """The first firing of each alert."""
    first: dict[str, float] = {}
    for track in retro.alerts:
        for span in track.spans:
            if span.state == "firing":
                first[track.name] = min(first.get(track.name, math.inf), span.start)
    ranked = sorted(first.items(), key=lambda item: item[1])
    return [
        {"x": _ms(retro, at), "name": name, "label": "", "row": row} for row, (name, at) in enumerate(ranked)
    ]


def _ms(retro: Retrospective, at: float | None) -> int:
    return round(((at or retro.run.started) - retro.run.started) * 1000)


def _line(series: Series, query: Query, start: float, points: int, rank: int) -> Line:
    real = [v for v in series.values if v == v]
    return Line(
        label=wording.labels(series.labels),
        points=[(t - start, v) for t, v in thin(series, query.step, points)],
        colour=min(rank, COLOURED),
        low=min(real, default=math.nan),
        high=max(real, default=math.nan),
        last=real[-1] if real else math.nan,
    )


def _domain(lines: Sequence[Line], bounds: Sequence[float]) -> tuple[float, float]:
    """The range of the value axis: the curves, zero where it is near, and bounds that don't flatten them."""
    lows, highs = [x.low for x in lines if x.low == x.low], [x.high for x in lines if x.high == x.high]
    low, high = min(lows, default=0.0), max(highs, default=1.0)
    reach = max(high - low, abs(high)) or 1.0
    for y in bounds:
        if low - reach <= y <= high + reach:
            low, high = min(low, y), max(high, y)
    if low >= 0 and low < high * 0.6:
        low = 0.0
    pad = (high - low or abs(high) or 1.0) * 0.09
    return (low if low == 0 else low - pad), high + pad


def rows(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The curves as Vega-Lite reads them, grey ones first so that colours lie on top."""
    return [
        {"t": round(t * 1000), "v": v, "s": i, "c": line.colour}
        for i, line in reversed(list(enumerate(lines)))
        for t, v in line.points
    ]


def key_query(retro: Retrospective) -> Query | None:
    """The query that tells most: that of the steady-state probe that broke, else of the closest call."""

    def margin(h: Hypothesis) -> tuple[bool, float]:
        known = [r.margin for r in (h.broke, h.worst) if r and r.margin is not None]
        return h.holds is not False, min(known, default=math.inf)

    drawn = {q.name: q for q in retro.queries if q.series}
    ranked = [drawn[h.probe] for h in sorted(retro.hypothesis, key=margin) if h.probe in drawn]
    return next(iter([*ranked, *drawn.values()]), None)


def png(retro: Retrospective) -> bytes:
    """The key chart as a picture for Slack; empty when nothing was sampled."""
    query = key_query(retro)
    if query is None:
        return b""
    import vl_convert

    drawn = chart(retro, query)
    spec = copy.deepcopy(chart_spec.specification())
    for param in spec["params"]:
        param["value"] = drawn.params[param["name"]]
    spec["datasets"] = {**drawn.data, "samples": rows(drawn.lines)}
    for alert in drawn.data["alerts"][
        :4
    ]:  # a picture can't be asked; the page names alerts above its timeline
        alert["label"] = alert["name"]
    shown = f" ({', '.join(x.label for x in drawn.lines[:3])}…)" if len(drawn.lines) > 1 else ""
    spec |= {
        "width": 860,
        "height": 280,
        "background": "#ffffff",
        "padding": 16,
        "autosize": {"type": "pad"},
        "title": {
            "text": clip(drawn.title, 110),
            "subtitle": clip(f"{retro.run.title or retro.run.name}{shown}", 130),
            "anchor": "start",
            "subtitleColor": LIGHT["--muted"],
            "offset": 12,
        },
    }
    return bytes(vl_convert.vegalite_to_png(_painted(spec), vl_version=chart_spec.VEGA_LITE, scale=2))


def _painted(value: Any) -> Any:
    """The page's colour names (`var(--ink)`) replaced by the light theme's colours."""
    if isinstance(value, dict):
        return {k: _painted(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_painted(v) for v in value]
    if isinstance(value, str) and value.startswith("var("):
        return LIGHT[value[4:-1]]
    return value
