"""report.json: the retrospective for programs, as reports/README.md documents it.

`version` rises when a key changes its meaning or goes.

Curves are told by their figures; their points are in events.jsonl.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from gameday.report.model import REPORT_VERSION, Query, Retrospective


def document(retro: Retrospective) -> dict[str, Any]:
    """Plain data, keys as the fields of the model."""
    body = {f.name: _plain(getattr(retro, f.name)) for f in fields(retro) if f.name != "queries"}
    body["run"]["duration"] = retro.run.duration
    body["queries"] = [_query(q) for q in retro.queries]
    return {"version": REPORT_VERSION, **body}


def dumps(retro: Retrospective) -> str:
    """The file's text."""
    return json.dumps(document(retro), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Dataclasses as objects, tuples as arrays, and no number that JSON lacks."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(k).rstrip("_"): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _query(query: Query) -> dict[str, Any]:
    series = []
    for s in query.series:
        real = [v for v in s.values if v == v]
        series.append(
            {
                "labels": _plain(dict(s.labels)),
                "points": len(real),
                "low": min(real, default=None),
                "high": max(real, default=None),
                "first": real[0] if real else None,
                "last": real[-1] if real else None,
            }
        )
    body = {f.name: _plain(getattr(query, f.name)) for f in fields(query) if f.name != "series"}
    return {**body, "series": series}
