"""A verdict claims what the audit saw, and no more."""

from __future__ import annotations

import pytest

from gameday.events import Audited, Ended
from gameday.run.verdict import Outcome

pytestmark = pytest.mark.fast

RESTORED = Audited(object="Node gpu-1", state="restored")
KEPT = Audited(object="Deployment web/front", state="kept", message="spec.replicas was changed to 4 by hpa")
PODS = [
    Audited(object=f"Pod web/front-{n}", state="irreversible", message="…", done="ended") for n in range(3)
]
JOB = Audited(object="SlurmJob 17", state="irreversible", done="requeued")
GONE = Ended(object="Pod web/front-9", done="replaced")
UNSEEN = Audited(object="Activity stop-it", state="restored", read_back=False)


def _said(*audits: Audited, begun: bool = True, **more: str) -> str:
    outcome = Outcome(begun=begun, **more)  # type: ignore[arg-type]
    outcome.add_audit(list(audits))
    return outcome.verdict().reason


@pytest.mark.parametrize(
    ("audits", "ending"),
    [
        ([], "nothing was changed"),
        ([RESTORED], "everything was put back"),
        (
            [RESTORED, KEPT],
            "left as someone else changed it: Deployment web/front; everything else was put back",
        ),
        ([RESTORED, *PODS], "3 pods were ended; everything else was put back"),
        (PODS[:1], "1 pod was ended"),
        ([JOB], "1 job was requeued"),
        ([KEPT], "left as someone else changed it: Deployment web/front"),
        ([UNSEEN], "undone, but nobody can read back what it changed: Activity stop-it"),
    ],
)
def test_the_sentence_of_every_verdict_names_what_was_not_put_back(
    audits: list[Audited], ending: str
) -> None:
    assert _said(*audits) == f"steady state held within its bounds; {ending}"
    assert _said(*audits, aborted="too slow") == f"too slow; {ending}"
    assert _said(*audits, interrupted="SIGINT") == f"SIGINT; {ending}"
    assert _said(*audits, defect="ZeroDivisionError") == f"gameday has a defect: ZeroDivisionError; {ending}"


@pytest.mark.parametrize(
    ("audits", "ended", "ending"),
    [
        ([RESTORED], [GONE], "1 pod was replaced; everything else was put back"),
        (
            [*PODS],
            [Ended(object="Pod web/front-1", done="replaced", count=3)],
            "2 pods were ended; 3 pods were replaced",
        ),
        (
            PODS[:1],
            [Ended(object="Pod web/front-0", done=done) for done in ("replaced", "ended")],
            "1 pod was ended; 1 pod was replaced",
        ),
        (PODS[:1], [Ended(object="Pod web/front-0", done="ended for good")], "1 pod was ended for good"),
        (
            [RESTORED],
            [GONE, Ended(object="Pod web/x", done="replaced", at_least=True)],
            "at least 2 pods were replaced; everything else was put back",
        ),
        (
            [RESTORED],
            [GONE, Ended(object="Pod web/x", done=""), Ended(object="Node gpu-1", done="replaced")],
            "nobody could see whether it was ended: Pod web/x; 1 node was replaced; 1 pod was replaced; "
            "everything else was put back",
        ),
    ],
)
def test_what_was_seen_to_be_gone_is_counted_whichever_change_ended_it(
    audits: list[Audited], ended: list[Ended], ending: str
) -> None:
    outcome = Outcome(begun=True)
    outcome.add_audit(audits)
    outcome.ended = ended
    assert outcome.verdict().reason == f"steady state held within its bounds; {ending}"


def test_a_deviation_is_told_with_what_others_changed() -> None:
    outcome = Outcome(begun=True, deviations=["latency rose", "errors rose"])
    outcome.add_audit([RESTORED, KEPT])
    reason = outcome.verdict().reason
    assert reason == "latency rose (and 1 more); left as someone else changed it: Deployment web/front"


def test_no_probe_is_said_to_have_held_that_was_not_measured_while_a_fault_was_in() -> None:
    outcome = Outcome(begun=True, unseen=["p99 latency", "throughput"])
    outcome.add_audit([RESTORED])
    assert outcome.verdict().reason == (
        "steady state held within its bounds where it was seen; not measured while a fault was in: "
        "p99 latency (and 1 more); everything was put back"
    )


def test_without_an_audit_nothing_is_claimed() -> None:
    assert Outcome(begun=True, interrupted="SIGINT").verdict().reason == (
        "SIGINT; what was changed has not been looked at again"
    )


def test_what_is_left_comes_before_everything() -> None:
    left = Audited(object="Node gpu-1", state="left", message="still changed")
    outcome = Outcome(begun=True, aborted="too slow")
    outcome.add_audit([left, KEPT])
    verdict = outcome.verdict()
    assert (verdict.verdict, verdict.exit_code) == ("not-restored", 5)
    assert verdict.reason == "not everything was put back: Node gpu-1: still changed"


@pytest.mark.parametrize(("count", "pods"), [(1, "1 pod was"), (3, "3 pods were")])
def test_pods_that_others_ended_since_they_reacted_are_named(count: int, pods: str) -> None:
    outcome = Outcome(begun=True, reacted=count)
    outcome.add_audit([RESTORED])
    said = f"{pods} ended by what reacted to the fault"
    assert outcome.verdict().reason.endswith(f"; {said}; everything else was put back")
    outcome.deviations.append("an alert never fired")
    assert outcome.verdict().reason == f"an alert never fired; {said}"
