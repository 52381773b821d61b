"""Reports of a program on a node, as far as its pod's status tells: its last words, or why it has none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gameday.ledger.node_pod import CONTAINER
from gameday.node.task import TOLD
from gameday.platform.objects import Object, condition

NOT_STARTED = ("StartError", "ContainerCannotRun")  # why a container "ended" that never ran


@dataclass(frozen=True)
class Report:
    """The state of a program: its events so far, and whether they are its last.

    `waiting` says why it does not run yet, `silent` why its log can't be read.
    """

    events: tuple[dict[str, Any], ...] = ()
    ended: bool = False
    waiting: str = ""
    silent: str = ""

    def event(self, name: str) -> dict[str, Any] | None:
        """The newest event of that name."""
        return next((e for e in reversed(self.events) if e.get("event") == name), None)


def _status(found: Object) -> Object:
    states = (found.get("status") or {}).get("containerStatuses") or ()
    return next((dict(s) for s in states if s["name"] == CONTAINER), {})


def state_of(found: Object) -> Object:
    return _status(found).get("state") or {}


def _ended(found: Object) -> Object:
    """How the container ended the last time; {} while it runs, or has not ended yet."""
    if state_of(found).get("running"):
        return {}
    past = _status(found).get("lastState") or {}
    return dict(state_of(found).get("terminated") or past.get("terminated") or {})


def started(found: Object) -> bool:
    """Whether the program may have run: its container was started at least once."""
    if state_of(found).get("running") or int(_status(found).get("restartCount") or 0) > 0:
        return True  # of one that was started again nobody can say how it went before
    return bool(_ended(found)) and _ended(found).get("reason") not in NOT_STARTED


def taken_up(found: Object) -> bool:
    """Whether the node's kubelet has said anything of the pod."""
    return bool((found.get("status") or {}).get("startTime"))


def last_words(found: Object) -> dict[str, Any] | None:
    """The message that the program left when it ended; None while it runs, or when it was killed."""
    return next(iter(lines_of(_ended(found).get("message") or "")), None)


def waiting_for(found: Object) -> str:
    """Why the container does not run, in the words of the kubelet or the scheduler."""
    status, ended = found.get("status") or {}, _ended(found)
    waiting = state_of(found).get("waiting") or {}
    reasons = [waiting, status, ended, condition(found, "PodScheduled")]
    texts = [f"{r.get('reason') or ''}: {r.get('message') or ''}".strip(": ") for r in reasons]
    if ended and not ended.get("message"):
        texts.append(f"exit code {ended.get('exitCode')}")
    return "; ".join(dict.fromkeys(t for t in texts if t)) or str(status.get("phase", ""))


def lines_of(text: str) -> list[dict[str, Any]]:
    """The JSON objects of a text, one in a line; what is none was not said by the program."""
    found = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def alone(last: dict[str, Any] | None) -> str:
    """Why a program reverted though nobody had asked it to, by its last words; "" when somebody had."""
    why = (last or {}).get("why", "")
    return f" (it reverted by itself: {why})" if why and why not in TOLD else ""


def words_of(last: dict[str, Any] | None) -> str:
    """Last words for people."""
    if not last:
        return ""
    said = [
        *last.get("problems", ()),
        *([last["error"]] if last.get("error") else ()),
        *last.get("facts", ()),
    ]
    return "; ".join(map(str, said))
