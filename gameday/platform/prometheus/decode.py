"""What Prometheus' answers mean: samples, series, alerts, rules, and whether an answer is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from gameday.platform.prometheus.errors import PrometheusError, quoted

T = TypeVar("T")
Sample = tuple[dict[str, str], float]


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a range query: Unix seconds and value, in order, on multiples of the step."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class ActiveAlert:
    """An alert that is `firing` or `pending`; its labels are those of the alert, alertname included."""

    name: str
    state: str
    labels: dict[str, str]


def understood(what: str, read: Callable[[Any], T], data: Any) -> T:
    """What `read` makes of the answer to `what`. Raises PrometheusError for one of another form."""
    try:
        return read(data)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError):
        raise PrometheusError(f"Prometheus' answer to {quoted(what)} is not in the form of its API") from None


def warnings(answer: dict[str, Any]) -> list[str]:
    """What speaks against the whole of an answer.

    Prometheus before 3.0 sends remarks on the query among them; since then those are `infos` of their own.
    """
    told = answer.get("warnings") or []
    said = [str(text) for text in (told if isinstance(told, list) else [told])]
    # VictoriaMetrics' cluster answers so while a vmstorage is away ("Cluster availability" in its docs).
    said += ["isPartial: a part of the storage did not answer"] if answer.get("isPartial") is True else []
    return [text for text in said if not text.startswith("PromQL info:")]


def instant(data: dict[str, Any]) -> list[Sample]:
    kind, result = data["resultType"], data["result"]
    if kind == "scalar":
        return [({}, float(result[1]))]
    if kind != "vector":
        raise PrometheusError(
            f"the query gives a {kind}, expected a number or an instant vector"
            + (" (a range like `[5m]` needs a function around it, as `rate`)" if kind == "matrix" else ""),
            kind="bad_data",
        )
    found = [(dict(series["metric"]), float(_value(series, "value")[1])) for series in result or ()]
    if len({frozenset(labels.items()) for labels, _ in found}) < len(found):
        raise PrometheusError("Prometheus gives one series twice: which of them is right?", kind="duplicate")
    return found


def matrix(data: dict[str, Any]) -> list[Series]:
    if data["resultType"] != "matrix":
        raise ValueError(data["resultType"])
    return [
        Series(series["metric"], [(at, float(text)) for at, text in _value(series, "values")])
        for series in data["result"] or ()
    ]


def _value(series: dict[str, Any], key: str) -> Any:
    if key not in series and series.keys() & {"histogram", "histograms"}:
        why = "the query gives whole histograms: put histogram_quantile around it"
        raise PrometheusError(why, kind="bad_data")
    return series[key]


def alert(labels: dict[str, str]) -> ActiveAlert:
    """An alert by the labels of its ALERTS series."""
    labels.pop("__name__", None)
    return ActiveAlert(labels.get("alertname", ""), labels.pop("alertstate", "firing"), labels)


def active_alerts(data: dict[str, Any]) -> list[ActiveAlert]:
    """The alerts of /api/v1/alerts, as Prometheus, vmalert and the rulers of Thanos and Mimir list them."""
    return [
        ActiveAlert(labels.get("alertname", ""), one["state"], dict(labels))
        for one in data.get("alerts") or ()
        if one["state"] in ("firing", "pending")
        for labels in [{"alertname": str(one["name"]), **one["labels"]} if "name" in one else one["labels"]]
    ]


def rule_names(data: dict[str, Any]) -> frozenset[str]:
    """The names; Go writes an empty list as null, and some servers leave it out."""
    groups: Iterable[dict[str, Any]] = data.get("groups") or ()
    rules: Iterable[dict[str, Any]] = (rule for group in groups for rule in group.get("rules") or ())
    return frozenset(rule["name"] for rule in rules if rule.get("type", "alerting") == "alerting")
