"""What a pod's status tells of its program, in the kubelet's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gameday.ledger.node_report import last_words, started, waiting_for

pytestmark = pytest.mark.fast
OUT = {"event": "out", "facts": ["state is up"]}
NO_PYTHON = {
    "exitCode": 128,
    "reason": "StartError",
    "message": 'failed to create containerd task: exec: "python3": executable file not found in $PATH',
}


def pod(
    state: dict[str, Any] | None = None, past: dict[str, Any] | None = None, **status: Any
) -> dict[str, Any]:
    entry = {"name": "program", "state": state or {}, "lastState": past or {}, "restartCount": 0}
    entry["restartCount"] = status.pop("restarts", 0)
    return {
        "status": {"phase": "Running", "containerStatuses": [entry] if state is not None else [], **status}
    }


def test_one_that_runs() -> None:
    running = pod(
        {"running": {"startedAt": "2026-11-22T05:00:00Z"}}, {"terminated": {"message": json.dumps(OUT)}}
    )
    assert started(running)
    assert last_words(running) is None  # those of the one before are none of its own


def test_one_that_ended() -> None:
    ended = pod({"terminated": {"exitCode": 0, "reason": "Completed", "message": json.dumps(OUT) + "\n"}})
    assert started(ended)
    assert last_words(ended) == OUT


def test_one_that_was_killed_has_no_last_words() -> None:
    killed = pod({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})
    assert started(killed)
    assert last_words(killed) is None
    assert waiting_for(killed) == "OOMKilled; exit code 137"


def test_one_that_waits_to_be_started_again() -> None:
    waiting = {
        "waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}
    }
    again = pod(waiting, {"terminated": {"exitCode": 1, "reason": "Error", "message": json.dumps(OUT)}})
    assert started(again)
    assert last_words(again) == OUT
    assert waiting_for(again).startswith("CrashLoopBackOff: back-off 10s")


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (pod(), "Pending"),
        (
            pod(conditions=[{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3"}]),
            "Unschedulable: 0/3",
        ),
        (
            pod({"waiting": {"reason": "ErrImagePull", "message": "no such host"}}),
            "ErrImagePull: no such host",
        ),
        (pod({"terminated": NO_PYTHON}), f"StartError: {NO_PYTHON['message']}"),
        (
            pod(phase="Failed", reason="OutOfcpu", message="Node didn't have enough"),
            "OutOfcpu: Node didn't have enough",
        ),
    ],
)
def test_one_that_never_ran(found: dict[str, Any], why: str) -> None:
    if why == "Pending":
        found["status"]["phase"] = why
    assert not started(found)
    assert last_words(found) is None
    assert waiting_for(found) == why


def test_one_that_was_started_twice_may_have_run_the_first_time() -> None:
    assert started(pod({"terminated": NO_PYTHON}, restarts=1))


def test_what_a_tool_printed_is_no_last_word() -> None:
    assert (
        last_words(
            pod({"terminated": {"message": 'Killed\n[1]\n{"event": "out", "facts": ["state is up"]}'}})
        )
        == OUT
    )
