"""The controls of a native Chaos Toolkit experiment, in one process that lives as long as the run.

Chaos Toolkit itself says which controls are applied where: this side only tells when a level begins and ends.
``python -m gameday.platform.controls`` is that process: JSON lines on standard input, the first of them the
experiment, and one JSON answer to each. Activities have processes of their own, so that a control can change
an activity before it runs and sees what came of it, but shares no memory with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from gameday.platform.errors import PlatformError

Activity = dict[str, Any]
PATIENCE = 300.0  # seconds that a control may take while nothing is to be undone
HURRY = 10.0  # seconds that one may take during the undo, which waits for nobody
LARGEST = 1 << 22  # bytes of an answer

current: ContextVar[Controls | None] = ContextVar("controls", default=None)


class Interrupted(PlatformError):
    """A control ended the experiment, or controls are no more."""


class Controls:
    """The process, once it was started; before and after that nothing is applied.

    `on_end` hears why the run must end: a control said so, or the process is gone.
    """

    def __init__(self, experiment: Mapping[str, Any], on_end: Callable[[str], None]) -> None:
        self._experiment, self._on_end = dict(experiment), on_end
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None
        self._waiting: asyncio.Future[dict[str, Any]] | None = None  # for the answer to what was asked
        self.patience = PATIENCE
        self._taking = 0.0  # the patience with which what is asked now was asked; 0: nothing is
        self.hears = True  # false while gameday looks at the platform for itself

    async def start(self, environment: Mapping[str, str]) -> None:
        """Start the process, and let each control configure itself. Raises PlatformError."""
        command = [sys.executable, "-P", "-m", __spec__.name if __spec__ else __name__]
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, **environment},
                limit=LARGEST,
                start_new_session=True,
            )
        except OSError as error:
            raise PlatformError(f"the controls can't be started: {error}") from error
        self._listening = asyncio.create_task(self._listen(self._process), name="controls")
        await self._ask(self._experiment)

    async def apply(self, level: str, scope: str, context: Any = None, state: Any = None) -> Any:
        """Let the controls of a level act, before or after it; the context as they left it."""
        if self._process is None or not self.hears:
            return context
        told = await self._ask({"level": level, "scope": scope, "context": context, "state": state})
        return told.get("context") or context

    async def around(self, activity: Activity, run: Callable[[Activity], Awaitable[Any]]) -> Any:
        """Run an activity between its controls. Raises PlatformError."""
        if self._process is None or not self.hears:
            return await run(activity)
        with contextlib.suppress(*self._passed_over):
            changed = await self.apply("activity", "before", activity)
            if self.patience > HURRY:  # what undoes is what the record holds
                activity = activity | {"provider": changed.get("provider") or activity["provider"]}
        began, started = datetime.now(UTC), time.monotonic()
        told: Activity = {"activity": activity, "output": None, "start": began.isoformat()}
        try:
            result = await run(activity)
            told |= {"output": result, "status": "succeeded"}
            return result
        except PlatformError as error:
            told |= {"status": "failed", "exception": [str(error)]}
            raise
        finally:
            if "status" in told:
                ended = datetime.now(UTC).isoformat()
                told |= {"end": ended, "duration": time.monotonic() - started}
                with contextlib.suppress(*self._passed_over):
                    await self.apply("activity", "after", activity, told)

    @property
    def _passed_over(self) -> tuple[type[Interrupted], ...]:
        """What no rollback is kept from running by."""
        return (Interrupted,) if self.patience == HURRY else ()

    async def end(self) -> None:
        """Let each control clean up, and end the process. Never raises."""
        if (process := self._process) is None:
            return
        with contextlib.suppress(PlatformError):
            await self._ask({"end": True})
        self._stop(process)

    async def _ask(self, request: Any) -> dict[str, Any]:
        """One answer. Raises Interrupted, and tells so."""
        if self.patience < self._taking and self._process is not None:
            self._stop(self._process)  # a control is at it since before the undo, which waits for nobody
        async with self._turn:
            if (process := self._process) is None:
                return {}
            self._waiting = asyncio.get_running_loop().create_future()
            self._taking = self.patience
            try:
                async with asyncio.timeout(self.patience):
                    await _send(process, request)
                    told = await self._waiting
            except TimeoutError:
                self._stop(process)
                told = {"lost": f"the controls did not answer within {self.patience:g} s"}
            except asyncio.CancelledError:  # its answer would be taken for the next one's
                self._stop(process)
                raise
            finally:
                self._waiting, self._taking = None, 0.0
        reason = told.get("interrupt") or (told.get("lost") if self.patience > HURRY else None)
        if reason is None:
            return told
        self._on_end(str(reason))
        raise Interrupted(str(reason))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Hear answers, and what is said without a question: a control may end the experiment at any time."""
        assert process.stdout is not None
        lost = False
        while not lost:
            line = await process.stdout.readline()
            lost = not line
            told = {"lost": "the process of the controls ended"} if lost else json.loads(line)
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(told)
            elif self._process is process and self.patience > HURRY:
                self._on_end(str(told.get("interrupt") or told.get("lost")))
                lost = True
        self._stop(process)

    def _stop(self, process: asyncio.subprocess.Process) -> None:
        self._process = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result({"lost": "the controls were stopped"})
        if self._listening is not None and self._listening is not asyncio.current_task():
            self._listening.cancel()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


async def _send(process: asyncio.subprocess.Process, request: Any) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # whoever listens hears that it ended
        process.stdin.write(json.dumps(request, default=str).encode() + b"\n")
        await process.stdin.drain()


# -- the other side: everything below runs in the controls' process -----------------------------------


def main() -> None:
    """Answer until the experiment ends, or until nobody asks any more."""
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asked: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_hear, args=(asked,), daemon=True).start()
    over = False
    try:
        from chaoslib.exit import exit_signals

        with exit_signals():  # as controls use them to end the experiment
            host = _Host(asked.get())
            _say(channel, {})
            while not over:
                request = asked.get()
                over = bool(request.get("end"))
                _say(channel, host.answer(request))
    except BaseException as error:  # InterruptExecution and SystemExit among them
        _say(channel, {"interrupt": f"a control ended the experiment: {error}", "over": True})
    os._exit(0)


def _hear(asked: queue.Queue[Any]) -> None:
    for line in sys.stdin.buffer:
        asked.put(json.loads(line))
    os._exit(1)  # gameday is gone


def _say(channel: Any, told: Activity) -> None:
    channel.write(json.dumps(told, default=str).encode() + b"\n")
    channel.flush()


def _same(one: Activity, told: Activity) -> bool:
    """Whether an activity of the experiment is the one that is about to run: names are not unique."""
    return all(one.get(key) == told.get(key) for key in ("name", "type", "provider"))


class _Host:
    def __init__(self, experiment: Activity) -> None:
        from chaoslib.configuration import load_configuration, load_dynamic_configuration
        from chaoslib.control import initialize_controls
        from chaoslib.run import EventHandlerRegistry, initialize_run_journal
        from chaoslib.secret import load_secrets

        self._experiment = experiment
        configuration = load_configuration(experiment.get("configuration", {}))
        self._secrets = load_secrets(experiment.get("secrets", {}), configuration)
        self._configuration = load_dynamic_configuration(configuration, self._secrets)
        self._journal = initialize_run_journal(experiment)
        self._runs: list[Any] = self._journal["run"]
        registry = EventHandlerRegistry()
        initialize_controls(experiment, self._configuration, self._secrets, event_registry=registry)

    def answer(self, request: Activity) -> Activity:
        from chaoslib.control import apply_controls, cleanup_controls
        from chaoslib.exceptions import InterruptExecution

        if request.get("end"):
            cleanup_controls(self._experiment)
            return {}
        level, scope = request["level"], request["scope"]
        context = self._context(level, request["context"])
        state = self._state(level, scope, request["state"], context)
        try:
            apply_controls(
                level=level,
                experiment=self._experiment,
                context=context,
                scope=scope,
                state=state,
                configuration=self._configuration,
                secrets=self._secrets,
            )
        except InterruptExecution as error:
            return {"interrupt": f"a control ended the experiment: {error}"}
        return {"context": context} if level == "activity" else {}

    def _context(self, level: str, told: Any) -> Any:
        """The experiment's own object, which stays as a control leaves it."""
        if level == "hypothesis":
            return self._experiment.get("steady-state-hypothesis") or {}
        if level != "activity":
            return self._experiment
        hypothesis = self._experiment.get("steady-state-hypothesis") or {}
        parts = (hypothesis.get("probes"), self._experiment.get("method"), self._experiment.get("rollbacks"))
        known = [a for part in parts for a in part or () if _same(a, told)]
        return next(iter(known), told)

    def _state(self, level: str, scope: str, told: Any, context: Any) -> Any:
        """What an after-control gets: the journal, the runs of a level, one run."""
        if level == "rollback" and scope == "before":
            self._runs = self._journal["rollbacks"]
        if scope == "before":
            return None
        if level == "activity":
            told = {**told, "activity": dict(context)}
            if "tolerance" not in context:
                self._runs.append(told)
            return told
        if level in ("method", "rollback"):
            return self._runs
        if level == "hypothesis":
            self._journal["steady_states"][told.pop("when")] = told
            return told
        self._journal.update(told or {}, end=datetime.now(UTC).isoformat())
        return self._journal


if __name__ == "__main__":
    main()
