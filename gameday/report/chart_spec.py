"""One chart specification for every curve, as Vega-Lite's own JSON: interactive in the page, PNG for Slack.

Time is drawn since the start of the run, as milliseconds of a UTC axis, so that ticks fall on whole
minutes. Everything that differs from chart to chart is data or a parameter, so that a page holds the
specification once. It is written out here: Altair, which would write it, takes half a second to import.
"""

from __future__ import annotations

import functools
from typing import Any

VEGA_LITE = "6.4"  # the version that it is written for; vl-convert brings several
COLOURED = 6  # series drawn in colour, those that move most; the rest is grey

_COLOURS = [f"var(--c{i})" for i in range(COLOURED)] + ["var(--rest)"]
_CLOCK = (
    "(datum.value < 0 ? '−' : '') + (abs(datum.value) >= 3600000 ? floor(abs(datum.value) / 3600000) + ':' "
    "+ utcFormat(abs(datum.value), '%M:%S') : utcFormat(abs(datum.value), '%-M:%S'))"
)
_FIGURE = "format(datum.value * factor, ',.3~r') + suffix"
_DIGIT = 7  # pixels, at most, of a character of a name in a chart
_FONT = "Inter, 'Segoe UI', 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
_CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "gridColor": "var(--line)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 11,
    },
    "axisY": {"domain": False, "ticks": False, "labelPadding": 8},
    "text": {"fontSize": 10.5},
    "title": {"color": "var(--ink)", "fontSize": 14, "fontWeight": 600, "subtitleFontSize": 12},
}


@functools.cache
def specification() -> dict[str, Any]:
    """The chart: faults shaded, gaps grey, alerts and bounds ruled, curves on top; its data is named."""
    axis = {"labelExpr": _CLOCK, "grid": False, "tickCount": {"expr": "width / 75"}, "labelFlush": False}
    scale = {"type": "utc", "domainMin": {"expr": "x0"}, "domainMax": {"expr": "x1"}, "nice": False}
    time: dict[str, Any] = {"type": "temporal", "title": None, "scale": scale, "axis": axis}
    figures = {"labelExpr": _FIGURE, "tickCount": 5, "minExtent": 64}
    limits = {"domainMin": {"expr": "y0"}, "domainMax": {"expr": "y1"}, "zero": False, "nice": False}
    value: dict[str, Any] = {"type": "quantitative", "title": None, "scale": limits, "axis": figures}
    x, moment = ({"field": name} | time for name in ("x", "t"))
    y, ruled = ({"field": name} | value for name in ("v", "y"))
    inside = {"value": {"expr": "clamp(scale('y', datum.y), 0, height)"}}  # else it makes a chart larger
    until, label = {"field": "x2"}, {"field": "label", "type": "nominal"}
    colours = {"domain": list(range(COLOURED + 1)), "range": _COLOURS}
    at = "clamp(scale('x', datum.x), 0, width)"
    room = f"(clamp(scale('x', datum.until), 0, width) - {at}) / {_DIGIT}"  # characters up to the next name
    fault_name = {
        "color": "var(--fault)",
        "align": "left",
        "baseline": "bottom",
        "dy": -4,
        "x": {"expr": at},
        # Whole, or the step's number alone: of a name that is cut a reader sees another one.
        "text": {"expr": f"length(datum.label) <= {room} ? datum.label : datum.step"},
        "opacity": {"expr": f"datum.x2 < x0 || datum.x > x1 || length(datum.step) > {room} ? 0 : 1"},
    }
    alert_name = {
        "color": "var(--alert)",
        "align": "left",
        "baseline": "bottom",
        "dx": 4,
        "dy": {"expr": "-3 - 13 * datum.row"},
    }
    bound_name = {
        "color": "var(--bound)",
        "align": "right",
        "baseline": "bottom",
        "dx": -4,
        "dy": -2,
        # Whole, however short its rule is: of a figure that is cut a reader sees another one.
        "x": {"expr": f"clamp(scale('x', datum.x2), min(width, {_DIGIT} * length(datum.label) + 4), width)"},
        "opacity": {"expr": "datum.x2 < x0 || datum.x > x1 || datum.y < y0 || datum.y > y1 ? 0 : 1"},
    }
    layers = [
        _layer("windows", "rect", {"color": "var(--fault)", "opacity": 0.1, "clip": True}, x=x, x2=until),
        _layer("windows", "rule", {"color": "var(--fault)", "opacity": 0.5, "clip": True}, x=x),
        _layer("windows", "text", fault_name, y={"value": 0}),
        _layer("gaps", "rect", {"color": "var(--muted)", "opacity": 0.16, "clip": True}, x=x, x2=until),
        _layer("alerts", "rule", {"color": "var(--alert)", "strokeDash": [2, 3], "clip": True}, x=x),
        _layer("alerts", "text", alert_name, x=x, y={"value": {"expr": "height"}}, text=label),
        _layer(
            "bounds",
            "rule",
            {"color": "var(--bound)", "strokeWidth": 1.5, "clip": True},
            x=x,
            x2=until,
            y=ruled,
        ),
        _layer("bounds", "text", bound_name, y=inside, text=label),
        _layer(
            "samples",
            "line",
            {"strokeWidth": 1.6, "clip": True, "interpolate": "linear"},
            x=moment,
            y=y,
            detail={"field": "s", "type": "nominal"},
            color={"field": "c", "type": "ordinal", "legend": None, "scale": colours},
        ),
    ]
    return {
        "$schema": f"https://vega.github.io/schema/vega-lite/v{VEGA_LITE}.json",
        "params": [{"name": n, "value": 0} for n in ("x0", "x1", "y0", "y1", "factor")]
        + [{"name": "suffix", "value": ""}],
        "layer": layers,
        "width": "container",
        "height": 200,
        "config": _CONFIG,
    }


def _layer(data: str, mark: str, look: dict[str, Any], **encoding: Any) -> dict[str, Any]:
    return {"data": {"name": data}, "mark": {"type": mark} | look, "encoding": encoding}
