"""Each rule finds what it should in a log made for it, and nothing in a log without it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gameday import events as ev
from gameday.experiment.expect import Expectation
from gameday.experiment.model import ExpectAlert
from gameday.report import analyse
from gameday.report.model import Finding
from gameday.run.expected import ExpectedAlerts
from tests.report import logs

pytestmark = pytest.mark.fast
FAULT: dict[str, Any] = {"step": "1", "name": "drain", "kind": "drain"}
EARLY = "alert A was firing before the fault went in, so it proves nothing"
PROBE = {"name": "p", "prometheus": "up", "is": "< 10"}


def found(*events: tuple[float, ev.Event], **spec: Any) -> dict[str, Finding]:
    """The findings of a small run in which one fault is in from 10 s to 20 s."""
    w = logs.Writer()
    document = {"metadata": {"name": "x"}, "spec": {"title": "x", "steadyState": [PROBE], **spec}}
    w(0, logs.started(document))
    for at, state in ((10.0, "injecting"), (11.0, "in"), (20.0, "out")):
        w(at, ev.Fault(**FAULT, state=state))
    for at, event in events:
        w(at, event)
    w(100, ev.Verdict(verdict="passed", reason="held", exit_code=0))
    return {f.rule: f for f in analyse(w.sorted()).findings}


def probed(state: str = "holds", value: float | None = 5.0, **more: Any) -> ev.Probed:
    margin = None if value is None else (10 - value) / 10
    facts: dict[str, Any] = {"high": 10.0, "margin": margin, "expected": "< 10", **more}
    return ev.Probed(probe="p", state=state, value=value, **facts)


CALM = [(5.0, probed()), (15.0, probed(during=True)), (21.0, probed()), (90.0, probed())]


def test_nothing_is_found_in_a_calm_run() -> None:
    assert found(*CALM) == {}


def test_a_close_call() -> None:
    finding = found(*CALM, (16, probed(value=9.5, during=True)))["close-call"]
    assert finding.title == "Close call: “p” came to 9.5, margin +5%"


def test_what_broke() -> None:
    finding = found(*CALM, (16, probed("broken", 12.0, during=True)))["steady-state"]
    assert finding.title == "“p” did not hold: 12 where < 10 was expected"
    assert "margin −20%" in finding.evidence[1]


def test_no_data_is_never_healthy_and_unreachable_says_nothing() -> None:
    assert (
        "could not be told: no data"
        in found(*CALM, (16, probed("no-data", None, during=True)))["steady-state"].title
    )
    rules = found(*CALM, (16, probed("unreachable", None, during=True)), (18, probed(during=True)))
    assert set(rules) == {"probe-blind"}
    assert rules["probe-blind"].title == "Probe “p” was blind for 2 s (could not ask)"


def test_a_state_of_a_newer_version_is_no_proof_of_health() -> None:
    finding = found(*CALM, (16, probed("from-the-future", 5.0, during=True)))["steady-state"]
    assert finding.title == "“p” could not be told: no data"


def test_a_slow_recovery() -> None:
    slow = [(5.0, probed()), (21.0, probed("broken", 20.0)), (70.0, probed())]
    finding = found(*slow, recovery={"within": "30s"})["recovery"]
    assert finding.title == "Recovery after 1 drain took 50 s; the objective is 30 s"
    assert "recovery" not in found(*slow, recovery={"within": "1m"})


def test_a_recovery_that_never_came() -> None:
    never = [(5.0, probed()), (21.0, probed("broken", 20.0)), (90.0, probed("broken", 20.0))]
    rules = found(*never, recovery={"within": "30s"})
    assert "did not come" in rules["recovery"].title
    assert "steady-state" in rules


@pytest.mark.parametrize(
    ("at", "rule"), [(14, None), (40, "alert-late"), (None, "alert-missing"), (8, "alert-early")]
)
def test_expected_alerts(at: float | None, rule: str | None) -> None:
    alert = [] if at is None else [(at, ev.Alert(alert="A", state="firing", labels={"node": "n"}))]
    rules = found(*CALM, *alert, expectAlerts=[{"alert": "A", "within": "10s", "labels": {"node": "n"}}])
    assert set(rules) == ({rule} if rule else set())


@pytest.mark.parametrize(
    ("fired", "rule", "sentence"),
    [
        ([(14, "firing")], "", ""),
        ([(14, "pending"), (40, "firing")], "alert-late", "alert A fired after 30 s, not within 10 s"),
        ([(14, "pending")], "alert-missing", "alert A never fired"),
        ([(4, "firing"), (8, "resolved")], "alert-missing", "alert A never fired"),
        ([(4, "firing")], "alert-early", EARLY),
        ([(4, "firing"), (50, "resolved")], "alert-early", EARLY),
        ([(4, "firing"), (12, "pending"), (14, "firing")], "", ""),
    ],
)
def test_the_verdict_and_the_report_judge_an_expected_alert_alike(
    fired: list[tuple[float, str]], rule: str, sentence: str
) -> None:
    wanted = ExpectAlert(alert="A", within=10, labels={"node": "n"})
    engine = ExpectedAlerts([wanted])
    alerts = [(at, ev.Alert(alert="A", state=state, labels={"node": "n"})) for at, state in fired]
    for at, event in sorted([*alerts, (10, ev.Fault(**FAULT, state="injecting"))], key=lambda e: e[0]):
        engine.hear(replace(event, at=logs.START + at))
    assert engine.missed() == ([sentence] if sentence else [])
    rules = found(*CALM, *alerts, expectAlerts=[wanted.model_dump(by_alias=True)])
    assert set(rules) == ({rule} if rule else set())


def test_an_alert_with_other_labels_is_another_alert() -> None:
    other = (14, ev.Alert(alert="A", state="firing", labels={"node": "m"}))
    rules = found(*CALM, other, expectAlerts=[{"alert": "A", "within": "10s", "labels": {"node": "n"}}])
    assert set(rules) == {"alert-missing"}


def test_left_and_kept_objects() -> None:
    change: dict[str, Any] = {"entry": 1, "step": "1", "operation": "patch", "object": "Node n"}
    made = [(12.0, ev.Change(**change, state="made", summary="cordoned"))]
    assert "`gameday recover --run" in found(*CALM, *made)["not-restored"].action
    kept = ev.Audited(object="Node n", state="kept", message="someone set it to false")
    assert found(*CALM, *made, (95, kept))["kept"].evidence == ("someone set it to false",)


def test_a_fault_that_failed() -> None:
    assert found(*CALM, (19, ev.Fault(**FAULT, state="failed", message="403: no eviction")))[
        "fault-failed"
    ].evidence == ("403: no eviction",)


def test_samples_beyond_the_bound_that_no_probe_saw() -> None:
    points = [[logs.START + t, 11.0 if t == 15 else 5.0] for t in range(0, 100, 5)]
    rules = found(
        *CALM,
        (1, ev.QueryDeclared(query=1, expression="up", purpose="steady-state", name="p", step=5)),
        (99, ev.Samples(query=1, series=[{"labels": {}, "points": points}])),
    )
    assert rules["close-call"].severity == "warning"
    assert "crossed its bound between two probes" in rules["close-call"].title


@pytest.mark.parametrize(("text", "high"), [("<= 0", 0.0), ("<= 1", 1.0)])
def test_a_bound_of_nothing_is_a_bound(text: str, high: float) -> None:
    points = [[logs.START + t, 5.0 if t == 15 else 0.0] for t in range(0, 100, 5)]
    bound = Expectation.parse(text)
    held: dict[str, Any] = {"value": 0.0, "high": high, "expected": text, "margin": bound.margin(0.0)}
    rules = found(
        (5.0, probed(**held)),
        (15.0, probed(during=True, **held)),
        (90.0, probed(**held)),
        (1, ev.QueryDeclared(query=1, expression="up", purpose="steady-state", name="p", step=5)),
        (99, ev.Samples(query=1, series=[{"labels": {}, "points": points}])),
    )
    assert rules["close-call"].title == "“p” crossed its bound between two probes: 5"


@pytest.mark.parametrize(
    ("end", "severity"),
    [("corrected", "notice"), ("did not correct", "warning"), ("did not notice", "warning")],
)
def test_drift(end: str, severity: str) -> None:
    texts = ["Argo CD noticed the drift of spec.replicas after 0.4 s"] if "notice" not in end else []
    texts.append(f"Argo CD {end} the drift of spec.replicas after 7.0 s")
    finding = found(*CALM, *((12, ev.Progress(step="1", message=text)) for text in texts))["drift"]
    assert (finding.severity, finding.title) == (severity, texts[-1])
    assert finding.evidence == tuple(texts[:-1])
    assert bool(finding.action) == (severity == "warning")
