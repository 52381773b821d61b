"""The program's life: check, remember, change, hold, revert, and read back; one JSON line for each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gameday.node.actions import Action, action
from gameday.node.deadman import DeadMan
from gameday.node.host import Host, ToolError
from gameday.node.memory import Memory
from gameday.node.task import Task

TICK = 0.2
IN_WITHIN = 15.0  # seconds that a change may take until it is seen in force
OUT_WITHIN = 45.0  # and until it is seen gone
ASKS = 3  # times that the API server may fail to answer before the change is not made

Say = Callable[[dict[str, Any]], None]


class Program:
    """One task on one node. `say` gets each event; `run` returns the last of them."""

    def __init__(self, task: Task, host: Host, memory: Memory, switch: DeadMan, say: Say) -> None:
        self._task, self._host, self._memory, self._switch, self._say = task, host, memory, switch, say

    def run(self) -> dict[str, Any]:
        """The final state: {"event": "out", …} when nothing of ours is in force, else {"event": "failed", …}.

        Both carry `facts` as they were read back; `problems` and `error` say why nothing was changed.
        """
        kept = self._memory.load()
        try:
            doing = action(self._task.action, self._task.options)
        except Exception as error:
            problem = f"this program can't do {self._task.action}: {_why(error)}"
            if kept is not None:
                return self._tell("failed", error=problem, facts=["an earlier program left it in force"])
            return self._tell("out", problems=[problem], facts=["nothing was changed"])
        if kept is not None:
            why = "asked to" if self._task.mode == "revert" else "the program was cut off and started again"
            return self._revert(doing, kept["before"], why)
        if self._task.mode == "revert":
            return self._tell("out", facts=["nothing of this task is left on the node"])
        problems = self._check(doing)
        self._tell("checked", problems=problems)
        if problems or self._task.mode == "check":
            return self._tell("out", problems=problems, facts=["nothing was changed"])
        return self._change(doing)

    def _check(self, doing: Action) -> list[str]:
        try:
            problems = list(doing.check(self._host))
        except Exception as error:
            problems = [_why(error)]
        if silence := self._silence():
            problems.append(
                f"the node's program cannot ask the API server, so it would not hear of an abort: {silence}"
            )
        elif self._task.mode == "run" and not problems and (why := self._switch.until_alive()):
            problems.append(why)
        return problems

    def _silence(self) -> str:
        """Why the API server does not answer; "" when it does."""
        for _ in range(ASKS - 1):
            if not (silence := self._switch.ask()) or self._switch.why:
                return silence
            self._switch.wait(1.0)
        return self._switch.ask()

    def _change(self, doing: Action) -> dict[str, Any]:
        try:
            before = doing.before(self._host)
            self._memory.save({"before": before})
        except Exception as error:
            return self._tell("out", error=_why(error), facts=["nothing was changed"])
        self._tell("before", before=before)
        self._switch.watch()
        self._switch.begin()
        failed = ""
        try:
            if not self._switch.why:
                doing.apply(self._host, before)
                self._until_in(doing, before)
                self._hold(doing, before)
            why = self._switch.why
        except Exception as error:  # whatever it was, what was changed is taken back
            why = failed = _why(error)
        return self._revert(doing, before, why, failed)

    def _until_in(self, doing: Action, before: dict[str, Any]) -> None:
        """Raises ValueError when the change was made, but is not seen."""
        deadline = time.monotonic() + IN_WITHIN
        while not self._switch.why:
            state, facts = doing.look(self._host, before)
            if state == "in":
                self._tell("in", facts=facts)
                return
            if time.monotonic() > deadline:
                raise ValueError(f"made, but not seen in force within {IN_WITHIN:g} s: {'; '.join(facts)}")
            self._switch.wait(TICK)

    def _hold(self, doing: Action, before: dict[str, Any]) -> None:
        since = time.monotonic()
        while not self._switch.why:
            doing.hold(self._host, before, time.monotonic() - since)
            self._switch.wait(TICK)

    def _revert(self, doing: Action, before: dict[str, Any], why: str, error: str = "") -> dict[str, Any]:
        """Take it back until it is seen gone; what fails once may succeed the next time."""
        self._tell("reverting", why=why)
        deadline = time.monotonic() + OUT_WITHIN
        delay = TICK
        while True:
            try:
                doing.revert(self._host, before)
                state, facts = doing.look(self._host, before)
            except Exception as failure:
                state, facts = "partial", [_why(failure)]
            if state == "out":
                self._memory.forget()
                return self._tell("out", why=why, facts=facts, **({"error": error} if error else {}))
            if time.monotonic() > deadline:
                return self._tell("failed", why=why, facts=facts, error=error or "still in force")
            time.sleep(delay)
            delay = min(delay * 2, 2.0)

    def _tell(self, event: str, **what: Any) -> dict[str, Any]:
        line = {"event": event, "time": time.time(), **what}
        self._say(line)
        return line


def _why(error: Exception) -> str:
    """An error for people; one that nobody meant for them keeps its kind."""
    return str(error) if isinstance(error, (ToolError, OSError, ValueError)) else repr(error)
