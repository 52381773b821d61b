"""What a game day's log tells: the figures an SRE would ask for, from one synthetic run."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from gameday import events as ev
from gameday.experiment.model import Probe
from gameday.report import analyse
from gameday.report.model import Retrospective
from tests.report import logs

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def retro() -> Retrospective:
    return analyse(logs.game_day())


def test_the_hypothesis_table(retro: Retrospective) -> None:
    rows = {h.probe: h for h in retro.hypothesis}
    assert list(rows) == ["p99 latency", "training throughput", "error ratio", "app"]
    p99, ratio = rows["p99 latency"], rows["error ratio"]
    assert (p99.before and p99.before.value, p99.worst and p99.worst.value) == (0.322, 1.87)
    assert p99.holds
    assert p99.margin == pytest.approx(0.065)
    assert ratio.holds is False
    assert ratio.broke
    assert ratio.broke.value == 0.0161
    assert ratio.broken_for == pytest.approx(30)
    assert rows["training throughput"].holds, "ignored during the fault; its slow return is for the recovery"
    assert rows["training throughput"].limits == "≥ 3,690"


def test_the_kind_of_a_probe_is_none_of_what_every_probe_has() -> None:
    names = [field.alias or name for name, field in Probe.model_fields.items()]
    document = copy.deepcopy(logs.EXPERIMENT)
    document["spec"]["steadyState"] = [{**dict.fromkeys(names, "1s"), "name": "p", "http": "http://x"}]
    (row,) = analyse([logs.started(document)]).hypothesis
    assert row.kind == "http"


def test_what_mended_itself_in_time_held() -> None:
    """The longest of two spells counts, and the worst of what was tolerated is shown."""
    throughput: dict[str, Any] = {"probe": "training throughput", "during": True}
    spells = [(70, "broken", 0.0), (90, "holds", 4100.0), (100, "broken", 100.0), (105, "holds", 4100.0)]
    told = [
        ev.Probed(
            at=logs.START + at, state=state, value=value, ignored=state == "broken", margin=0.0, **throughput
        )
        for at, state, value in spells
    ]
    others = [
        e
        for e in logs.game_day()
        if not (isinstance(e, ev.Probed) and e.probe == "training throughput" and e.during)
    ]
    events = sorted([*others, *told], key=lambda e: e.at)
    started = next(e for e in events if isinstance(e, ev.RunStarted))
    experiment = copy.deepcopy(started.experiment)
    stated = next(p for p in experiment["spec"]["steadyState"] if p["name"] == "training throughput")
    stated |= {"within": "45s"}
    events[events.index(started)] = replace(started, experiment=experiment)
    row = next(h for h in analyse(events).hypothesis if h.probe == "training throughput")
    assert (row.holds, row.within, row.mended_after) == (True, 45.0, 20.0)
    assert row.worst
    assert row.worst.value == 0.0


def test_a_probe_that_was_not_measured_while_a_fault_was_in_did_not_hold_either() -> None:
    calm = [e for e in logs.game_day() if not (isinstance(e, ev.Probed) and e.during)]
    rows = {h.probe: h for h in analyse(calm).hypothesis}
    row = rows["error ratio"]
    assert (row.holds, row.measured, row.unjudged) == (None, 0, "not seen")
    assert rows["training throughput"].holds, "nothing was expected of it while the fault was in"


def test_the_worst_value_is_found_between_two_probes() -> None:
    """The curve is drawn more often than the probe is asked."""
    events = [e for e in logs.game_day() if not (isinstance(e, ev.Probed) and e.value == 1.87)]
    worst = next(h for h in analyse(events).hypothesis if h.probe == "p99 latency").worst
    assert worst
    assert worst.sampled
    assert isinstance(worst.value, float)
    assert 1.3 < worst.value < 1.5


def test_detection_counts_from_the_first_fault(retro: Retrospective) -> None:
    fired, never = retro.detection
    assert (fired.outcome, fired.took, fired.within) == ("fired", 24.5, 120)
    assert (never.alert, never.outcome, never.ok) == ("TrainingStalled", "never", False)


def test_an_alert_that_fired_before_the_fault_proves_nothing() -> None:
    early = [
        replace(e, at=logs.START + 10) if isinstance(e, ev.Alert) and e.state == "firing" else e
        for e in logs.game_day()
        if not (isinstance(e, ev.Alert) and e.state == "pending")
    ]
    assert analyse(early).detection[0].outcome == "already-firing"


def test_detection_is_open_while_there_was_still_time() -> None:
    cut = [e for e in logs.game_day() if e.at < logs.START + 80]
    assert {d.outcome for d in analyse(cut).detection} == {"unknown"}


def test_recovery_per_fault(retro: Retrospective) -> None:
    drain, delay = retro.recovery
    assert (drain.took, drain.ok) == (38, True)
    assert (drain.detected, drain.detected_by) == (6, "probe training throughput")
    assert (delay.took, delay.ok, delay.detected) == (0, True, None)


def test_a_fault_that_never_came_out_has_no_recovery() -> None:
    cut = [e for e in logs.game_day() if e.at < logs.START + 300]
    only = analyse(cut).recovery[0]
    assert (only.took, only.ok, only.note) == (None, None, "the log ends while it is in force")


def test_what_was_touched(retro: Retrospective) -> None:
    states = {t.object: t.state for t in retro.touched}
    assert states["Node gpu-3"] == "restored"
    assert states["Pod inference/inference-6d4cf-00"] == "irreversible"
    cut = analyse([e for e in logs.game_day() if e.at < logs.START + 300])
    assert {t.object for t in cut.touched if t.state == "left"} == {"Node gpu-3", "Node gpu-7"}


def test_findings_are_ordered_and_point_at_the_log(retro: Retrospective) -> None:
    rules = [f.rule for f in retro.findings]
    assert rules == [
        "steady-state",
        "steady-state",
        "alert-missing",
        "alert-unexpected",
        "close-call",
        "budget",
        "gap",
        "kubernetes-warning",
        "warning",
    ]
    by_seq = {e.seq: e for e in logs.game_day()}
    for finding in retro.findings:
        assert finding.seqs
        assert all(seq in by_seq for seq in finding.seqs)
    broke = by_seq[retro.findings[0].seqs[0]]
    assert isinstance(broke, ev.Probed)
    assert broke.probe == "error ratio"


def test_the_same_log_gives_the_same_retrospective(retro: Retrospective) -> None:
    assert analyse(logs.game_day()) == retro


def test_repetitions_are_folded(retro: Retrospective) -> None:
    scheduling = [m for m in retro.timeline if m.text == "FailedScheduling"]
    assert [(m.count, len(m.objects)) for m in scheduling] == [(18, 6)]
    assert [m.seq for m in retro.timeline] == sorted(m.seq for m in retro.timeline)


def test_a_gap_is_told_until_it_is_filled(retro: Retrospective) -> None:
    p99 = retro.queries[0]
    assert [(h.start - logs.START, h.reason) for h in p99.holes] == [
        (575, "Prometheus refused the connection")
    ]
    late = {"labels": {}, "points": [[logs.START + t, 0.4] for t in range(575, 635, 5)]}
    filled = analyse([*logs.game_day(), ev.Samples(query=1, series=[late], at=logs.START + 900, seq=999)])
    assert filled.queries[0].holes == ()
    assert list(filled.queries[0].series[0].times) == sorted(filled.queries[0].series[0].times)


def test_samples_of_which_there_may_be_more_are_a_gap_whatever_is_there() -> None:
    start, end = logs.START + 100, logs.START + 160
    told = ev.Gap(query=2, start=start, end=end, reason="store-1", partial=True, at=end, seq=999)
    found = analyse([*logs.game_day(), told])
    (hole,) = found.queries[1].holes
    assert (hole.start - logs.START, hole.end - logs.START, hole.partial) == (100, 160, True)
    assert [m.detail for m in found.timeline if m.text == "Samples only in part for 1 min"] == ["store-1"]


def test_bounds_follow_the_faults(retro: Retrospective) -> None:
    limits = [(round(b.start - logs.START), b.high) for b in retro.queries[0].limits]
    assert limits == [(0, 0.5), (64, 2.0), (424, 0.5), (516, 2.0), (699, 0.5)]


def test_commands_quote_and_hide(retro: Retrospective) -> None:
    command, again = retro.again
    assert command == (
        "gameday run experiments/drain-two-gpu-nodes.yaml --seed 41 --set latency=500ms --set 'api_token=…'"
    )
    assert again == "gameday report 2026-11-18-drain-two-gpu-nodes-7f3a"


def test_the_log_alone_carries_it_all(retro: Retrospective) -> None:
    """What goes through the file is what was told."""
    decoded = [ev.decode(ev.encode(e)) for e in logs.game_day()]
    assert analyse([e for e in decoded if e is not None]) == retro


def test_an_abort_condition_is_news_only_when_it_is_met() -> None:
    """It is well for an abort condition not to hold, so its words differ from a probe's."""
    w = logs.Writer()
    w(0, logs.started())
    for at, state, value in ((1, "broken", 12.0), (20, "holds", 1.0), (30, "broken", 9.0)):
        w(at, ev.Probed(probe="up", state=state, value=value, purpose="abort", expected="< 2"))
    told = [(m.text, m.tone) for m in analyse(w.sorted()).timeline]
    assert told == [
        ("Abort condition up is met: 1, which is < 2", "bad"),
        ("Abort condition up is not met any more: 9", "good"),
    ]
